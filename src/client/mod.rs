//! An `EventSource` for programs, which behaves like the one of a browser.
//!
//! `tail`, `bench`, `doctor` and the tests read streams through this client, so they receive what a
//! browser receives. The client reconnects after the `retry` time of the stream, sends the last id
//! that it received, dispatches only SSE events with data, and ends permanently on any response
//! other than a `200` event stream (WHATWG HTML, section 9.2). The crate `sse-stream` parses the
//! SSE events.

pub mod agent;
pub mod http;
pub mod socket;

use agent::Agent;
use bytes::Bytes;
use http::{Address, HttpError};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use hyper::{Method, StatusCode};
use sse_stream::{Sse, SseStream};
use std::time::Duration;
use tokio::time::Instant;
use tokio_stream::StreamExt;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Wait before a reconnect until a stream sets another time; browsers wait 2 to 5 s.
const RETRY_DEFAULT: Duration = Duration::from_secs(3);

/// An event as `EventSource` dispatches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The type; `message` when the SSE event has none.
    pub kind: String,
    /// The data; its lines are separated by LF.
    pub data: String,
    /// The last id that was received, with this event or before it.
    pub last_event_id: String,
    /// Whether this event itself has that id.
    pub has_id: bool,
}

/// An event, or a change in the state of an event source.
#[derive(Debug)]
pub enum Signal {
    /// A response began.
    Opened,
    /// An event arrived.
    Message(Message),
    /// The response ended, or there was none; the next request follows after this time. A browser
    /// reports this as an `error` with `readyState` 0.
    Reconnecting {
        /// The wait before the next request.
        after: Duration,
        /// Why the response ended.
        why: Interruption,
    },
    /// The source has ended permanently, and no signal follows. The `readyState` in a browser is 2.
    Closed {
        /// The status of the last response, if there was one.
        status: Option<StatusCode>,
        /// The reason, as a sentence.
        why: String,
    },
}

/// Why a response ended.
#[derive(Debug)]
pub enum Interruption {
    /// Its body ended cleanly.
    End,
    /// The connection broke, or could not be made; the text is the reason.
    Broken(String),
}

/// A stream of events from one path of a server. It reconnects by itself.
pub struct EventSource {
    agent: Agent,
    path: String,
    last_event_id: String,
    retry: Duration,
    state: State,
}

enum State {
    Waiting { until: Instant },
    Open(Box<SseStream<Incoming>>),
    Closed,
}

impl EventSource {
    /// Creates a source, which connects at the first call of [`EventSource::next`]. The stream
    /// begins after `cursor`.
    pub fn new(address: Address, path: impl Into<String>, cursor: Option<&str>) -> Self {
        Self {
            agent: Agent::new(address),
            path: path.into(),
            last_event_id: cursor.unwrap_or_default().to_owned(),
            retry: RETRY_DEFAULT,
            state: State::Waiting { until: Instant::now() },
        }
    }

    /// The last id that was received. A later source can resume from it.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Breaks the connection off, as the loss of a network does. The source connects again after
    /// the time `after`.
    pub fn disconnect(&mut self, after: Duration) {
        self.agent.disconnect();
        self.state = State::Waiting { until: Instant::now() + after };
    }

    /// Moves to another server. This takes effect at the next reconnect.
    pub fn move_to(&mut self, address: Address) {
        self.agent = Agent::new(address);
    }

    /// Waits for the next signal; after [`Signal::Closed`] there is none, and the wait never ends.
    /// Cancellation-safe: a call that is dropped loses no event.
    pub async fn next(&mut self) -> Signal {
        loop {
            match &mut self.state {
                State::Closed => std::future::pending().await,
                State::Waiting { until } => {
                    tokio::time::sleep_until(*until).await;
                    return self.open().await;
                }
                State::Open(stream) => match stream.next().await {
                    Some(Ok(block)) => {
                        if let Some(message) = self.dispatch(block) {
                            return Signal::Message(message);
                        }
                    }
                    Some(Err(error)) => {
                        return self.reconnect(Interruption::Broken(error.to_string()));
                    }
                    None => return self.reconnect(Interruption::End),
                },
            }
        }
    }

    async fn open(&mut self) -> Signal {
        // If this call is dropped before its response arrives, the next call sends a new request.
        let response = match self.request().await {
            Ok(response) => response,
            Err(HttpError(why)) => return self.reconnect(Interruption::Broken(why)),
        };
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        if status == StatusCode::OK && is_stream {
            self.state = State::Open(Box::new(SseStream::new(response.into_body())));
            return Signal::Opened;
        }
        self.state = State::Closed;
        let why = match status {
            StatusCode::NO_CONTENT => "there is nothing more".to_owned(),
            _ => http::text(response).await.unwrap_or_default(),
        };
        Signal::Closed { status: Some(status), why }
    }

    async fn request(&mut self) -> Result<hyper::Response<Incoming>, HttpError> {
        let mut headers = vec![(ACCEPT, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
        if !self.last_event_id.is_empty() {
            headers.push((LAST_EVENT_ID, &self.last_event_id));
        }
        self.agent.send(Method::GET, &self.path, &headers, Bytes::new()).await
    }

    fn dispatch(&mut self, block: Sse) -> Option<Message> {
        if let Some(retry) = block.retry {
            self.retry = Duration::from_millis(retry);
        }
        let id = block.id.filter(|id| !id.contains('\0'));
        let has_id = id.is_some();
        if let Some(id) = id {
            self.last_event_id = id;
        }
        let data = block.data?;
        let kind = block.event.filter(|kind| !kind.is_empty());
        let kind = kind.unwrap_or_else(|| "message".to_owned());
        Some(Message { kind, data, last_event_id: self.last_event_id.clone(), has_id })
    }

    fn reconnect(&mut self, why: Interruption) -> Signal {
        if let Interruption::Broken(_) = why {
            self.agent.disconnect();
        }
        self.state = State::Waiting { until: Instant::now() + self.retry };
        Signal::Reconnecting { after: self.retry, why }
    }
}

/// Returns the messages that a client receives from a response with these chunks, and whether the
/// response could be parsed to its end.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(clippy::expect_used)]
pub fn messages_of(chunks: Vec<Bytes>) -> (Vec<Message>, bool) {
    use futures_util::FutureExt;
    let mut source = EventSource::new("http://x".parse().expect("an address"), "/", None);
    let chunks = chunks.into_iter().map(Ok::<_, std::convert::Infallible>);
    let mut blocks = sse_stream::SseByteStream::new(futures_util::stream::iter(chunks));
    let mut messages = Vec::new();
    loop {
        // The chunks are there, so no poll has to wait.
        match blocks.next().now_or_never().expect("a block or the end") {
            Some(Ok(block)) => messages.extend(source.dispatch(block)),
            end => return (messages, end.is_none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cursor::EventId;
    use crate::core::event::{ChannelName, Event};
    use crate::core::sse::{self, EventWriter, Format};
    use proptest::prelude::*;

    /// The messages that a client receives from these chunks.
    fn read(chunks: Vec<Bytes>) -> Vec<Message> {
        let (messages, is_whole) = messages_of(chunks);
        assert!(is_whole, "a block cannot be parsed");
        messages
    }

    #[test]
    fn a_client_dispatches_what_a_browser_would() {
        let body = "\u{feff}retry: 9\n: comment\nid: 1\n\ndata\n\nevent:\ndata:a\ndata: b\r\nid: 2\rdata:  c\n\n\
                    id: 3\nevent: e\n\ndata: last, id kept\n\ndata: no empty line behind";
        let expected =
            [("message", "", "1"), ("message", "a\nb\n c", "2"), ("message", "last, id kept", "3")];
        let messages = read(vec![body.into()]);
        let got: Vec<_> =
            messages.iter().map(|m| (&*m.kind, &*m.data, &*m.last_event_id)).collect();
        assert_eq!(got, expected);
    }

    proptest! {
        #[test]
        fn any_chunking_reads_back_to_the_same_events(
            events in prop::collection::vec(("\\PC{0,20}|[\r\n a👩‍🚀é:]{0,12}", prop::option::of("[a-z]{1,5}")), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut body = Vec::new();
            sse::opening(&mut body, Some("0-0"), 1, 2);
            let channel = ChannelName::parse("a").expect("a name");
            let writer = EventWriter::new(channel, Format::Raw);
            for (number, (data, kind)) in events.iter().enumerate() {
                let event = Event::stored(kind.as_deref(), None, data);
                writer.block(&mut body, EventId { ms: number as u64, seq: 0 }, &event);
                body.extend_from_slice(sse::HEARTBEAT);
            }
            sse::closing(&mut body, "9-0.7", 2, 100);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunk = |pair: &[usize]| Bytes::copy_from_slice(&body[pair[0]..pair[1]]);
            let chunks = cuts.windows(2).map(chunk).filter(|chunk| !chunk.is_empty()).collect();
            let messages = read(chunks);
            prop_assert_eq!(messages.len(), events.len() + 2);
            for (number, (data, kind)) in events.iter().enumerate() {
                let message = &messages[number + 1];
                let expected = data.replace("\r\n", "\n").replace('\r', "\n");
                prop_assert_eq!(&message.data, &expected);
                prop_assert_eq!(&message.kind, kind.as_deref().unwrap_or("message"));
                prop_assert_eq!(&message.last_event_id, &format!("{number}-0"));
            }
            prop_assert_eq!(&messages[messages.len() - 1].last_event_id, "9-0.7");
        }
    }
}
