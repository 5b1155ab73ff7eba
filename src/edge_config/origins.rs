//! The part of a VCL that spreads requests over several origins of one Redis.

use super::{HostPort, fill};
use std::fmt::Write;

const ORIGINS: &str = include_str!("../../vcl/varnish/origins.vcl");
const BACKENDS: &str = "# The backends stand here.\n";
/// The directors, to each of which all backends are added.
const DIRECTORS: [&str; 2] = ["headwater_origins", "headwater_sockets"];

/// Adds further origins to a VCL that has `first` as its backend.
pub fn spread(text: &str, first: &HostPort, further: &[HostPort]) -> String {
    if further.is_empty() {
        return text.to_owned();
    }
    let begin = |name: &str| format!("backend {name} {{");
    let rest = text.split(&begin("headwater")).nth(1).unwrap_or_default();
    let body = rest.split("\n}\n").next().unwrap_or_default();
    let host = |origin: &HostPort| format!(".host = \"{}\"", origin.bare_host());
    let port = |origin: &HostPort| format!(".port = \"{}\"", origin.port);
    let (mut backends, mut section) = (String::new(), ORIGINS.to_owned());
    let mut last = "headwater".to_owned();
    for (index, origin) in std::iter::once(first).chain(further).enumerate() {
        let name = if index == 0 { last.clone() } else { format!("headwater_{}", index + 1) };
        let own = [(&*host(first), host(origin)), (&*port(first), port(origin))];
        let head = if index == 0 { "" } else { "\n" };
        let body =
            format!("{}{}\n    .probe = headwater_ready;\n}}\n", begin(&name), fill(body, &own));
        // Writing to a string does not fail.
        let _ = write!(backends, "{head}{body}");
        if index > 0 {
            let add = |director: &str, name: &str| format!("    {director}.add_backend({name});\n");
            let both = DIRECTORS.map(|one| (add(one, &last), add(one, &last) + &add(one, &name)));
            let both = both.each_ref().map(|(from, to)| (from.as_str(), to.clone()));
            section = fill(&section, &both);
        }
        last = name;
    }
    let section = fill(&section, &[(BACKENDS, backends)]);
    fill(text, &[(&format!("{}{body}\n}}\n", begin("headwater")), section)])
}
