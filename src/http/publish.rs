//! `POST` and `DELETE /channels/{name}`: publishes events, and ends or reopens a channel.
//!
//! A body is read up to a size limit, and its events are checked before they reach the store. The
//! memory for all bodies that are being read is limited too: a publish that does not fit is refused
//! and does not wait for others. `check_rate` and `check_quotas` enforce the rates and quotas of
//! publishers (`limits::rates`), also for WebSockets.

use super::access::may_publish;
use super::body_events::{Shape, batch_events, removes_key, shape, single_event};
use super::body_turns::BodyTurns;
use super::intake::{Intake, PublisherId, Room, SMALL_BYTES};
use super::problem::Problem;
use super::route::Query;
use super::{AppState, CHANNEL_METHODS, HttpResponse, json};
use crate::core::caching::Freshness;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use crate::core::ndjson::{BatchLimits, Separator};
use crate::core::trace_context::{TRACEPARENT, TraceContext};
use crate::http::HttpConfig;
use crate::limits::client_address::Client;
use crate::limits::intake_pace::ByteCredit;
use crate::limits::rates::{Excess, PublisherQuota, Rates, RatesConfig, TooFast};
use crate::store::{IDEMPOTENCY_KEY_RULE, Idempotency, Publication, Published};
use crate::sync::background;
use crate::sync::replaceable::Replaceable;
use bytes::{Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use serde_json::json;
use std::fmt::Write;
use std::io::Read;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;
use tokio::time::Instant;

/// The most bytes of a body over its limit that are still read, and the longest time for it.
const TOO_LARGE: Discard = Discard { bytes: 16 * 1024 * 1024, time: Duration::from_secs(5) };
/// The same for a body that is refused for another reason.
const REFUSED: Discard = Discard { bytes: SMALL_BYTES as u64, time: Duration::from_secs(1) };
/// A large body that arrives more slowly than this, in bytes a second, is refused after a grace
/// period, because it occupies memory that other publishes could use.
const SPEED_MIN: u64 = 16 * 1024;
const SPEED_GRACE: Duration = Duration::from_secs(5);
/// The most members that a gzip body may have (RFC 1952, section 2.2); compressors write one.
const GZIP_MEMBERS_MAX: usize = 16;
/// The most bytes that one decoding step of a gzip body produces.
const GUNZIP_BYTES: usize = 64 * 1024;
/// The response with at most this many ids is built at once, and a longer one in the background.
const FEW_IDS: usize = 256;
/// The length of an id in the response to a batch, with quotes and comma, about.
const ID_BYTES: usize = 20;

/// How much of a refused body is still read.
#[derive(Clone, Copy)]
struct Discard {
    bytes: u64,
    time: Duration,
}

/// The limits that all publishes share: the memory for their bodies, and the rates.
pub(super) struct Publishing {
    intake: Intake,
    rates: Replaceable<Rates>,
    /// Each large body that is being decoded or parsed has a turn.
    turns: BodyTurns,
}

impl Publishing {
    pub fn new(config: &HttpConfig) -> Self {
        let rates = Replaceable::new(Rates::new(config.publish_rates));
        // A compressed body and its decoded text are in memory at the same time.
        let largest = 2 * config.batch_bytes.max(config.event_bytes);
        // Half of the cores stay free for other requests.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let turns = BodyTurns::new((cores / 2).max(1));
        Self { intake: Intake::new(config.publish_buffer, largest), rates, turns }
    }

    /// Replaces the rates. All allowances are unused afterwards.
    pub fn reload(&self, rates: RatesConfig) {
        self.rates.replace(Rates::new(rates));
    }

    /// Counts these events against the rates of the publisher and of the channel.
    ///
    /// # Errors
    /// Fails with `429` when a rate is used up, and with `413` when the rate never admits so many
    /// events at once.
    pub fn check_rate(
        &self,
        channel: &ChannelName,
        subject: Option<&str>,
        events: usize,
    ) -> Result<(), Problem> {
        let taken = self.rates.get().take(channel, subject, events);
        taken.map_err(|TooFast { what, flag, excess }| match excess {
            Excess::Now(wait) => {
                let detail = format!(
                    "{what} no more events a second ({flag}); \
                     nothing was stored, wait and send it again"
                );
                let status = StatusCode::TOO_MANY_REQUESTS;
                let problem = Problem::new(status, "rate", "Too many events", detail);
                problem.retry_after(wait.as_secs() + 1)
            }
            Excess::Always(most) => {
                Problem::too_many(&format!("{what} at most {most} events"), most, flag)
            }
        })
    }

    pub fn sweep(&self) {
        self.rates.get().sweep();
        self.turns.sweep();
    }
}

/// Answers a `POST` or a `DELETE` of a channel.
pub(super) async fn answer(
    app: &AppState,
    request: Request<Incoming>,
    names: Vec<ChannelName>,
    query: &Query,
    client: Client,
) -> Result<HttpResponse, Problem> {
    if !matches!(*request.method(), Method::POST | Method::DELETE) {
        return Err(Problem::method(CHANNEL_METHODS));
    }
    let (head, mut body) = request.into_parts();
    let written = authorized_write(app, (&head, &mut body), names, query, client).await;
    if let Err(problem) = &written {
        app.hub.metrics().refused(problem.slug);
        // Over HTTP/2, a stream whose body is not read is reset after its response, without an
        // error (RFC 9113, section 8.1). curl 7.88 then often reports an error, and no response.
        // Over HTTP/1.1, a read would ask a client for a body that it holds back (`Expect`).
        if head.version == Version::HTTP_2 {
            discard(&mut body, REFUSED).await;
        }
    }
    written
}

/// Publishes events, or ends or reopens a channel, if the token of the request grants this.
async fn authorized_write(
    app: &AppState,
    (head, body): (&Parts, &mut Incoming),
    names: Vec<ChannelName>,
    query: &Query,
    client: Client,
) -> Result<HttpResponse, Problem> {
    let [name] = <[ChannelName; 1]>::try_from(names).map_err(|_| {
        Problem::bad_field("channel", "one channel at a time is published to, ended or reopened")
    })?;
    let grant = may_publish(app, &head.headers, &name)?;
    let subject = grant.map(|grant| grant.subject.unwrap_or_default());
    if head.method == Method::DELETE {
        app.publishing.check_rate(&name, subject.as_deref(), 1)?;
        return end(app, &name, query).await;
    }
    let traceparent = head.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let span = app.hub.traces().publish(&name, traceparent);
    let publisher = (subject.as_deref(), client);
    let published = publish(app, (head, body), (name, span.context()), publisher, query).await;
    span.answered(
        published.as_ref().map_or_else(|problem| problem.status, |it| it.status()).as_u16(),
    );
    published
}

async fn publish(
    app: &AppState,
    (head, body): (&Parts, &mut Incoming),
    (channel, trace): (ChannelName, Option<TraceContext>),
    (subject, client): (Option<&str>, Client),
    query: &Query,
) -> Result<HttpResponse, Problem> {
    query.only("a publish", &["event", "key", "remove"])?;
    let shape = shape(&head.headers);
    let removes_key = removes_key(query, shape)?;
    let is_gzip = is_gzip(&head.headers)?;
    let key = idempotency_key(&head.headers)?;
    let longest = app.config().body_timeout;
    let publisher = match subject {
        Some(subject) if !subject.is_empty() => PublisherId::Subject(subject.to_owned()),
        _ => PublisherId::Client(client),
    };
    let room = app.publishing.intake.room(publisher);
    let credit = head.extensions.get::<Arc<ByteCredit>>();
    let body = tokio::time::timeout(longest, read_body(app, body, shape, is_gzip, (room, credit)));
    let (body, room) = body.await.map_err(|_| slow_body(longest))??;
    let idempotency = key.map(|key| {
        let (kind, of) = (query.get("event"), query.get("key"));
        Idempotency::of(key.to_owned(), shape != Shape::Single, kind, of, removes_key, &body)
            .of_subject(subject.unwrap_or_default())
    });
    let mut events = match shape {
        Shape::Single => vec![single_event(query, removes_key, &body)?],
        Shape::Batch(separator) => batch(app, body, separator, room.publisher()).await?,
    };
    app.publishing.check_rate(&channel, subject, events.len())?;
    check_quotas(app, &channel, subject, idempotency.is_some()).await?;
    if let Some(trace) = trace
        && let Some(newest) = events.pop()
    {
        events.push(newest.traced(trace));
    }
    let publication = Publication { channel, events, idempotency };
    let published = app.hub.publish(publication).await?;
    accepted(shape, published).await
}

/// Parses a batch. A large one is parsed in the background.
async fn batch(
    app: &AppState,
    body: Bytes,
    separator: Separator,
    publisher: &PublisherId,
) -> Result<Vec<Event>, Problem> {
    let (events, event_bytes) = (app.config().batch_events, app.config().event_bytes);
    let limits = BatchLimits { events, event_bytes };
    if body.len() <= SMALL_BYTES {
        return batch_events(&body, separator, limits);
    }
    let _turn = app.publishing.turns.take(publisher).await;
    let parsed = background::run(move || batch_events(&body, separator, limits)).await;
    parsed.map_err(|error| Problem::internal(&error))?
}

/// Reads and decodes the whole body. Returns it with the memory that it has reserved.
async fn read_body<'a>(
    app: &AppState,
    body: &mut Incoming,
    shape: Shape,
    is_gzip: bool,
    (mut room, credit): (Room<'a>, Option<&Arc<ByteCredit>>),
) -> Result<(Bytes, Room<'a>), Problem> {
    let (what, limit, flag) = match shape {
        Shape::Single => ("an event", app.config().event_bytes, "--max-event"),
        Shape::Batch(_) => ("a batch", app.config().batch_bytes, "--max-batch"),
    };
    let too_large = || Problem::too_large(what, limit, flag);
    if body.size_hint().lower() > limit as u64 {
        discard(body, TOO_LARGE).await;
        return Err(too_large());
    }
    let (mut bytes, begun) = (BytesMut::new(), Instant::now());
    while let Some(frame) = next_frame(body, bytes.len(), begun).await? {
        let Ok(data) = frame.map_err(body_cut)?.into_data() else { continue };
        if let Some(credit) = credit {
            credit.body(data.len());
        }
        if bytes.len() + data.len() > limit {
            discard(body, TOO_LARGE).await;
            return Err(too_large());
        }
        if let Err(problem) = room.grow(data.len()) {
            // The memory is released, and the rest of the body is discarded, because a
            // publisher that is still sending would not read the response.
            drop((bytes, room));
            discard(body, TOO_LARGE).await;
            return Err(problem);
        }
        bytes.extend_from_slice(&data);
    }
    if !is_gzip {
        return Ok((bytes.freeze(), room));
    }
    let decoded = gunzip(&bytes, limit, &mut room, &app.publishing.turns).await?;
    Ok((decoded.ok_or_else(too_large)?, room))
}

/// Checks whether the publisher may use one more idempotency key and create one more channel.
/// Publishes without a token have no such quotas.
pub(super) async fn check_quotas(
    app: &AppState,
    channel: &ChannelName,
    subject: Option<&str>,
    has_key: bool,
) -> Result<(), Problem> {
    let Some(subject) = subject else { return Ok(()) };
    let rates = app.publishing.rates.get();
    let refused = |detail: &str, wait: Duration| {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let problem = Problem::new(status, "rate", "Too many of one publisher", detail);
        problem.retry_after(wait.as_secs() + 1)
    };
    if has_key {
        let detail = "the publisher uses too many idempotency keys \
                      (--idempotency-keys-per-subject); nothing was stored, wait and send it again";
        let taken = rates.take_one(PublisherQuota::IdempotencyKey, subject);
        taken.map_err(|wait| refused(detail, wait))?;
    }
    if rates.has(PublisherQuota::NewChannel) {
        let bounds = app.hub.log_state(channel).await?.bounds;
        if bounds.last == bounds.beginning {
            let detail = "the publisher makes too many channels (--new-channels-per-subject); \
                          nothing was stored. Publish to a channel that is there already";
            let taken = rates.take_one(PublisherQuota::NewChannel, subject);
            taken.map_err(|wait| refused(detail, wait))?;
        }
    }
    Ok(())
}

async fn accepted(
    shape: Shape,
    Published { ids, repeated }: Published,
) -> Result<HttpResponse, Problem> {
    let status = if repeated { StatusCode::OK } else { StatusCode::CREATED };
    let body = match (shape, &ids[..]) {
        (Shape::Single, [id]) => json!({ "id": id.to_string() }).to_string(),
        (_, few) if few.len() <= FEW_IDS => ids_json(few),
        _ => {
            let built = background::run(move || ids_json(&ids)).await;
            built.map_err(|error| Problem::internal(&error))?
        }
    };
    Ok(json(status, body.into(), &Freshness::Never.cache_control(0)))
}

async fn end(
    app: &AppState,
    channel: &ChannelName,
    query: &Query,
) -> Result<HttpResponse, Problem> {
    query.only("DELETE", &["reopen"])?;
    let body = match query.get("reopen") {
        None | Some("0") => {
            let id = app.hub.close(channel).await?;
            json!({ "id": id.to_string() })
        }
        Some("1") => {
            app.hub.reopen(channel).await?;
            json!({ "reopened": true })
        }
        Some(_) => {
            return Err(Problem::bad_field(
                "reopen",
                "?reopen= takes 1 (to take events again) or 0 (to end)",
            ));
        }
    };
    Ok(json_answer(StatusCode::OK, &body))
}

/// Returns the JSON of the ids of a batch.
fn ids_json(ids: &[EventId]) -> String {
    let mut body = String::with_capacity(16 + ids.len() * ID_BYTES);
    body.push_str("{\"ids\":[");
    for (index, id) in ids.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        write!(body, "{comma}\"{id}\"").unwrap_or_default();
    }
    body.push_str("]}");
    body
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> HttpResponse {
    json(status, body.to_string().into(), &Freshness::Never.cache_control(0))
}

pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(false),
        (Some(one), None) => one.to_str().unwrap_or_default().trim().to_ascii_lowercase(),
        (Some(_), Some(_)) => "several".to_owned(),
    };
    match coding.as_str() {
        "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => Err(Problem::encoding(&coding)),
    }
}

/// Decodes a gzip body. Returns `None` when the decoded body is longer than `limit` bytes. From
/// [`GUNZIP_BYTES`] decoded bytes on, a turn is necessary.
pub(super) async fn gunzip(
    bytes: &[u8],
    limit: usize,
    room: &mut Room<'_>,
    turns: &BodyTurns,
) -> Result<Option<Bytes>, Problem> {
    let not_gzip = |why: &dyn std::fmt::Display| {
        let detail = format!("the body is not gzip as Content-Encoding says: {why}");
        Problem::bad_field("Content-Encoding", detail)
    };
    let (mut decoded, mut chunk) = (BytesMut::new(), vec![0; GUNZIP_BYTES]);
    let (mut rest, mut turn) = (bytes, None);
    // Each member costs time even if it is empty, and a body could have very many members.
    for _ in 0..GZIP_MEMBERS_MAX {
        let mut decoder = GzDecoder::new(rest);
        loop {
            // A long input without any output takes a long time to decode, and other requests must
            // not wait for it.
            let read = match rest.len() > SMALL_BYTES {
                true => block_in_place(|| decoder.read(&mut chunk)),
                false => decoder.read(&mut chunk),
            };
            let count = read.map_err(|error| not_gzip(&error))?;
            if count == 0 {
                break;
            }
            if decoded.len() + count > limit {
                return Ok(None);
            }
            room.grow(count)?;
            decoded.extend_from_slice(&chunk[..count]);
            if turn.is_none() && decoded.len() >= GUNZIP_BYTES {
                turn = Some(turns.take(room.publisher()).await);
            }
            tokio::task::yield_now().await;
        }
        rest = decoder.into_inner();
        if rest.is_empty() {
            return Ok(Some(decoded.freeze()));
        }
    }
    Err(not_gzip(&format!("it has more than {GZIP_MEMBERS_MAX} members")))
}

/// Reads the next chunk of a body. A body larger than 64 KiB must arrive at a minimum rate.
async fn next_frame(
    body: &mut Incoming,
    came: usize,
    begun: Instant,
) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, Problem> {
    if came <= SMALL_BYTES {
        return Ok(body.frame().await);
    }
    let at_this_speed = begun + Duration::from_millis(came as u64 * 1_000 / SPEED_MIN);
    // A body that was faster so far may not pause for longer than the grace period either.
    let until = at_this_speed.min(Instant::now()) + SPEED_GRACE;
    tokio::time::timeout_at(until, body.frame()).await.map_err(|_| {
        let detail = format!(
            "the body came more slowly than {} KiB a second; nothing was stored, send it again",
            SPEED_MIN / 1024
        );
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The request was too slow", detail)
    })
}

fn body_cut(error: hyper::Error) -> Problem {
    let title = "The body did not arrive whole";
    let detail = format!("{error}; nothing was stored, send it again");
    Problem::new(StatusCode::BAD_REQUEST, "body-cut", title, detail)
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    // A value that is not text is read as an empty key, which is refused.
    let text = value.to_str().unwrap_or_default();
    match values.next().is_none() && Idempotency::is_key(text) {
        true => Ok(Some(text)),
        false => {
            let problem = Problem::bad_field("Idempotency-Key", IDEMPOTENCY_KEY_RULE);
            Err(problem.with("limit", crate::core::event::FIELD_BYTES_MAX))
        }
    }
}

fn slow_body(longest: Duration) -> Problem {
    let detail = format!(
        "the body did not arrive within {} s (--body-timeout); nothing was stored, send it again",
        longest.as_secs_f64()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The request was too slow", detail)
}

/// Reads and discards the rest of a refused body for a limited time. Varnish reads the response
/// only after it has sent the whole body, and loses the response if the connection is closed
/// before.
async fn discard(body: &mut Incoming, Discard { bytes: mut left, time }: Discard) {
    if body.size_hint().lower() > left {
        return;
    }
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len) as u64;
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(time, read).await.ok();
}
