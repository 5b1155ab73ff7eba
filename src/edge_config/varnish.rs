//! The VCL for Varnish.

use super::{Deployment, READ_SLACK, SEND_SLACK, Varnish, fill, literal, seconds};
use crate::access::scope::Pattern;
use crate::limits::client_address::Network;

const VARNISH: &str = include_str!("../../vcl/varnish/headwater.vcl");
/// The parts of a VCL with several origins.
const VARNISH_PROBE: &str = "\
# An origin that does not answer, or is about to stop, receives no requests. It is asked each second,
# so `--drain-delay 3s` or more lets Varnish notice a planned stop before it begins.
probe headwater_ready {
    .url = \"/readyz\";
    .interval = 1s;
    .timeout = 1s;
    .window = 2;
    .threshold = 2;
    .initial = 1;
}
";
const VARNISH_DIRECTOR: &str = "    new headwater_origins = directors.round_robin();\n";
const VARNISH_CHOICE: &str = "    set req.backend_hint = headwater_origins.backend();\n";
const VARNISH_RETRY: &str = "\
    # Another origin may answer.
    if (bereq.http.Headwater-Path && bereq.retries == 0) {
        return (retry);
    }
";

/// A complete VCL for `varnishd -f`.
pub fn varnish(wanted: &Varnish) -> String {
    let origin = &wanted.deployment.origin;
    let mut text = fill(
        VARNISH,
        &[
            (r#".host = "127.0.0.1""#, format!(r#".host = "{}""#, origin.bare_host())),
            (r#".port = "8080""#, format!(r#".port = "{}""#, origin.port)),
            (r#"Host = "127.0.0.1:8080""#, format!(r#"Host = "{origin}""#)),
            (
                r#"Headwater-Lanes = "1""#,
                format!(r#"Headwater-Lanes = "{}""#, wanted.deployment.lanes),
            ),
            ("send_timeout=630", format!("send_timeout={}", seconds(wanted.segment + SEND_SLACK))),
            (
                ".first_byte_timeout = 30s",
                format!(
                    ".first_byte_timeout = {}s",
                    seconds(wanted.long_poll_timeout + READ_SLACK)
                ),
            ),
        ],
    );
    if !wanted.cors_origins.is_empty() {
        let pages: Vec<String> = wanted.cors_origins.iter().map(|one| literal(one)).collect();
        text = fill(
            &text,
            &[("Origin !~ \".*\"", format!("Origin !~ \"^(?:{})$\"", pages.join("|")))],
        );
    }
    if !wanted.private.is_empty() {
        let channels: Vec<String> = wanted.private.iter().map(expression).collect();
        text = fill(&text, &[(",)?(?!)", format!(",)?(?:{})", channels.join("|")))]);
    }
    if !wanted.deployment.further_origins.is_empty() {
        text = with_several_origins(&text, &wanted.deployment);
    }
    if !wanted.purge_from.is_empty() {
        let operators: String = wanted
            .purge_from
            .iter()
            .map(|network| format!("    {};\n", acl_entry(network)))
            .collect();
        text = fill(&text, &[("    \"127.0.0.1\";\n    \"::1\";\n", operators)]);
    }
    text
}

/// Puts a director in the place of the one backend of a VCL. Requests go to the origins in turn,
/// and only to those that are ready. A request that fails at one origin goes to another one, if it
/// is a read.
fn with_several_origins(text: &str, deployment: &Deployment) -> String {
    const BACKEND: &str = "backend headwater {\n";
    let Some(begin) = text.find(BACKEND) else { return text.to_owned() };
    let Some(length) = text[begin..].find("}\n") else { return text.to_owned() };
    let (before, rest) = text.split_at(begin);
    let (backend, after) = rest.split_at(length + "}\n".len());
    let first = &deployment.origin;
    let origins = std::iter::once(first).chain(&deployment.further_origins).zip(1..);
    let (mut backends, mut members) = (VARNISH_PROBE.to_owned(), String::new());
    for (origin, number) in origins {
        let values = [
            (BACKEND, format!("backend headwater_{number} {{\n")),
            (&format!("\"{}\"", first.bare_host()), format!("\"{}\"", origin.bare_host())),
            (&format!(".port = \"{}\"", first.port), format!(".port = \"{}\"", origin.port)),
            ("}\n", "    .probe = headwater_ready;\n}\n".to_owned()),
        ];
        backends += &format!("\n{}", fill(backend, &values));
        members += &format!("    headwater_origins.add_backend(headwater_{number});\n");
    }
    let sub = |name: &str| format!("sub {name} {{\n");
    let after = fill(
        after,
        &[
            (&sub("vcl_init"), sub("vcl_init") + VARNISH_DIRECTOR + &members),
            (&sub("vcl_recv"), sub("vcl_recv") + VARNISH_CHOICE),
            (&sub("vcl_backend_error"), sub("vcl_backend_error") + VARNISH_RETRY),
        ],
    );
    format!("{before}{backends}{after}")
}

/// A regular expression for the names that a pattern matches; it is used where a name begins.
fn expression(pattern: &Pattern) -> String {
    let text = pattern.to_string().replace('.', "[.]");
    match text.strip_suffix('*') {
        Some(beginning) => beginning.to_owned(),
        None => format!("{text}(?=[,/?]|$)"),
    }
}

fn acl_entry(Network(network): &Network) -> String {
    match network.prefix_len() == network.max_prefix_len() {
        true => format!("\"{}\"", network.addr()),
        false => format!("\"{}\"/{}", network.addr(), network.prefix_len()),
    }
}
