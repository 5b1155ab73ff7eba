//! `headwater edge` prints the shipped configuration of a cache, with the values of a deployment.

use super::units::duration;
use super::{fail, misused};
use crate::core::pattern::Pattern;
use crate::core::segment::{LANES_MAX, SEGMENT_MS};
use crate::edge_config::{self, Deployment, Fastly, HostPort, Nginx, Profile, Squid, Varnish};
use crate::limits::client_address::Network;
use clap::{Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct EdgeArguments {
    #[command(subcommand)]
    edge: Edge,
}

#[derive(Subcommand, Debug)]
enum Edge {
    /// A VCL for varnishd -f
    Varnish(VarnishArguments),
    /// A complete nginx.conf for nginx -c
    Nginx(NginxArguments),
    /// A squid.conf for squid -f; needs an nginx with --profile squid on both sides of Squid
    Squid(SquidArguments),
    /// A custom VCL for Fastly, or with --snippets VCL snippets and a Terraform configuration
    Fastly(FastlyArguments),
}

#[derive(Args, Debug)]
struct DeploymentArguments {
    /// Address of the origin, as seen from the edge (HOST:PORT); repeat for origins that share a
    /// Redis, with varnish and nginx
    #[arg(long = "origin", required = true, value_delimiter = ',')]
    origins: Vec<HostPort>,
    /// The origin's --lanes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=LANES_MAX))]
    lanes: u64,
}

#[derive(Args, Debug)]
struct VarnishArguments {
    #[command(flatten)]
    deployment: DeploymentArguments,
    /// The origin's --segment (time)
    #[arg(long, default_value = "30s", value_parser = segment)]
    segment: Duration,
    /// The origin's --long-poll-timeout (time)
    #[arg(long, default_value = "20s", value_parser = duration)]
    long_poll_timeout: Duration,
    /// The origin's --private: channels whose requests bypass the cache; repeat for more
    #[arg(long, value_delimiter = ',')]
    private: Vec<Pattern>,
    /// Address or network (10.0.0.0/8) that may send PURGE; repeat for more [default: this machine]
    #[arg(long)]
    purge_from: Vec<Network>,
    /// The origin's --cors-origin; repeat for more
    #[arg(long = "cors-origin", value_parser = web_origin)]
    cors_origins: Vec<String>,
}

#[derive(Args, Debug)]
struct SquidArguments {
    /// Address where nginx listens for Squid: the --inner-listen of that nginx (HOST:PORT)
    #[arg(long)]
    origin: HostPort,
    /// Address where Squid listens: a port of 127.0.0.1, or ADDRESS:PORT [default: 127.0.0.1:3128]
    #[arg(long, value_parser = local_listen)]
    listen: Option<String>,
    /// The origin's --long-poll-timeout (time)
    #[arg(long, default_value = "20s", value_parser = duration)]
    long_poll_timeout: Duration,
    /// The origin's --private: channels whose responses are not shared; repeat for more
    #[arg(long, value_delimiter = ',')]
    private: Vec<Pattern>,
}

#[derive(Args, Debug)]
struct NginxArguments {
    #[command(flatten)]
    deployment: DeploymentArguments,
    /// How nginx handles streams
    #[arg(long, value_enum)]
    profile: NginxProfile,
    /// Address where nginx listens: a port, or ADDRESS:PORT [default: 80, with TLS 443]
    #[arg(long, value_parser = listen)]
    listen: Option<String>,
    /// Certificate chain, a PEM file; switches TLS and HTTP/2 on
    #[arg(long, requires = "certificate_key", value_parser = word)]
    certificate: Option<String>,
    /// Private key of the certificate, a PEM file
    #[arg(long, requires = "certificate", value_parser = word)]
    certificate_key: Option<String>,
    /// Directory of the cache of nginx, with --profile collapse [default: /var/cache/headwater]
    #[arg(long, value_parser = word)]
    cache_dir: Option<String>,
    /// The origin's --long-poll-timeout (time)
    #[arg(long, default_value = "20s", value_parser = duration)]
    long_poll_timeout: Duration,
    /// Address of Squid, with --profile squid (HOST:PORT) [default: 127.0.0.1:3128]
    #[arg(long)]
    squid: Option<HostPort>,
    /// Address where nginx listens for Squid, with --profile squid: a port of 127.0.0.1, or
    /// ADDRESS:PORT [default: 127.0.0.1:3129]
    #[arg(long, value_parser = listen)]
    inner_listen: Option<String>,
    /// The origin's --cors-origin, with --profile collapse or squid; repeat for more
    #[arg(long = "cors-origin", value_parser = web_origin)]
    cors_origins: Vec<String>,
    /// Most requests of one client address at once, which over HTTP/1.1 are its connections;
    /// further streams are shed and other requests refused [default: 1000 with --profile collapse,
    /// else no limit] (count)
    #[arg(long)]
    max_connections_per_client: Option<NonZeroU32>,
}

#[derive(Args, Debug)]
struct FastlyArguments {
    #[command(flatten)]
    deployment: DeploymentArguments,
    /// The origin's --cors-origin; repeat for more
    #[arg(long = "cors-origin", value_parser = web_origin)]
    cors_origins: Vec<String>,
    /// Host name that browsers use, for the Terraform configuration
    #[arg(long, requires = "snippets", value_parser = word)]
    domain: Option<String>,
    /// Directory for the snippets and the Terraform configuration; created if it is missing
    #[arg(long)]
    snippets: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NginxProfile {
    /// One origin request for each event, which arrives about 0.3 s late, at most 1.1 s
    Collapse,
    /// One origin request for each client, without a delay
    Stream,
    /// TLS and HTTP/2 in front of Varnish; --origin is the address of Varnish
    Varnish,
    /// In front of Squid and behind it; --origin is the origin, --squid the address of Squid
    Squid,
}

pub fn run(arguments: EdgeArguments) -> ExitCode {
    let text = match arguments.edge {
        Edge::Varnish(wanted) => edge_config::varnish(&wanted.into()),
        Edge::Squid(wanted) => {
            let listen = wanted.listen.as_deref().unwrap_or("127.0.0.1:3128");
            if is_itself(&wanted.origin, listen) {
                return misused(
                    "--origin is where this Squid listens itself; name the listener of nginx \
                     behind it (--inner-listen, 127.0.0.1:3129)",
                );
            }
            edge_config::squid(&wanted.into())
        }
        Edge::Nginx(wanted) => {
            let is_varnish = matches!(wanted.profile, NginxProfile::Varnish);
            if is_varnish && wanted.certificate.is_none() {
                return misused(
                    "--profile varnish is for TLS: give --certificate and --certificate-key",
                );
            }
            let inner = wanted.inner_listen.as_deref().unwrap_or("127.0.0.1:3129");
            let is_squid = matches!(wanted.profile, NginxProfile::Squid);
            if is_squid && wanted.deployment.origins.iter().any(|one| is_itself(one, inner)) {
                return misused(
                    "--origin is where this nginx listens for Squid (--inner-listen); name the \
                     origin, as 127.0.0.1:8080",
                );
            }
            note_what_has_no_effect(&wanted);
            edge_config::nginx(&wanted.into())
        }
        Edge::Fastly(FastlyArguments { deployment, cors_origins, domain, snippets }) => {
            if deployment.origins.len() > 1 {
                return misused(
                    "edge fastly takes one --origin: name a load balancer, or add the other \
                     origins to the service",
                );
            }
            let wanted = Fastly { deployment: deployment.into(), cors_origins };
            let Some(directory) = snippets else {
                eprintln!("headwater: put your service's id where it says YOURSERVICEID");
                print!("{}", edge_config::fastly(&wanted));
                return ExitCode::SUCCESS;
            };
            let files = edge_config::fastly_files(&wanted, domain.as_deref());
            return match write_all(&directory, &files) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("cannot write to {}: {error}", directory.display())),
            };
        }
    };
    print!("{text}");
    ExitCode::SUCCESS
}

/// Whether a server that listens at `listen` would send its requests to itself.
fn is_itself(origin: &HostPort, listen: &str) -> bool {
    let origin = origin.to_string();
    origin == listen || origin == format!("127.0.0.1:{listen}")
}

fn note_what_has_no_effect(wanted: &NginxArguments) {
    let is_collapse = matches!(wanted.profile, NginxProfile::Collapse);
    if is_collapse && wanted.deployment.lanes > 1 {
        eprintln!("headwater: --lanes has no effect with collapse: a long poll has no segment");
    }
    if !is_collapse && wanted.cache_dir.is_some() {
        eprintln!("headwater: --cache-dir has no effect: only --profile collapse keeps anything");
    }
    let is_squid = matches!(wanted.profile, NginxProfile::Squid);
    for (flag, is_given) in
        [("--squid", wanted.squid.is_some()), ("--inner-listen", wanted.inner_listen.is_some())]
    {
        if is_given && !is_squid {
            eprintln!("headwater: {flag} has no effect: it is for --profile squid");
        }
    }
    if !wanted.cors_origins.is_empty() && !is_squid && !is_collapse {
        eprintln!(
            "headwater: --cors-origin has no effect: it is for --profile collapse and squid, which \
             keep answers"
        );
    }
}

fn write_all(directory: &Path, files: &[(String, String)]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// Checks that the text is a port, or an address and a port.
fn listen(text: &str) -> Result<String, String> {
    let is_port = text.parse().is_ok_and(|port: u16| port > 0);
    match is_port || text.parse::<SocketAddr>().is_ok() || text.parse::<HostPort>().is_ok() {
        true => Ok(text.to_owned()),
        false => Err("write it as 8080, 127.0.0.1:8080 or [::]:8080".to_owned()),
    }
}

/// Reads an address that only this machine needs: a port alone is a port of 127.0.0.1.
fn local_listen(text: &str) -> Result<String, String> {
    let address = listen(text)?;
    Ok(if address.contains(':') { address } else { format!("127.0.0.1:{address}") })
}

fn segment(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    match SEGMENT_MS.contains(&(length.as_millis() as u64)) {
        true => Ok(length),
        false => Err("as the origin's, 1s to 10m".to_owned()),
    }
}

/// Checks an origin of web pages: scheme and host in lower case without a path, as browsers send
/// it.
fn web_origin(text: &str) -> Result<String, String> {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    let (scheme, host) = text.split_once("://").unwrap_or_default();
    let is_whole = !scheme.is_empty() && !host.is_empty() && host.bytes().all(is_plain);
    let is_scheme = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    match is_whole && scheme.bytes().all(is_scheme) {
        true => Ok(text.to_owned()),
        false => Err("write it as the origin's, for example https://example.com".to_owned()),
    }
}

/// Checks that a value is a single word in a configuration file.
fn word(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:[]*@+".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_plain) {
        return Err("use letters, digits and / . _ - : [ ] * @ +".to_owned());
    }
    Ok(text.to_owned())
}

impl From<DeploymentArguments> for Deployment {
    fn from(arguments: DeploymentArguments) -> Self {
        let mut origins = arguments.origins;
        // clap requires at least one.
        let origin = origins.remove(0);
        Self { origin, further_origins: origins, lanes: arguments.lanes }
    }
}

impl From<VarnishArguments> for Varnish {
    fn from(arguments: VarnishArguments) -> Self {
        Self {
            deployment: arguments.deployment.into(),
            segment: arguments.segment,
            long_poll_timeout: arguments.long_poll_timeout,
            private: arguments.private,
            purge_from: arguments.purge_from,
            cors_origins: arguments.cors_origins,
        }
    }
}

impl From<SquidArguments> for Squid {
    fn from(arguments: SquidArguments) -> Self {
        Self {
            origin: arguments.origin,
            listen: arguments.listen,
            long_poll_timeout: arguments.long_poll_timeout,
            private: arguments.private,
        }
    }
}

impl From<NginxArguments> for Nginx {
    fn from(arguments: NginxArguments) -> Self {
        Self {
            deployment: arguments.deployment.into(),
            profile: match arguments.profile {
                NginxProfile::Collapse => Profile::Collapse,
                NginxProfile::Stream => Profile::Stream,
                NginxProfile::Varnish => Profile::Varnish,
                NginxProfile::Squid => Profile::Squid,
            },
            listen: arguments.listen,
            tls: arguments.certificate.zip(arguments.certificate_key),
            cache_dir: arguments.cache_dir,
            long_poll_timeout: arguments.long_poll_timeout,
            squid: arguments.squid,
            inner_listen: arguments.inner_listen,
            cors_origins: arguments.cors_origins,
            client_connections: arguments.max_connections_per_client,
        }
    }
}
