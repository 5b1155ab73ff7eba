//! Parses the metrics of an origin (the text format of Prometheus), and computes sums, quantiles,
//! and the growth between two scrapes.

use std::collections::BTreeMap;

/// The samples of one scrape, by series: the name of the metric with its labels.
#[derive(Clone, Debug, Default)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Parses the text of `/metrics`. Lines that are not samples are ignored.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // A sample may have a time after its value; this program writes none.
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// Returns the sum over all series of a metric.
    pub fn total(&self, name: &str) -> f64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// Returns the sum over the series of a metric that have a label with this value.
    pub fn labelled(&self, name: &str, label: &str, value: &str) -> f64 {
        let wanted = format!("{label}=\"{value}\"");
        let series = self.series(name).filter(|(labels, _)| labels.contains(&wanted));
        series.map(|(_, value)| value).sum()
    }

    /// Returns the growth of all series since an earlier scrape. A counter that began again at 0,
    /// because the origin was restarted, has grown by its whole value.
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().map(|(series, value)| {
            let before = earlier.0.get(series).copied().unwrap_or_default();
            (series.clone(), if *value >= before { value - before } else { *value })
        });
        Self(grown.collect())
    }

    /// Estimates the `quantile` (0 to 1) of a histogram, in its unit, as Prometheus does: linear
    /// inside of a bucket. Returns `None` if the histogram has no values.
    pub fn quantile(&self, name: &str, quantile: f64) -> Option<f64> {
        let mut buckets = self.buckets(name);
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let count = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let rank = quantile * count;
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, until) in buckets {
            if until >= rank {
                // The last bucket has no upper limit.
                let is_open = upper.is_infinite() || until <= below;
                let part = if is_open { 0.0 } else { (rank - below) / (until - below) };
                return Some(if is_open { lower } else { lower + (upper - lower) * part });
            }
            (lower, below) = (upper, until);
        }
        Some(lower)
    }

    /// Returns the upper limit of each bucket of a histogram, and the number of values up to it.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let limit = |labels: &str| {
            let limit = labels.split_once("le=\"")?.1.split_once('"')?.0;
            if limit == "+Inf" { Some(f64::INFINITY) } else { limit.parse().ok() }
        };
        self.series(&name).filter_map(|(labels, count)| Some((limit(labels)?, count))).collect()
    }

    /// Returns the labels and the value of each series of a metric.
    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let from = self.0.range(name.to_owned()..);
        let own = from.take_while(move |(series, _)| series.starts_with(name));
        own.filter_map(move |(series, value)| {
            let labels = &series[name.len()..];
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total Text\n# TYPE a_total counter\na_total{kind=\"x\"} 3\n\
        a_total{kind=\"y\"} 4\na_totals 100\ng 1.5\n\
        h_bucket{le=\"0.001\"} 50\nh_bucket{le=\"0.01\"} 90\nh_bucket{le=\"+Inf\"} 100\nh_count 100\n";

    #[test]
    fn series_of_a_metric_are_added_up() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.total("a_total"), 7.0);
        assert_eq!(scrape.labelled("a_total", "kind", "y"), 4.0);
        assert_eq!(scrape.total("g"), 1.5);
        assert_eq!(scrape.total("none"), 0.0);
    }

    #[test]
    fn a_quantile_lies_inside_of_its_bucket() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.quantile("h", 0.25), Some(0.0005));
        let p80 = scrape.quantile("h", 0.8).unwrap();
        assert!((p80 - 0.00775).abs() < 1e-9, "{p80}");
        assert_eq!(scrape.quantile("h", 0.99), Some(0.01));
        assert_eq!(scrape.quantile("none", 0.5), None);
        assert_eq!(scrape.since(&scrape).quantile("h", 0.5), None);
    }

    #[test]
    fn a_counter_that_began_again_has_grown_by_its_value() {
        let (before, after) = (Scrape::parse("a 10\nb 10\n"), Scrape::parse("a 12\nb 3\n"));
        let grown = after.since(&before);
        assert_eq!((grown.total("a"), grown.total("b")), (2.0, 3.0));
    }
}
