//! One request through the edge, and everything that can be seen of its answer.

use crate::client::http::{Address, Connection, HttpError};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Version};
use serde_json::Value;
use sse_stream::{Sse, SseStream};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;

/// Longest wait for the head of an answer, and for its first block: longer than a long poll,
/// and than most segments.
pub const PATIENCE: Duration = Duration::from_secs(70);

/// How the text begins where not even a head came in time.
pub const NO_ANSWER: &str = "no answer";

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub struct ProbeRequest {
    /// Path and query.
    pub path: String,
    /// `Last-Event-ID`.
    pub cursor: Option<String>,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
}

/// An answer that is being read.
pub struct Probe {
    /// When it was asked for.
    pub asked_at: Instant,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Which HTTP the edge speaks to us.
    pub version: Version,
    body: SseStream<Incoming>,
    _connection: Connection,
}

/// What `Headwater-Response` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginReport {
    /// The name of the origin's answer.
    pub name: String,
    /// The HTTP version that reached the origin.
    pub http: String,
    /// Whether the edge asks for finished bodies.
    pub is_long_poll: bool,
    /// Whether a cookie reached the origin.
    pub cookie: bool,
}

/// A block called `segment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentBlock {
    /// The cursor it hands out.
    pub cursor: Option<String>,
    /// Its segment's number.
    pub number: u64,
    /// When the response ends (ms); `None` in the closing block.
    pub ends_at: Option<u64>,
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Cleanly; whether the closing block came before.
    Clean { is_closed: bool },
    /// Broken off.
    Broken(String),
    /// Not in time.
    Never,
}

impl Probe {
    /// Asks, over a connection of its own.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub async fn at(address: &Address, ask: &ProbeRequest) -> Result<Self, HttpError> {
        let mut connection = Connection::open(address).await?;
        let version = connection.version();
        let mut request = connection.request(Method::GET, &ask.path);
        request = request.header(ACCEPT, "text/event-stream");
        if let Some(cursor) = &ask.cursor {
            request = request.header("last-event-id", cursor);
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let asked_at = Instant::now();
        let answer = timeout_at(asked_at + PATIENCE, connection.send(request, Bytes::new())).await;
        let late = |_| HttpError(format!("{NO_ANSWER} within {} s", PATIENCE.as_secs()));
        let (head, body) = answer.map_err(late)??.into_parts();
        Ok(Self {
            asked_at,
            status: head.status,
            headers: head.headers,
            version,
            body: SseStream::new(body),
            _connection: connection,
        })
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether `EventSource` would take it.
    pub fn is_stream(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        self.status == StatusCode::OK && kind.starts_with(b"text/event-stream")
    }

    /// The encoding of the body, where it has one.
    pub fn encoding(&self) -> Option<String> {
        let encoding = self.headers.get(CONTENT_ENCODING)?.to_str().ok()?;
        (encoding != "identity").then(|| encoding.to_owned())
    }

    /// What the origin says of the request that reached it.
    pub fn report(&self) -> Option<OriginReport> {
        let mut parts = self.header("headwater-response")?.split(';').map(str::trim);
        let name = parts.next()?.to_owned();
        let mut report =
            OriginReport { name, http: String::new(), is_long_poll: false, cookie: false };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "")) {
                ("http", version) => version.clone_into(&mut report.http),
                ("mode", mode) => report.is_long_poll = mode == "hold",
                ("cookie", _) => report.cookie = true,
                _ => {}
            }
        }
        Some(report)
    }

    /// For how many more seconds the answer may be kept.
    pub fn fresh_seconds(&self) -> Option<u64> {
        let control = self.header("cache-control")?;
        let max_age = control.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
        let age = self.header("age").and_then(|age| age.parse().ok()).unwrap_or(0);
        Some(max_age.parse::<u64>().ok()?.saturating_sub(age))
    }

    /// The first block called `segment`, and how long after the request it came.
    pub async fn opening(&mut self) -> Option<(SegmentBlock, Duration)> {
        let until = self.asked_at + PATIENCE;
        loop {
            let block = timeout_at(until, self.body.next()).await.ok()??.ok()?;
            if let Some(segment) = segment_block(&block) {
                return Some((segment, self.asked_at.elapsed()));
            }
        }
    }

    /// The wait that the answer asks for, in ms: its first `retry:`. `None` where the body ends
    /// without one.
    pub async fn retry(&mut self) -> Option<u64> {
        let until = self.asked_at + PATIENCE;
        loop {
            let block = timeout_at(until, self.body.next()).await.ok()??.ok()?;
            if block.retry.is_some() {
                return block.retry;
            }
        }
    }

    /// Why the server has no stream for now, where it says so.
    pub fn shed(&self) -> Option<&str> {
        self.header("headwater-shed")
    }

    /// Reads to the end, wherever that is.
    pub async fn end(&mut self, until: Instant) -> End {
        let mut is_closed = false;
        loop {
            match timeout_at(until, self.body.next()).await {
                Err(_) => return End::Never,
                Ok(None) => return End::Clean { is_closed },
                Ok(Some(Err(error))) => return End::Broken(error.to_string()),
                Ok(Some(Ok(block))) => {
                    is_closed = segment_block(&block).is_some_and(|block| block.ends_at.is_none());
                }
            }
        }
    }
}

/// Reads a block called `segment`; `None` for all others.
fn segment_block(block: &Sse) -> Option<SegmentBlock> {
    if block.event.as_deref() != Some("segment") {
        return None;
    }
    let data: Value = serde_json::from_str(block.data.as_deref()?).ok()?;
    let number = data["segment"].as_u64()?;
    Some(SegmentBlock { cursor: block.id.clone(), number, ends_at: data["ends_at"].as_u64() })
}
