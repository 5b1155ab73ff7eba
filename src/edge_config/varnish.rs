//! The VCL for Varnish.

use super::{READ_SLACK, SEND_SLACK, Varnish, fill, literal, origins, seconds};
use crate::core::pattern::Pattern;
use crate::limits::client_address::Network;

const VARNISH: &str = include_str!("../../vcl/varnish/headwater.vcl");

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
    if !wanted.purge_from.is_empty() {
        let operators: String = wanted
            .purge_from
            .iter()
            .map(|network| format!("    {};\n", acl_entry(network)))
            .collect();
        text = fill(&text, &[("    \"127.0.0.1\";\n    \"::1\";\n", operators)]);
    }
    origins::spread(&text, origin, &wanted.deployment.further_origins)
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
