//! One request of `headwater doctor` through the edge, and the properties of its response.

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

/// Longest wait for the head of a response, and for its first block. It is longer than a long poll
/// and than most segments.
pub const PATIENCE: Duration = Duration::from_secs(70);

/// The beginning of the error text when no head of a response came in time.
pub const NO_ANSWER: &str = "no answer";

/// A request to send.
#[derive(Clone, Debug, Default)]
pub struct ProbeRequest {
    /// The path and query.
    pub path: String,
    /// The value of `Last-Event-ID`.
    pub cursor: Option<String>,
    /// Additional headers.
    pub headers: Vec<(&'static str, String)>,
}

/// A response that is being read.
pub struct Probe {
    /// When its request was sent.
    pub asked_at: Instant,
    /// The status of the response.
    pub status: StatusCode,
    /// The headers of the response.
    pub headers: HeaderMap,
    /// The HTTP version between this client and the edge.
    pub version: Version,
    body: SseStream<Incoming>,
    _connection: Connection,
}

/// The values in the header `Headwater-Response`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginReport {
    /// The name of the origin's response.
    pub name: String,
    /// The HTTP version that reached the origin.
    pub http: String,
    /// Whether the request reached the origin as a long poll.
    pub is_long_poll: bool,
    /// Whether a cookie reached the origin.
    pub cookie: bool,
}

/// An SSE event of the type `segment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentBlock {
    /// The cursor in its `id`.
    pub cursor: Option<String>,
    /// The number of its segment.
    pub number: u64,
    /// When the response ends (ms); `None` in the closing block.
    pub ends_at: Option<u64>,
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended cleanly. `is_closed`: the closing block was its last SSE event.
    Clean { is_closed: bool },
    /// The transfer was aborted; the text is the error.
    Broken(String),
    /// It did not end in time.
    Never,
}

impl Probe {
    /// Sends a request over a new connection, and waits for the head of its response.
    ///
    /// # Errors
    /// Fails when there is no connection, or no response in time.
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

    /// The value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether `EventSource` would accept the response.
    pub fn is_stream(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        self.status == StatusCode::OK && kind.starts_with(b"text/event-stream")
    }

    /// The content encoding of the body, if it has one.
    pub fn encoding(&self) -> Option<String> {
        let encoding = self.headers.get(CONTENT_ENCODING)?.to_str().ok()?;
        (encoding != "identity").then(|| encoding.to_owned())
    }

    /// How the request reached the origin, according to `Headwater-Response`.
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

    /// The number of seconds for which a cache may still keep the response: `max-age` less `Age`.
    pub fn fresh_seconds(&self) -> Option<u64> {
        let control = self.header("cache-control")?;
        let max_age = control.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
        let age = self.header("age").and_then(|age| age.parse().ok()).unwrap_or(0);
        Some(max_age.parse::<u64>().ok()?.saturating_sub(age))
    }

    /// Reads up to the first SSE event of the type `segment`. Returns it, and the time since the
    /// request.
    pub async fn opening(&mut self) -> Option<(SegmentBlock, Duration)> {
        let until = self.asked_at + PATIENCE;
        loop {
            let block = timeout_at(until, self.body.next()).await.ok()??.ok()?;
            if let Some(segment) = segment_block(&block) {
                return Some((segment, self.asked_at.elapsed()));
            }
        }
    }

    /// Reads up to the first `retry:`, and returns its value in ms; `None` when the body has none.
    pub async fn retry(&mut self) -> Option<u64> {
        let until = self.asked_at + PATIENCE;
        loop {
            let block = timeout_at(until, self.body.next()).await.ok()??.ok()?;
            if block.retry.is_some() {
                return block.retry;
            }
        }
    }

    /// The reason in `Headwater-Shed`, if the request was shed.
    pub fn shed(&self) -> Option<&str> {
        self.header("headwater-shed")
    }

    /// Reads the body to its end, but not beyond the instant `until`.
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

/// Parses an SSE event of the type `segment`; `None` for other SSE events.
fn segment_block(block: &Sse) -> Option<SegmentBlock> {
    if block.event.as_deref() != Some("segment") {
        return None;
    }
    let data: Value = serde_json::from_str(block.data.as_deref()?).ok()?;
    let number = data["segment"].as_u64()?;
    Some(SegmentBlock { cursor: block.id.clone(), number, ends_at: data["ends_at"].as_u64() })
}
