//! The shipped edge configurations, filled in for a deployment.
//!
//! The files in `vcl/`, `nginx/` and `deploy/` are complete configurations with default values. The
//! files are compiled into the binary, and only their default values are replaced by the values of
//! a deployment. There is no I/O here.

mod nginx;
mod origins;
mod varnish;

pub use nginx::nginx;
pub use varnish::varnish;

use crate::core::pattern::Pattern;
use crate::limits::client_address::Network;
use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

const SQUID: &str = include_str!("../../deploy/squid/squid.conf");
const FASTLY_MAIN: &str = include_str!("../../vcl/fastly/main.vcl");
/// The snippets in the order in which a request passes them; `headwater.tf` has the type of each.
const FASTLY_SNIPPETS: [(&str, &str); 10] = [
    ("init", include_str!("../../vcl/fastly/init.vcl")),
    ("private", include_str!("../../vcl/fastly/private.vcl")),
    ("recv", include_str!("../../vcl/fastly/recv.vcl")),
    ("hash", include_str!("../../vcl/fastly/hash.vcl")),
    ("hit", include_str!("../../vcl/fastly/hit.vcl")),
    ("miss", include_str!("../../vcl/fastly/miss.vcl")),
    ("pass", include_str!("../../vcl/fastly/pass.vcl")),
    ("fetch", include_str!("../../vcl/fastly/fetch.vcl")),
    ("error", include_str!("../../vcl/fastly/error.vcl")),
    ("deliver", include_str!("../../vcl/fastly/deliver.vcl")),
];
const FASTLY_TERRAFORM: &str = include_str!("../../vcl/fastly/headwater.tf");
/// How much longer than a segment a response may take, because a slow client may lag behind.
const SEND_SLACK: Duration = Duration::from_secs(30);
/// How much longer than a long poll nginx waits: in collapsed requests (lock), and for data (read).
const LOCK_SLACK: Duration = Duration::from_secs(5);
const READ_SLACK: Duration = Duration::from_secs(10);

/// A `host:port` that is valid in all configuration languages used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The properties of a deployment that every edge needs.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The address of the origin, as seen from the edge.
    pub origin: HostPort,
    /// The addresses of further origins with the same store.
    pub further_origins: Vec<HostPort>,
    /// The origin's `--lanes`.
    pub lanes: u64,
}

/// The values of a Fastly service.
#[derive(Clone, Debug)]
pub struct Fastly {
    /// The properties that every edge needs.
    pub deployment: Deployment,
    /// The origin's `--cors-origin`.
    pub cors_origins: Vec<String>,
}

/// The values of a Varnish.
#[derive(Clone, Debug)]
pub struct Varnish {
    /// The properties that every edge needs.
    pub deployment: Deployment,
    /// The origin's `--segment`.
    pub segment: Duration,
    /// The origin's `--long-poll-timeout`.
    pub long_poll_timeout: Duration,
    /// The origin's `--private`: channels whose requests bypass the cache.
    pub private: Vec<Pattern>,
    /// The addresses that may send PURGE.
    pub purge_from: Vec<Network>,
    /// The origin's `--cors-origin`.
    pub cors_origins: Vec<String>,
}

/// The values of a Squid, which stands between the listeners of an nginx with [`Profile::Squid`].
#[derive(Clone, Debug)]
pub struct Squid {
    /// The address where nginx listens for Squid.
    pub origin: HostPort,
    /// The port, or address and port, where Squid listens.
    pub listen: Option<String>,
    /// The origin's `--long-poll-timeout`.
    pub long_poll_timeout: Duration,
    /// The origin's `--private`: channels whose responses are not shared.
    pub private: Vec<Pattern>,
}

/// How nginx handles streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// nginx sends long polls (`?mode=hold`) to the origin, and caches the responses.
    Collapse,
    /// Each client has an origin request of its own.
    Stream,
    /// nginx serves TLS and HTTP/2 in front of Varnish.
    Varnish,
    /// nginx stands in front of Squid and behind it.
    Squid,
}

/// The values of an nginx.
#[derive(Clone, Debug)]
pub struct Nginx {
    /// The properties that every edge needs; with [`Profile::Varnish`] the origin is the Varnish.
    pub deployment: Deployment,
    /// How nginx handles streams.
    pub profile: Profile,
    /// The port, or address and port, where nginx listens.
    pub listen: Option<String>,
    /// The certificate chain and its key, as PEM files.
    pub tls: Option<(String, String)>,
    /// The directory of the cache of nginx.
    pub cache_dir: Option<String>,
    /// The origin's `--long-poll-timeout`.
    pub long_poll_timeout: Duration,
    /// The address of Squid, with [`Profile::Squid`].
    pub squid: Option<HostPort>,
    /// The port, or address and port, where nginx listens for that Squid.
    pub inner_listen: Option<String>,
    /// The origin's `--cors-origin`, with [`Profile::Squid`] and [`Profile::Collapse`].
    pub cors_origins: Vec<String>,
    /// Most requests of one client address at once.
    pub client_connections: Option<NonZeroU32>,
}

/// A complete `squid.conf` for `squid -f`.
pub fn squid(wanted: &Squid) -> String {
    let HostPort { host, port } = &wanted.origin;
    let read_timeout = seconds(wanted.long_poll_timeout + READ_SLACK);
    let listen = wanted.listen.as_deref().unwrap_or("127.0.0.1:3128");
    let mut text = fill(
        SQUID,
        &[
            ("http_port 127.0.0.1:3128", format!("http_port {listen}")),
            ("127.0.0.1 parent 3129", format!("{} parent {port}", wanted.origin.bare_host())),
            ("forceddomain=127.0.0.1:3129", format!("forceddomain={host}:{port}")),
            ("read_timeout 30 seconds", format!("read_timeout {read_timeout} seconds")),
        ],
    );
    if !wanted.private.is_empty() {
        // Squid uses POSIX expressions, which have no look-ahead assertions.
        let channels = wanted.private.iter().map(|pattern| {
            let text = pattern.to_string().replace('.', "[.]");
            match text.strip_suffix('*') {
                Some(beginning) => format!("{beginning}[^/?]"),
                None => format!("{text}([,/?]|$)"),
            }
        });
        let channels = channels.collect::<Vec<_>>().join("|");
        text = fill(&text, &[("^/channels/$", format!("^/channels/([^/?]*,)?({channels})"))]);
    }
    text
}

/// A regular expression for an origin of web pages.
fn literal(origin: &str) -> String {
    origin
        .chars()
        .map(|c| if ".[]".contains(c) { format!("\\{c}") } else { c.to_string() })
        .collect()
}

/// One custom VCL with all parts included.
pub fn fastly(wanted: &Fastly) -> String {
    let text = with_includes(FASTLY_MAIN, fastly_include);
    let origin = &wanted.deployment.origin;
    let HostPort { host, port } = origin;
    let text = fill(
        &text,
        &[
            ("origin.example.com", host.clone()),
            (r#".port = "443""#, format!(r#".port = "{port}""#)),
        ],
    );
    // The header `Host` has the port only when it is not 443, the default of TLS.
    let authority = if *port == 443 { host.clone() } else { origin.to_string() };
    let text = fill(
        &text,
        &[
            (&format!(r#".host_header = "{host}""#), format!(r#".host_header = "{authority}""#)),
            (&format!(r#""Host: {host}""#), format!(r#""Host: {authority}""#)),
        ],
    );
    fastly_settings(&text, wanted)
}

/// The names and texts of files: the snippets, and a Terraform configuration that installs them.
pub fn fastly_files(wanted: &Fastly, domain: Option<&str>) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = FASTLY_SNIPPETS
        .map(|(name, text)| (format!("{name}.vcl"), text.to_owned()))
        .into_iter()
        .map(|(name, text)| {
            let text = if name == "init.vcl" { fastly_settings(&text, wanted) } else { text };
            (name, text)
        })
        .collect();
    files.push(("headwater.tf".to_owned(), FASTLY_TERRAFORM.to_owned()));
    let HostPort { host, port } = &wanted.deployment.origin;
    let domain = domain.map(|domain| format!("domain = \"{domain}\"\n")).unwrap_or_default();
    let values = format!("{domain}origin_host = \"{host}\"\norigin_port = {port}\n");
    files.push(("headwater.auto.tfvars".to_owned(), values));
    files
}

fn fastly_settings(text: &str, wanted: &Fastly) -> String {
    let setting = |name: &str, value: &str| format!(r#""{name}": "{value}""#);
    let lanes = setting("lanes", &wanted.deployment.lanes.to_string());
    let pages = setting("cors_origins", &wanted.cors_origins.join(" "));
    fill(text, &[(&setting("lanes", "1"), lanes), (&setting("cors_origins", ""), pages)])
}

fn fastly_include(line: &str) -> Option<&'static str> {
    let name = line.strip_prefix("include \"")?.strip_suffix("\";")?;
    FASTLY_SNIPPETS.iter().find(|(part, _)| *part == name).map(|(_, text)| *text)
}

/// Replaces each shipped value wherever it occurs. The tests check that each of them occurs.
fn fill(text: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (from, to)| {
        debug_assert!(text.contains(from), "{from:?} is not in the shipped file");
        text.replace(from, to)
    })
}

/// Replaces each include line by the text of the included file, with the indentation of that line.
fn with_includes(text: &str, included: fn(&str) -> Option<&'static str>) -> String {
    let mut whole = String::new();
    for line in text.split_inclusive('\n') {
        let indent = &line[..line.len() - line.trim_start().len()];
        match included(line.trim()) {
            None => whole.push_str(line),
            Some(part) => {
                for line in with_includes(part, included).split_inclusive('\n') {
                    whole.push_str(if line.trim().is_empty() { "" } else { indent });
                    whole.push_str(line);
                }
            }
        }
    }
    whole
}

/// A duration in whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1_000) as u64
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it as host:port, for example origin.example.com:443".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_v6 = v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        if !is_name && !is_v6 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl HostPort {
    /// The host without the brackets of an IPv6 address.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
