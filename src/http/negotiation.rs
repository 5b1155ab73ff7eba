//! Content negotiation: which media types and codings a request accepts (RFC 9110, section 12.5).

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

/// The media type of OpenMetrics, without parameters.
const OPENMETRICS: &str = "application/openmetrics-text";
/// The ranges that include the type of a stream, the least specific first.
const STREAM_RANGES: [&str; 3] = ["*/*", "text/*", "text/event-stream"];

/// Whether the request accepts a stream. A request without `Accept` does.
pub fn accepts_event_stream(headers: &HeaderMap) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    let (mut nearest, mut is_accepted) = (0, false);
    for (range, is_refused) in preferences(headers, ACCEPT) {
        let of = |wide: &&str| range.eq_ignore_ascii_case(wide);
        // The most specific range counts.
        let specificity = STREAM_RANGES.iter().position(of);
        if let Some(specificity) = specificity.filter(|specificity| *specificity >= nearest) {
            (nearest, is_accepted) = (specificity, !is_refused);
        }
    }
    is_accepted
}

/// Whether the request accepts a compressed response.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    is_named(headers, ACCEPT_ENCODING, "gzip")
}

/// Whether the request names OpenMetrics. A range such as `*/*` does not, because many tools that
/// send it cannot read that format.
pub fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    is_named(headers, ACCEPT, OPENMETRICS)
}

fn is_named(headers: &HeaderMap, header: HeaderName, wanted: &str) -> bool {
    let mut all = preferences(headers, header);
    all.any(|(value, is_refused)| value.eq_ignore_ascii_case(wanted) && !is_refused)
}

/// The values of a header with preferences, each with whether its weight is zero, which refuses it
/// (section 12.4.2).
fn preferences(headers: &HeaderMap, header: HeaderName) -> impl Iterator<Item = (&str, bool)> {
    let lines = headers.get_all(header).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|value| {
        let mut parts = value.split(';').map(str::trim);
        (parts.next().unwrap_or_default(), parts.any(is_zero_weight))
    })
}

/// Whether a parameter is a weight of zero: `q=0`, with up to three decimals.
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim().parse() == Ok(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn the_most_specific_range_says_whether_a_stream_is_accepted() {
        let check = |accept: &[&str], expected| {
            assert_eq!(accepts_event_stream(&headers(ACCEPT, accept)), expected, "{accept:?}");
        };
        check(&[], true);
        check(&["*/*"], true);
        check(&["application/json, Text/Event-Stream;q=0.5"], true);
        check(&["application/json", "text/*"], true);
        check(&["application/json"], false);
        check(&["text/event-stream;q=0, */*"], false);
        check(&["*/*, text/event-stream; q=0.000"], false);
        check(&["*/*;q=0", "text/*"], true);
        check(&["application/json, text/*; Q=0"], false);
    }

    #[test]
    fn a_coding_is_accepted_by_its_name_and_a_weight_above_zero() {
        let check = |accept: &str, expected| {
            assert_eq!(accepts_gzip(&headers(ACCEPT_ENCODING, &[accept])), expected, "{accept}");
        };
        check("gzip, deflate, br", true);
        check("br, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("gzip; q=0.000, br", false);
        check("xgzip", false);
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn openmetrics_is_accepted_by_name_only() {
        let check = |accept: &str, expected| {
            assert_eq!(accepts_openmetrics(&headers(ACCEPT, &[accept])), expected, "{accept}");
        };
        check("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", true);
        check("*/*", false);
        check("text/plain, application/openmetrics-text;q=0", false);
    }
}
