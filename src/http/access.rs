//! What a request carries to show who sent it, and what comes of it.
//!
//! A bearer token stands for its bearer alone, so what it opens is never shared; a request that
//! the edge vouches for is answered like a public one, and costs the origin one answer for all.

use super::problem::Problem;
use super::route::Query;
use super::{Answer, Origin};
use crate::event::ChannelName;
use crate::scope::Right;
use crate::token::{Grant, Refusal};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue};

/// By which the edge vouches for a request.
pub const EDGE_AUTH: HeaderName = HeaderName::from_static("headwater-edge-auth");

/// What the bearer of a token that was good once is told.
pub(super) const EXPIRED: &str = "the token has expired, get a new one";
/// What one is told whose token will be good.
pub(super) const TOO_EARLY: &str = "the token is not good yet; check the clocks";
/// What one is told whose token is not believed.
pub(super) const NOT_OURS: &str =
    "the token is not signed by a key of this origin, or not meant for it";

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everyone: a cache may share it.
    Everyone,
    /// Who asked, and nobody else.
    Bearer,
}

/// Why a request is not served.
pub enum Denied {
    /// Its bearer may come back with a newer token.
    Expired,
    /// For good.
    Refused(Problem),
}

impl Origin {
    /// Whether these channels may be read, and whom the answer is for.
    pub(super) fn may_read(
        &self,
        headers: &HeaderMap,
        query: &Query,
        names: &[ChannelName],
    ) -> Result<Audience, Denied> {
        if !self.access.is_private(names) {
            return Ok(Audience::Everyone);
        }
        let vouched = headers.get(EDGE_AUTH).map(HeaderValue::as_bytes);
        if vouched.is_some_and(|said| self.access.is_vouched(said)) {
            return Ok(Audience::Everyone);
        }
        let cookie = cookie(headers, self.access.cookie_name());
        let token = bearer(headers).or(cookie).or(query.access_token.as_deref());
        self.check(token, Right::Subscribe, names).map(|_| Audience::Bearer)
    }

    /// Whether a channel may be written to. Only the header counts: a cookie would let any site
    /// that its owner visits publish in their name, and a query is written into logs. Says whose
    /// token it was, where one is needed.
    pub(super) fn may_publish(
        &self,
        headers: &HeaderMap,
        name: &ChannelName,
    ) -> Result<Option<Grant>, Problem> {
        if !self.access.guards_publishing() {
            return Ok(None);
        }
        match self.check(bearer(headers), Right::Publish, std::slice::from_ref(name)) {
            Ok(grant) => Ok(Some(grant)),
            Err(Denied::Refused(problem)) => Err(problem),
            Err(Denied::Expired) => Err(Problem::unauthorized(EXPIRED)),
        }
    }

    fn check(
        &self,
        token: Option<&str>,
        right: Right,
        names: &[ChannelName],
    ) -> Result<Grant, Denied> {
        let refused = |detail: &str| Denied::Refused(Problem::unauthorized(detail));
        let needs = "this needs a token: send it as Authorization: Bearer";
        let token = token.ok_or_else(|| refused(needs))?;
        let grant =
            self.access.verify(token, self.hub.clock.now()).map_err(|refusal| match refusal {
                Refusal::Expired => Denied::Expired,
                Refusal::TooEarly => refused(TOO_EARLY),
                Refusal::Bad | Refusal::UnknownKey => refused(NOT_OURS),
            })?;
        match self.access.grants(&grant, right, names) {
            true => Ok(grant),
            false => Err(Denied::Refused(out_of_scope(right, names))),
        }
    }
}

/// A good token that does not grant what its bearer wants.
pub(super) fn out_of_scope(right: Right, names: &[ChannelName]) -> Problem {
    let word = if right == Right::Publish { "publish" } else { "subscribe" };
    let wanted: Vec<String> = names.iter().map(|name| format!("{word}:{name}")).collect();
    let detail = format!("the token's scope does not grant {}", wanted.join(" "));
    let (status, title) = (StatusCode::FORBIDDEN, "The token does not allow this");
    Problem::new(status, "scope", title, detail)
}

/// Keeps what is for one reader out of every cache.
pub(super) fn keep_private(answer: &mut Answer) {
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

pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|value| value.split(';')).find_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    })
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
        let check = |value, expected| {
            assert_eq!(cookie(&headers(&[("cookie", value)]), "headwater"), expected, "{value}");
        };
        check("a=b; headwater=t; c=d", Some("t"));
        check("headwater=t=u", Some("t=u"));
        check("xheadwater=t; headwater2=u", None);
        check("headwater", None);
    }
}
