//! What a request carries to show who sent it, and what comes of it.
//!
//! A bearer token stands for its bearer alone, so what it opens is never shared; a request that
//! the edge vouches for is answered like a public one, and costs the origin one answer for all.

use super::problem::Problem;
use super::readiness::keys_missing;
use super::route::Query;
use super::{AppState, HttpResponse};
use crate::access::scope::Right;
use crate::access::token::{Grant, TokenError};
use crate::core::event::ChannelName;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue};

/// By which the edge vouches for a request.
pub const EDGE_AUTH: HeaderName = HeaderName::from_static("headwater-edge-auth");

/// What the bearer of a token that was good once is told.
pub(super) const EXPIRED: &str = "the token has expired, get a new one";

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
    /// No token can be checked before the keys are fetched.
    NotYet(Problem),
    /// For good.
    Refused(Problem),
}

/// Most cookies of one name that are tried: a browser sends one for each path and domain.
const COOKIES_MAX: usize = 4;

impl AppState {
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
        let wanted = (Right::Subscribe, names);
        // What the client says itself comes before what its browser sends along.
        if let Some(token) = bearer(headers).or(query.get("access_token")) {
            return self.check(token, wanted).map(|_| Audience::Bearer);
        }
        let name = self.access.cookie_name();
        let mut refused = None;
        for token in cookies(headers, name) {
            match self.check(token, wanted) {
                Ok(_) => return Ok(Audience::Bearer),
                // The bearer of an expired one should come back with a newer one.
                Err(Denied::Expired) => refused = Some(Denied::Expired),
                Err(Denied::NotYet(problem)) => refused = Some(Denied::NotYet(problem)),
                Err(denied) => refused = refused.or(Some(denied)),
            }
        }
        Err(refused.unwrap_or_else(|| {
            Denied::Refused(Problem::unauthorized(format!(
                "this channel needs a token: send it as Authorization: Bearer, or from a browser \
                 in the cookie {name:?} or as ?access_token="
            )))
        }))
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
        let needs = "this needs a token: send it as Authorization: Bearer";
        let token = bearer(headers).ok_or_else(|| Problem::unauthorized(needs))?;
        match self.check(token, (Right::Publish, std::slice::from_ref(name))) {
            Ok(grant) => Ok(Some(grant)),
            Err(Denied::Refused(problem) | Denied::NotYet(problem)) => Err(problem),
            Err(Denied::Expired) => Err(Problem::unauthorized(EXPIRED)),
        }
    }

    fn check(&self, token: &str, (right, names): (Right, &[ChannelName])) -> Result<Grant, Denied> {
        let verified = self.access.verify(token, self.hub.clock().wall());
        let grant = verified.map_err(|refusal| match refusal {
            TokenError::Expired => Denied::Expired,
            TokenError::UnknownKey | TokenError::Bad
                if let Some(why) = self.access.missing_keys() =>
            {
                Denied::NotYet(keys_missing(&why))
            }
            other => Denied::Refused(Problem::unauthorized(explanation(other))),
        })?;
        match self.access.grants(&grant, right, names) {
            true => Ok(grant),
            false => Err(Denied::Refused(out_of_scope(right, names))),
        }
    }
}

/// The explanation that the answer to a refused token carries.
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

/// A good token that does not grant what its bearer wants.
pub(super) fn out_of_scope(right: Right, names: &[ChannelName]) -> Problem {
    let word = if right == Right::Publish { "publish" } else { "subscribe" };
    let wanted: Vec<String> = names.iter().map(|name| format!("{word}:{name}")).collect();
    let detail = format!("the token's scope does not grant {}", wanted.join(" "));
    let (status, title) = (StatusCode::FORBIDDEN, "The token does not allow this");
    Problem::new(status, "scope", title, detail)
}

/// Keeps what is for one reader out of every cache.
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

/// The values of all cookies of a name. Browsers send several where their paths or domains differ.
///
/// Only the first few: each may be a signature to be checked.
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
