//! Determines the host that a request is for, and the site of the web page that sent it.
//!
//! Without a key every client may publish. A listener on a loopback address is reachable only from
//! this machine, but every page that is open in a browser on this machine can send requests to it.
//! Without a key, such a listener therefore refuses unknown hosts (DNS rebinding: a page whose own
//! name resolves to this machine), refuses changes by pages of other sites, and lets those pages
//! read nothing. The rules about pages of other sites do not apply to a request with the headers of
//! a proxy, because such a request does not come from a page directly: a page cannot set `Via` at
//! all (Fetch standard, "forbidden request-header"), nor `Forwarded` or `X-Forwarded-For` on a
//! request to another site without a preflight.

use super::cors::Readers;
use super::problem::Problem;
use super::{Caller, HttpConfig};
use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, VIA};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Version};
use std::net::{IpAddr, Ipv6Addr};

/// The host in the request that a proxy received.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The site of the page that sent a request. It matters because a browser adds cookies to a
/// request, whichever page sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// The headers name no page of another site; as a rule a program sent the request.
    NoPage,
    /// A page of this host, or of an origin in `--cors-origin`, sent the request.
    Ours,
    /// Any other page sent the request: a token that the page sends counts, a cookie does not.
    Strange,
}

/// The host and port that a request is for (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
///
/// # Errors
/// Fails with `400` when the host is missing, given twice, contradictory or invalid.
pub(super) fn host<B>(request: &Request<B>) -> Result<String, Problem> {
    let bad = |detail: &str| Problem::bad_field("Host", detail);
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad("a request has one Host header"));
    }
    let named = first.map(|value| authority(value.as_bytes()));
    if named.as_ref().is_some_and(Option::is_none) {
        return Err(bad("Host takes a name or an address, and perhaps a port, and nothing else"));
    }
    let target = request.uri().authority().map(|target| authority(target.as_str().as_bytes()));
    match (target, named.flatten()) {
        (Some(None), _) => Err(bad("the request's target names no host, or a user")),
        (Some(Some(_)), None) if request.version() == Version::HTTP_11 => {
            Err(bad("HTTP/1.1 wants a Host header with every target; send Host"))
        }
        (Some(Some(target)), Some(named))
            if request.version() == Version::HTTP_2 && !target.eq_ignore_ascii_case(&named) =>
        {
            Err(bad("Host and :authority name two hosts; send one of them"))
        }
        (Some(Some(target)), _) => Ok(target),
        (None, Some(named)) => Ok(named),
        (None, None) if request.version() < Version::HTTP_11 => Ok(String::new()),
        (None, None) => Err(bad("the request names no host; send Host")),
    }
}

/// Parses `host[:port]` and accepts nothing else.
fn authority(raw: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw).ok()?;
    let parsed: Authority = text.parse().ok()?;
    let port = text.strip_prefix(parsed.host())?;
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some("") => true,
        // A port consists of digits only, but the parser of `u16` also accepts a sign.
        Some(port) => !port.starts_with('+') && parsed.port_u16().is_some(),
    };
    let is_host = match parsed.host().strip_prefix('[').and_then(|v6| v6.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !parsed.host().is_empty(),
    };
    (is_port && is_host).then(|| text.to_owned())
}

/// Whether a host, with or without a port, is a loopback address or a `localhost` name. DNS
/// rebinding cannot use these names, because they do not come from a DNS server.
fn is_loopback(authority: &str) -> bool {
    let host = without_port(authority);
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_address || name == "localhost" || name.ends_with(".localhost")
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The host and port in the `Origin` header of a page.
fn page_host(origin: &HeaderValue) -> Option<&str> {
    origin.to_str().ok()?.split_once("://").map(|(_, authority)| authority)
}

/// Whether the origin of a page has the scheme in `X-Forwarded-Proto`, with which the client
/// reached the proxy; without this header, any scheme is accepted. A page from `http://` can be
/// changed in transit, so it does not count as a page of the `https://` site.
fn is_of_scheme(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let scheme = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.0));
    let reached_by = headers.get(FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    reached_by.is_none_or(|reached_by| {
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(reached_by))
    })
}

fn is_from_proxy(headers: &HeaderMap) -> bool {
    [VIA, FORWARDED, FORWARDED_FOR].iter().any(|name| headers.contains_key(name))
}

/// Whether two hosts with their ports are the same.
fn is_host(one: &str, other: &str) -> bool {
    !one.is_empty() && one.eq_ignore_ascii_case(other)
}

/// Checks that no page of another web origin has sent a request to `host`. A browser adds `Origin`
/// to every `POST` and to every handshake of a WebSocket, and newer ones add `Sec-Fetch-Site` to
/// every request; a program sends neither of them.
///
/// # Errors
/// Fails with `403` otherwise. Also pages of `--cors-origin` and of this machine are refused.
pub(super) fn check_own_page(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let is_own = headers.get(ORIGIN).is_none_or(|origin| {
        let page = page_host(origin);
        is_of_scheme(origin, headers) && page.is_some_and(|page| is_host(page, host))
    });
    let fetch_site = headers.get(FETCH_SITE);
    if is_own && fetch_site.is_none_or(|site| site == "same-origin" || site == "none") {
        return Ok(());
    }
    let detail = "only its own page may use the console; a page reads and publishes at the public \
                  listener (--listen)";
    Err(Problem::new(StatusCode::FORBIDDEN, "origin", "Not from this page", detail))
}

/// Determines the site of the page that sent a request to `host`.
pub(super) fn site(config: &HttpConfig, headers: &HeaderMap, host: &str) -> Site {
    let Some(origin) = headers.get(ORIGIN) else {
        let is_cross = headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site");
        return if is_cross { Site::Strange } else { Site::NoPage };
    };
    // No page can set `X-Forwarded-Host` on the handshake of a WebSocket, nor on another
    // request to another site without a preflight.
    let forwarded = headers.get(FORWARDED_HOST).and_then(|value| value.to_str().ok());
    let is_own = is_of_scheme(origin, headers)
        && page_host(origin).is_some_and(|page| {
            is_host(page, host) || forwarded.is_some_and(|forwarded| is_host(page, forwarded))
        });
    let named = &config.cors_origins;
    match is_own || named.iter().any(|one| one.as_bytes() == origin.as_bytes()) {
        true => Site::Ours,
        false => Site::Strange,
    }
}

/// Determines which pages may read the response to a request, and whether a guarded listener
/// allows the request. If it does not, the `403` names the flag that would allow it.
pub(super) fn guard<B>(
    config: &HttpConfig,
    request: &Request<B>,
    caller: &Caller,
    host: &str,
) -> (Readers, Result<(), Problem>) {
    let headers = request.headers();
    let asked = headers.get(ORIGIN).cloned();
    if !caller.is_guarded {
        return (Readers { asked, ..Readers::default() }, Ok(()));
    }
    if !host.is_empty() && !is_loopback(host) && !is_allowed_host(config, host) {
        let readers = Readers { asked, varies: true, is_shut_out: true, is_local: false };
        return (readers, Err(unknown_host(host)));
    }
    if is_from_proxy(headers) {
        return (Readers { asked, ..Readers::default() }, Ok(()));
    }
    let is_local = is_local_page(headers);
    let is_foreign = site(config, headers, host) == Site::Strange && !is_local;
    let readers = Readers { asked, varies: true, is_shut_out: is_foreign, is_local };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        || request.uri().path() == "/ws";
    let allowed = match is_foreign && changes {
        true => Err(foreign_page(readers.asked.as_ref())),
        false => Ok(()),
    };
    (readers, allowed)
}

/// Whether `--allowed-host` names a host.
fn is_allowed_host(config: &HttpConfig, host: &str) -> bool {
    config
        .allowed_hosts
        .iter()
        .any(|one| one.eq_ignore_ascii_case(host) || one.eq_ignore_ascii_case(without_port(host)))
}

/// Checks the host of a request for data that only operators may read. An address cannot be
/// used for DNS rebinding.
///
/// # Errors
/// Fails with `403` when the host is a name that `--allowed-host` does not have.
pub(super) fn check_admin_host(config: &HttpConfig, host: &str) -> Result<(), Problem> {
    let is_address = without_port(host).trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if host.is_empty() || is_address || is_loopback(host) || is_allowed_host(config, host) {
        return Ok(());
    }
    let detail = format!(
        "the channels and the console are shown under an address of this machine, under \
         localhost, and under the names of --allowed-host; use the address, or start the origin with \
         --allowed-host {}",
        without_port(host)
    );
    let title = "The channels are not shown under this host";
    Err(Problem::new(StatusCode::FORBIDDEN, "host", title, detail).with("field", "Host"))
}

/// Whether the request came from a page that this machine itself serves, as in development.
pub(super) fn is_local_page(headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).and_then(page_host).is_some_and(is_loopback)
}

fn unknown_host(host: &str) -> Problem {
    let detail = format!(
        "without a key this origin serves its own machine only, and {host:?} is no name of it; \
         start it with --allowed-host {host}, or with a key (--token-secret, --token-key, \
         --token-jwks)"
    );
    let title = "The origin does not answer to this host";
    Problem::new(StatusCode::FORBIDDEN, "host", title, detail).with("field", "Host")
}

fn foreign_page(origin: Option<&HeaderValue>) -> Problem {
    let key = "start it with a key (--token-secret, --token-key, --token-jwks)";
    let detail = match origin.and_then(|origin| origin.to_str().ok()) {
        // The page is a file or a sandboxed frame. Its origin has no name that a flag could allow.
        Some("null") => format!(
            "without a key this origin refuses requests of a page that is opened as a file or in a \
             sandbox (Origin: null); serve the page over HTTP, or {key}"
        ),
        Some(page) => format!(
            "without a key this origin refuses requests of pages of {page}; start it with \
             --cors-origin {page}, or {key}"
        ),
        None => format!(
            "without a key this origin refuses requests of pages of another site; name their origin \
             with --cors-origin, or {key}"
        ),
    };
    Problem::new(StatusCode::FORBIDDEN, "origin", "Not from this page", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for good in ["a", "a.example", "a:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "a:"] {
            assert_eq!(authority(good.as_bytes()).as_deref(), Some(good));
        }
        for bad in ["", " ", "u@a", "a/b", "a b", "a:b", "a:80:90", "a:99999", ":80", "a?b", "a#"] {
            assert_eq!(authority(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(authority(b"\xff"), None);
    }

    #[test]
    fn a_name_of_this_machine_is_one_that_no_dns_server_gives() {
        for local in ["localhost", "LOCALHOST:3000", "app.localhost", "127.9.9.9", "[::1]:8080"] {
            assert!(is_loopback(local), "{local}");
        }
        for other in ["localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", ""] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
