//! Finds the credentials of a request. `access::Access::decide`, the only policy, then decides
//! whether the request may read or publish.
//!
//! A bearer token is valid for its bearer only, so a response that a token opens is never shared. A
//! request that the edge vouches for is answered like a request for a public channel, so one
//! response of the origin serves all clients.

use super::problem::Problem;
use super::readiness::keys_missing;
use super::route::Query;
use super::{AppState, HttpResponse, TlsPeer};
use crate::access::scope::Right;
use crate::access::token::{Grant, TokenError};
use crate::access::{Access, Credentials, Decision};
use crate::core::event::ChannelName;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue};

/// The header with which the edge vouches for a request.
pub const EDGE_AUTH: HeaderName = HeaderName::from_static("headwater-edge-auth");

/// The error text for an expired token.
pub(super) const EXPIRED: &str = "the token has expired, get a new one";

/// The clients that may receive a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All clients may receive it, so a cache may share it.
    Everyone,
    /// Only the client that sent the request may receive it.
    Bearer,
}

/// The reason for which a request is not served.
pub enum Denied {
    /// The token has expired, and the client may come back with a newer one.
    Expired,
    /// The token cannot be checked before the keys are fetched.
    NotYet(Problem),
    /// The request is refused, and repeating it will not help.
    Refused(Problem),
}

/// The most cookies of one name that are tried: a browser sends one for each path and domain.
const COOKIES_MAX: usize = 4;

/// Decides whether a request may read these channels, and which clients may receive the
/// response.
pub(super) fn may_read(
    app: &AppState,
    request: &Request<Incoming>,
    query: &Query,
    names: &[ChannelName],
) -> Result<Audience, Denied> {
    let (headers, is_vouched) = (request.headers(), is_vouched(&app.access, request));
    let credentials = Credentials { grant: None, is_vouched };
    if app.access.decide(&credentials, Right::Subscribe, names) == Decision::Open {
        return Ok(Audience::Everyone);
    }
    let wanted = (Right::Subscribe, names);
    // A token that the client sends itself takes precedence over cookies, which the browser
    // adds.
    if let Some(token) = bearer(headers).or(query.get("access_token")) {
        return check(app, token, wanted).map(|_| Audience::Bearer);
    }
    let name = app.access.cookie_name();
    let mut refused = None;
    for token in cookies(headers, &name) {
        match check(app, token, wanted) {
            Ok(_) => return Ok(Audience::Bearer),
            // `Expired` and `NotYet` replace `Refused`, because the client may come back later.
            Err(Denied::Expired) => refused = Some(Denied::Expired),
            Err(Denied::NotYet(problem)) => refused = Some(Denied::NotYet(problem)),
            Err(denied) => refused = refused.or(Some(denied)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Denied::Refused(Problem::no_token(format!(
            "this channel needs a token: send it as Authorization: Bearer, or from a browser \
             in the cookie {name:?} or as ?access_token="
        )))
    }))
}

/// Whether the edge vouches for a request: by a secret in a header, or by its certificate.
pub(super) fn is_vouched(access: &Access, request: &Request<Incoming>) -> bool {
    let secret = request.headers().get(EDGE_AUTH).map(HeaderValue::as_bytes);
    request.extensions().get::<TlsPeer>() == Some(&TlsPeer::Edge)
        || secret.is_some_and(|secret| access.is_vouched(secret))
}

/// Decides whether a request may write to a channel. Returns the grant of its token, or `None`
/// if publishing needs no token. Only the `Authorization` header counts: with a cookie, any
/// site that a user visits could publish in the user's name, and a query is written to logs.
pub(super) fn may_publish(
    app: &AppState,
    headers: &HeaderMap,
    name: &ChannelName,
) -> Result<Option<Grant>, Problem> {
    if !app.access.guards_publishing() {
        return Ok(None);
    }
    let needs = "this needs a token: send it as Authorization: Bearer";
    let token = bearer(headers).ok_or_else(|| Problem::no_token(needs))?;
    match check(app, token, (Right::Publish, std::slice::from_ref(name))) {
        Ok(grant) => Ok(Some(grant)),
        Err(Denied::Refused(problem) | Denied::NotYet(problem)) => Err(problem),
        Err(Denied::Expired) => Err(Problem::bad_token(EXPIRED)),
    }
}

fn check(
    app: &AppState,
    token: &str,
    (right, names): (Right, &[ChannelName]),
) -> Result<Grant, Denied> {
    let verified = app.access.verify(token, app.hub.clock().wall());
    let grant = verified.map_err(|refusal| match refusal {
        TokenError::Expired => Denied::Expired,
        TokenError::UnknownKey | TokenError::Bad if let Some(why) = app.access.missing_keys() => {
            Denied::NotYet(keys_missing(&why))
        }
        other => Denied::Refused(Problem::bad_token(explanation(other))),
    })?;
    let credentials = Credentials { grant: Some(grant.clone()), is_vouched: false };
    match app.access.decide(&credentials, right, names) {
        Decision::OutOfScope => Err(Denied::Refused(out_of_scope(right, names))),
        _ => Ok(grant),
    }
}

/// Notes what TLS says about the peer of a request. The scheme that a proxy reports is not replaced.
pub(super) fn note_tls(request: &mut Request<Incoming>, peer: TlsPeer) {
    if peer != TlsPeer::None {
        let scheme = request.headers_mut().entry("x-forwarded-proto");
        scheme.or_insert(HeaderValue::from_static("https"));
        request.extensions_mut().insert(peer);
    }
}

/// The error text for a refused token.
pub(super) fn explanation(refusal: TokenError) -> String {
    match refusal {
        TokenError::Expired => EXPIRED.to_owned(),
        TokenError::TooEarly => "the token is not good yet; check the clocks".to_owned(),
        TokenError::Claim(why) => {
            format!("the token is signed by a key of this origin, but {why}")
        }
        TokenError::Bad | TokenError::UnknownKey => {
            "the token is not signed by a key of this origin".to_owned()
        }
    }
}

/// The problem `scope`: a valid token does not grant this right to these channels.
pub(super) fn out_of_scope(right: Right, names: &[ChannelName]) -> Problem {
    let word = if right == Right::Publish { "publish" } else { "subscribe" };
    let wanted: Vec<String> = names.iter().map(|name| format!("{word}:{name}")).collect();
    Problem::scope(&wanted.join(" "))
}

/// Marks a response for one client only, so that no cache stores it.
pub(super) fn keep_private(answer: &mut HttpResponse) {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.remove("surrogate-key");
    headers.remove("cache-tag");
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The values of the first few cookies of a name. Browsers send several where their paths or
/// domains differ. The number is limited because each value may be a token whose signature must be
/// checked.
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies = pairs.flat_map(|value| value.split(';')).filter_map(move |pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    });
    cookies.take(COOKIES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_bearer_token_is_one_header_of_one_scheme() {
        let check =
            |lines: &[_], expected| assert_eq!(bearer(&headers(lines)), expected, "{lines:?}");
        check(&[("authorization", "Bearer a.b.c")], Some("a.b.c"));
        check(&[("authorization", "bearer a.b.c")], Some("a.b.c"));
        check(&[("authorization", "Basic a.b.c")], None);
        check(&[("authorization", "a.b.c")], None);
        check(&[], None);
    }

    #[test]
    fn two_authorizations_are_none() {
        let mut two = headers(&[("authorization", "Bearer a")]);
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&two), None);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let check = |value, expected: Vec<&str>| {
            let headers = headers(&[("cookie", value)]);
            let found: Vec<&str> = cookies(&headers, "headwater").collect();
            assert_eq!(found, expected, "{value}");
        };
        check("a=b; headwater=t; c=d", vec!["t"]);
        check("headwater=t=u", vec!["t=u"]);
        check("headwater=t; headwater=u", vec!["t", "u"]);
        check("xheadwater=t; headwater2=u", vec![]);
        check("headwater", vec![]);
    }
}
