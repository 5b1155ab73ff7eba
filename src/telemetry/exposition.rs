//! The two text formats of metrics: OpenMetrics, and the older format of Prometheus (version
//! 0.0.4), which many tools request.
//!
//! The formats differ in the lines that begin with `#`. OpenMetrics names a family of metrics
//! without the suffix of its samples (`_total`, `_info`), has lines with units (`# UNIT`), has the
//! type `info`, and ends with the line `# EOF`.

/// The media type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older format.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts OpenMetrics text, as `prometheus_client` writes it, into the older format.
pub fn to_prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut add = |parts: &[&str]| {
        parts.iter().for_each(|part| text.push_str(part));
        text.push('\n');
    };
    // The line with the help precedes the one with the type, and needs the type.
    let mut help = None;
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(line) = line.strip_prefix("# HELP ") {
            help = line.split_once(' ');
            continue;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        else {
            add(&[line]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            _ => ("", kind),
        };
        if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
            add(&["# HELP ", name, suffix, " ", text]);
        }
        add(&["# TYPE ", name, suffix, " ", kind]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_like_their_samples() {
        let openmetrics = "# HELP a_bytes Bytes sent.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                           a_bytes_total{x=\"# HELP\"} 1\n# HELP b State.\n# TYPE b gauge\nb 2\n\
                           # HELP c Build.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_bytes_total Bytes sent.\n# TYPE a_bytes_total counter\n\
                        a_bytes_total{x=\"# HELP\"} 1\n# HELP b State.\n# TYPE b gauge\nb 2\n\
                        # HELP c_info Build.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n";
        assert_eq!(to_prometheus(openmetrics), expected);
    }
}
