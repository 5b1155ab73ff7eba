//! `POST` and `DELETE /channels/{name}`: events in, and the end of a channel.
//!
//! What a publisher sends is read up to a limit and checked before the store sees it. The memory
//! of all publishes being read is bounded too: many large ones at once wait for nobody, they are
//! sent away.

use super::problem::Problem;
use super::route::Query;
use super::{Answer, CHANNEL_METHODS, Origin, json};
use crate::body::AnswerBody;
use crate::caching::Freshness;
use crate::config::HttpConfig;
use crate::cursor::EventId;
use crate::event::{ChannelName, Event, Field};
use crate::ndjson::{BatchError, BatchLimits, BatchProblem, parse_batch};
use crate::rates::{Rates, TooFast};
use crate::store::{IDEMPOTENCY_KEY_RULE, Idempotency, Publication, Published};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most bytes of a refused body that are still read, and the longest time for it.
const DISCARDED_BYTES_MAX: u64 = 16 * 1024 * 1024;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);
/// Unit in which the memory of publishes is counted.
const BUFFER_UNIT_BYTES: usize = 1024;

/// What limits all publishes together.
pub(super) struct Publishing {
    buffer: Semaphore,
    rates: Rates,
}

/// What kind of body a publish has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    Batch,
}

impl Publishing {
    pub fn new(config: &HttpConfig) -> Self {
        let rates = Rates::new(config.publish_rates);
        Self { buffer: Semaphore::new(config.publish_buffer / BUFFER_UNIT_BYTES), rates }
    }

    pub fn sweep(&self) {
        self.rates.sweep();
    }
}

impl Origin {
    pub(super) async fn write(
        &self,
        request: Request<Incoming>,
        names: Vec<ChannelName>,
        query: &Query,
    ) -> Result<Answer, Problem> {
        let method = request.method().clone();
        if method != Method::POST && method != Method::DELETE {
            return Err(Problem::method(CHANNEL_METHODS));
        }
        let [name] = <[ChannelName; 1]>::try_from(names)
            .map_err(|_| Problem::not_found("publish to one channel at a time"))?;
        let grant = self.may_publish(request.headers(), &name)?;
        if method == Method::DELETE {
            return self.end(&name, query).await;
        }
        let subject = grant.map(|grant| grant.subject.unwrap_or_default());
        let published = self.publish(request, name, subject.as_deref(), query).await;
        published.inspect_err(|problem| self.hub.metrics.refused(problem.slug))
    }

    async fn publish(
        &self,
        request: Request<Incoming>,
        channel: ChannelName,
        subject: Option<&str>,
        query: &Query,
    ) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        let shape = shape(&head.headers);
        let key = idempotency_key(&head.headers)?;
        let longest = self.config.body_timeout;
        let body = tokio::time::timeout(longest, self.read_body(body, shape));
        let (body, _room) = body.await.map_err(|_| slow_body(longest))??;
        let idempotency = key.map(|key| {
            let (kind, of) = (query.event.as_deref(), query.key.as_deref());
            Idempotency::of(key.to_owned(), shape == Shape::Batch, kind, of, &body)
        });
        let events = self.events(shape, query, &body)?;
        self.check_rate(&channel, subject, events.len())?;
        let publication = Publication { channel, events, idempotency };
        let published = self.hub.publish(publication).await?;
        Ok(accepted(shape, &published))
    }

    /// The whole body, and its share of the memory for publishes for as long as it is needed.
    async fn read_body(
        &self,
        mut body: Incoming,
        shape: Shape,
    ) -> Result<(Bytes, Vec<SemaphorePermit<'_>>), Problem> {
        let (what, limit, flag) = match shape {
            Shape::Single => ("an event", self.config.event_bytes, "--max-event"),
            Shape::Batch => ("a batch", self.config.batch_bytes, "--max-batch"),
        };
        let too_large = || Problem::too_large(what, limit, flag);
        if body.size_hint().lower() > limit as u64 {
            discard(&mut body).await;
            return Err(too_large());
        }
        let (mut bytes, mut room) = (BytesMut::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "body-cut",
                    "The body did not arrive whole",
                    format!("{error}; nothing was stored, send it again"),
                )
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                discard(&mut body).await;
                return Err(too_large());
            }
            // Of all that came, not of each piece: a body in chunks of one byte takes no more.
            let units = |length: usize| length.div_ceil(BUFFER_UNIT_BYTES) as u32;
            let more = units(bytes.len() + data.len()) - units(bytes.len());
            if more > 0 {
                room.push(self.publishing.buffer.try_acquire_many(more).map_err(|_| busy())?);
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), room))
    }

    fn events(&self, shape: Shape, query: &Query, body: &[u8]) -> Result<Vec<Event>, Problem> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            let detail = format!("the body is not UTF-8 from byte {at} on; events are text");
            let line = body[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            Problem::bad_field("data", detail).with("line", line)
        })?;
        match shape {
            Shape::Single => {
                let field = |name: &'static str, text: &Option<String>, read: fn(&str) -> _| {
                    let text = text.as_deref().filter(|text| !text.is_empty());
                    text.map(read)
                        .transpose()
                        .map_err(|error: crate::event::FieldError| bad_event_field(name, &error))
                };
                let kind = field("event", &query.event, Field::kind)?;
                let key = field("key", &query.key, Field::key)?;
                Ok(vec![Event { kind, key, data: text.into() }])
            }
            Shape::Batch => {
                let (events, event_bytes) = (self.config.batch_events, self.config.event_bytes);
                parse_batch(text, BatchLimits { events, event_bytes }).map_err(bad_batch)
            }
        }
    }

    pub(super) fn check_rate(
        &self,
        channel: &ChannelName,
        subject: Option<&str>,
        events: usize,
    ) -> Result<(), Problem> {
        let taken = self.publishing.rates.take(channel, subject, events);
        taken.map_err(|TooFast { what, flag, wait }| match wait {
            Ok(wait) => {
                let detail = format!(
                    "{what} no more events a second ({flag}); \
                     nothing was stored, wait and send it again"
                );
                let status = StatusCode::TOO_MANY_REQUESTS;
                let problem = Problem::new(status, "rate", "Too many events", detail);
                problem.retry_after(wait.as_secs() + 1)
            }
            Err(most) => Problem::too_many(&format!("{what} at most {most} events"), most, flag),
        })
    }

    async fn end(&self, channel: &ChannelName, query: &Query) -> Result<Answer, Problem> {
        let store = &self.hub.store;
        let body = match query.reopen.as_deref() {
            None | Some("0") => {
                let id = self.hub.in_time(store.close(channel)).await?;
                json!({ "id": id.to_string() })
            }
            Some("1") => {
                self.hub.in_time(store.reopen(channel)).await?;
                json!({ "reopened": true })
            }
            Some(_) => return Err(Problem::bad_field("reopen", "?reopen= takes 1")),
        };
        Ok(json_answer(StatusCode::OK, &body))
    }
}

fn accepted(shape: Shape, published: &Published) -> Response<AnswerBody> {
    let status = if published.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let ids: Vec<String> = published.ids.iter().map(EventId::to_string).collect();
    let body = match (shape, &ids[..]) {
        (Shape::Single, [id]) => json!({ "id": id }),
        _ => json!({ "ids": ids }),
    };
    json_answer(status, &body)
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    json(status, body.to_string(), &Freshness::Never.cache_control(0))
}

fn shape(headers: &HeaderMap) -> Shape {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case("application/x-ndjson") {
        true => Shape::Batch,
        false => Shape::Single,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    // What is no text is refused with its first look, as what is empty.
    let text = value.to_str().unwrap_or_default();
    match Idempotency::is_key(text) {
        true => Ok(Some(text)),
        false => {
            let problem = Problem::bad_field("Idempotency-Key", IDEMPOTENCY_KEY_RULE);
            Err(problem.with("limit", crate::event::FIELD_BYTES_MAX))
        }
    }
}

fn bad_event_field(field: &'static str, error: &crate::event::FieldError) -> Problem {
    let problem = Problem::bad_field(field, format!("\"{field}\" {error}"));
    match error {
        crate::event::FieldError::TooLong { limit, .. } => problem.with("limit", *limit),
        _ => problem,
    }
}

fn bad_batch(error: BatchError) -> Problem {
    let detail = format!("{error}; nothing of the batch was stored");
    let problem = match &error.problem {
        BatchProblem::TooMany { limit } | BatchProblem::TooLarge { limit, .. } => {
            let title = "Too much at once";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", title, detail)
                .with("limit", *limit)
        }
        BatchProblem::Field(crate::event::FieldError::TooLong { limit, .. }) => {
            Problem::bad_field("batch", detail).with("limit", *limit)
        }
        _ => Problem::bad_field("batch", detail),
    };
    match (error.line, error.field) {
        (0, _) => problem,
        (line, None) => problem.with("line", line),
        (line, Some(field)) => problem.with("line", line).with("field", field),
    }
}

fn slow_body(longest: Duration) -> Problem {
    let detail = format!(
        "the body did not arrive within {} s (--body-timeout); nothing was stored, send it again",
        longest.as_secs_f64()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The request was too slow", detail)
}

fn busy() -> Problem {
    let detail = "too many bytes are being published at once (--publish-buffer); \
                  nothing was stored, send it again";
    Problem::unavailable("publish-buffer", detail, 1)
}

/// Reads on what is refused, for a while, and keeps none of it. Varnish sends a whole body before
/// it reads the answer, and knows none where the connection is closed under its hands.
async fn discard(body: &mut Incoming) {
    if body.size_hint().lower() > DISCARDED_BYTES_MAX {
        return;
    }
    let mut left = DISCARDED_BYTES_MAX;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len) as u64;
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(DISCARD_TIME_MAX, read).await.ok();
}
