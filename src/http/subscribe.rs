//! `GET /channels/{name}`: a stream or a long poll that caches can share.
//!
//! A native `EventSource` never reconnects after a status other than `200`. A request that cannot
//! be served because of a temporary fault is therefore shed: it gets a short `200`, which makes the
//! client come back later. A cache may share it, unless it depends on a token or on the connection
//! limit of a client behind a proxy.

use super::negotiation::accepts_event_stream;
use super::probe;
use super::problem::Problem;
use super::route::Query;
use super::{Admission, AppState, HttpResponse, header, long_poll};
use crate::core::caching::{FRESH_HEADER, Freshness, STREAM_HEADERS};
use crate::core::event::ChannelName;
use crate::core::resume::ResumeFrom;
use crate::core::segment::LANES_MAX;
use crate::core::since::{NotATime, Since};
use crate::core::sse::{self, Format, ShedReason};
use crate::http::stream_body::ResponseBody;
use crate::hub::channel::ReadError;
use crate::hub::event_stream::CountedStream;
use crate::hub::{Join, Joined, Wanted};
use crate::sync::plants::{Plant, is_planted};
use crate::sync::random::random;
use crate::telemetry::metrics::JoinKind;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, Response, StatusCode};
use std::iter;
use std::ops::RangeInclusive;

/// The range of `retry` in shed responses, in ms. The values are random, so that clients that were
/// shed together do not come back at the same time.
const SHED_RETRY_MS: RangeInclusive<u64> = 5_000..=15_000;

/// The highest value of `?last=`.
const LAST_EVENTS_MAX: u64 = 1_000;
/// The media type of streams. The format is always UTF-8 (WHATWG HTML, section 9.2.4), but some
/// clients decode text without `charset` as Latin-1.
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// How events are delivered (`?mode=`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Stream,
    LongPoll,
}

/// Answers a request for a stream or a long poll of these channels. `is_shareable` says whether a
/// cache may give the response to other clients.
pub(super) async fn answer(
    app: &AppState,
    request: &Request<Incoming>,
    names: &[ChannelName],
    query: &Query,
    (admission, is_shareable): (Admission, bool),
) -> Result<HttpResponse, Problem> {
    if probe::is_fault(names) {
        let detail = "this channel fails on purpose, for headwater doctor";
        return Err(Problem::unavailable("fault", detail, 1));
    }
    let mode = mode(query)?;
    let lane = lane(app, query)?;
    let format = format(query)?;
    let asked = asked(request.headers(), query, names.len())?;
    match admission {
        Admission::Overloaded => {
            return shed(app, request.headers(), ShedReason::Connections);
        }
        Admission::OverLimit => return shed(app, request.headers(), ShedReason::Client),
        Admission::Normal | Admission::Admin => {}
    }
    let is_endless = mode == Mode::LongPoll;
    let wanted = Wanted { names, asked: &asked, lane, is_endless, format };
    if request.method() == Method::HEAD {
        return match app.hub.preview(wanted).await {
            Ok(Some(span)) => {
                let freshness = match mode {
                    Mode::Stream => Freshness::Segment { ends_at: span.ends_at },
                    Mode::LongPoll => Freshness::Second,
                };
                Ok(stream_answer(app, names, freshness, ResponseBody::Head))
            }
            Ok(None) => Ok(nothing_left(app, names)),
            Err(_) => shed(app, request.headers(), ShedReason::Store),
        };
    }
    let joined = match app.hub.join(wanted).await {
        Ok(Join::Stream(joined)) => joined,
        Ok(Join::NothingLeft) => return Ok(nothing_left(app, names)),
        Err(ReadError::NoMemory(_)) => {
            return shed(app, request.headers(), ShedReason::Memory);
        }
        Err(ReadError::Store(error)) => {
            // The store logs each of its faults once. This line is written for each client, so
            // it is for debugging only.
            tracing::debug!(%error, "a stream cannot begin");
            return shed(app, request.headers(), ShedReason::Store);
        }
    };
    if is_shareable && mode == Mode::Stream {
        let (ends_at, now) = (joined.span.ends_at, app.hub.clock().now());
        app.hub.metrics().shareable(&(names, &asked, lane, format), ends_at, now);
    }
    joined.prelude.gaps.iter().for_each(|gap| app.hub.metrics().gap(gap.reason));
    match mode {
        Mode::Stream => Ok(stream(app, names, *joined, &asked)),
        Mode::LongPoll => match long_poll::body(app, *joined, &asked, lane).await {
            Ok((body, freshness)) => {
                Ok(stream_answer(app, names, freshness, ResponseBody::Full(body)))
            }
            Err(reason) => shed(app, request.headers(), reason),
        },
    }
}

fn stream(
    app: &AppState,
    names: &[ChannelName],
    joined: Joined,
    asked: &ResumeFrom,
) -> HttpResponse {
    let kind = match asked {
        ResumeFrom::After(_) => JoinKind::Cursor,
        _ => JoinKind::Fresh,
    };
    let freshness = Freshness::Segment { ends_at: joined.span.ends_at };
    let (heartbeat, bytes_max) = (app.config().heartbeat, app.config().segment_bytes);
    let body = CountedStream::new(app.hub.clone(), joined, kind, heartbeat, bytes_max);
    stream_answer(app, names, freshness, ResponseBody::Stream(Box::new(body)))
}

fn stream_answer(
    app: &AppState,
    names: &[ChannelName],
    freshness: Freshness,
    body: ResponseBody,
) -> HttpResponse {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    cache_headers(app, names, freshness, headers);
    answer
}

fn cache_headers(
    app: &AppState,
    names: &[ChannelName],
    freshness: Freshness,
    headers: &mut HeaderMap,
) {
    let freshness = match freshness {
        Freshness::Segment { .. } if is_planted(Plant::EndlessReplay) => Freshness::SameForCursor,
        freshness => freshness,
    };
    let now = app.hub.clock().now();
    headers.insert(CACHE_CONTROL, header(&freshness.cache_control(now)));
    if let Some(left) = freshness.seconds_left(now) {
        headers.insert(FRESH_HEADER, header(&left));
        for (name, value) in STREAM_HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    headers.insert(VARY, HeaderValue::from_static("Last-Event-ID"));
    surrogate_headers(app, names, headers);
}

/// Adds the keys by which a CDN can purge a response about these channels (`--surrogate-keys`).
pub(super) fn surrogate_headers(app: &AppState, names: &[ChannelName], headers: &mut HeaderMap) {
    if app.config().surrogate_keys {
        // A shed response has no channels: its key is that of all responses alone.
        let of_channels = names.iter().map(|name| format!("headwater-{name}"));
        let keys: Vec<String> = iter::once("headwater".to_owned()).chain(of_channels).collect();
        headers.insert("surrogate-key", header(&keys.join(" ")));
        headers.insert("cache-tag", header(&keys.join(",")));
    }
}

/// The `204` that makes an `EventSource` stop, because all its channels have ended.
fn nothing_left(app: &AppState, names: &[ChannelName]) -> HttpResponse {
    let mut answer = Response::new(ResponseBody::Full(Default::default()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    cache_headers(app, names, Freshness::Second, answer.headers_mut());
    answer
}

fn shed(app: &AppState, headers: &HeaderMap, reason: ShedReason) -> Result<HttpResponse, Problem> {
    app.hub.metrics().shed(reason);
    let retry_ms = spread(SHED_RETRY_MS);
    if !accepts_event_stream(headers) {
        let (slug, detail) = (reason.as_str(), reason.explanation());
        return Err(Problem::unavailable(slug, detail, retry_ms / 1_000));
    }
    let body = sse::shed(retry_ms, reason.as_str());
    let mut answer = stream_answer(app, &[], Freshness::Second, ResponseBody::Full(body.into()));
    let reason = HeaderValue::from_static(reason.as_str());
    answer.headers_mut().insert("headwater-shed", reason);
    Ok(answer)
}

/// Sheds a client whose token has expired, because it may soon have a newer one. A client that
/// does not accept a stream gets `401`.
pub(super) fn put_off(
    app: &AppState,
    request: &Request<Incoming>,
) -> Result<HttpResponse, Problem> {
    if !accepts_event_stream(request.headers()) {
        return Err(Problem::bad_token(super::access::EXPIRED));
    }
    shed(app, request.headers(), ShedReason::Token)
}

/// Sheds a client whose token cannot be checked yet.
pub(super) fn shed_for_keys(
    app: &AppState,
    request: &Request<Incoming>,
) -> Result<HttpResponse, Problem> {
    shed(app, request.headers(), ShedReason::Keys)
}

fn lane(app: &AppState, query: &Query) -> Result<u64, Problem> {
    let Some(raw) = query.get("lane") else { return Ok(0) };
    let lane: Option<u64> = raw.parse().ok().filter(|lane| *lane < LANES_MAX);
    // While the number of lanes is being changed, a cache may use more lanes than the origin.
    // An error status would end the `EventSource` of its clients.
    lane.map(|lane| lane % app.hub.segments().lanes).ok_or_else(|| {
        let detail = format!("?lane= takes a whole number from 0 to {}", LANES_MAX - 1);
        Problem::bad_field("lane", detail).with("limit", LANES_MAX - 1)
    })
}

impl ShedReason {
    fn explanation(self) -> &'static str {
        match self {
            Self::Connections => {
                "connections: this origin serves as many as it may, come back later"
            }
            Self::Client => "client: too many connections of one client, come back later",
            Self::Memory => {
                "memory: too many answers are being made or sent (--answer-bytes), come back later"
            }
            Self::Store => "store: the log cannot be read right now, come back later",
            Self::Token => "token-expired: come back with a new one",
            Self::Keys => "keys: tokens cannot be checked yet, come back later",
        }
    }
}

fn mode(query: &Query) -> Result<Mode, Problem> {
    match query.get("mode") {
        None | Some("stream") => Ok(Mode::Stream),
        Some("hold") => Ok(Mode::LongPoll),
        Some(_) => Err(Problem::bad_field("mode", "?mode= takes stream or hold")),
    }
}

fn format(query: &Query) -> Result<Format, Problem> {
    match query.get("format") {
        None | Some("raw") => Ok(Format::Raw),
        Some("json") => Ok(Format::Json),
        Some(_) => Err(Problem::bad_field("format", "?format= takes raw or json")),
    }
}

/// Determines where the stream begins. An `EventSource` sends the query of its URL with every
/// reconnect, so the cursor that the client has reached takes precedence over the position at which
/// it first began. Values of lower precedence are ignored, even if they are invalid.
pub(super) fn asked(
    headers: &HeaderMap,
    query: &Query,
    channels: usize,
) -> Result<ResumeFrom, Problem> {
    let mut sent = headers.get_all("last-event-id").iter().map(HeaderValue::as_bytes);
    let from_header = match (sent.next(), sent.next()) {
        (Some(_), Some(_)) => Some(&b"several Last-Event-ID headers"[..]),
        (one, _) => one.filter(|raw| !raw.is_empty()),
    };
    let from_query = || query.get("lastEventId").or_else(|| query.get("after"));
    if let Some(raw) = from_header.or_else(|| from_query().map(str::as_bytes)) {
        return Ok(ResumeFrom::cursor(raw, channels));
    }
    if let Some(text) = query.get("since") {
        return Ok(ResumeFrom::Since(since(text)?));
    }
    let Some(text) = query.get("last") else { return Ok(ResumeFrom::Now) };
    Ok(ResumeFrom::Last(last(text)?))
}

/// Parses `?since=`.
///
/// # Errors
/// Fails with `400` when the text is neither an instant nor a duration.
pub(super) fn since(text: &str) -> Result<Since, Problem> {
    let bad = |error| Problem::bad_field("since", format!("?since= {error}"));
    text.parse().map_err(|error: NotATime| bad(error))
}

/// Parses `?last=`.
///
/// # Errors
/// Fails with `400` when the text is not a whole number from 1 to 1,000.
pub(super) fn last(text: &str) -> Result<u64, Problem> {
    let count = text.parse().ok().filter(|count| (1..=LAST_EVENTS_MAX).contains(count));
    count.ok_or_else(|| {
        let detail = format!("?last= takes a whole number from 1 to {LAST_EVENTS_MAX}");
        Problem::bad_field("last", detail).with("limit", LAST_EVENTS_MAX)
    })
}

/// A random value of the range. It is random enough to spread reconnects, but not for secrets.
fn spread(range: RangeInclusive<u64>) -> u64 {
    let random = random();
    range.start() + random % (range.end() - range.start() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_shed_clients_are_spread() {
        let waits: std::collections::HashSet<u64> =
            (0..100).map(|_| spread(SHED_RETRY_MS)).collect();
        assert!(waits.iter().all(|wait| SHED_RETRY_MS.contains(wait)));
        assert!(waits.len() > 50);
    }
}
