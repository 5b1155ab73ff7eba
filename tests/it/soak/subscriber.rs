//! The subscribers of a soak. Of 20 of them 13 stay, and the others leave and come back all the time. All
//! of them resume from their cursors, so each has to receive every event.

use super::deployment::{CHANNELS, LARGE, channel_name};
use super::ledger::{Fault, Ledger, Place};
use super::{Planted, Run};
use crate::kit::Random;
use futures_util::{SinkExt, StreamExt};
use headwater::client::{EventSource, Message, Signal};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socket2::SockRef;
use sse_stream::SseStream;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The subscribers come one after the other in this time.
const ARRIVAL_MS: u64 = 5_000;
/// Longest time for a connection and the head of its response.
const OPENING_TIME_MAX: Duration = Duration::from_secs(20);
/// The receive buffer of slow readers, in bytes.
const SMALL_BUFFER_BYTES: u32 = 4 * 1024;
/// Longest time for which a half-closed connection is read.
const HALF_CLOSED: Duration = Duration::from_secs(3);
/// Number of the event that the planted loss takes from one subscriber, counted from its first.
const LOST: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A stream that ends only at the boundaries of its segments.
    Stream,
    /// Such a stream of two channels, as JSON.
    TwoChannels,
    LongPoll,
    /// A stream that the client closes after some seconds.
    Closed,
    /// A stream whose connection is reset after some seconds.
    Reset,
    /// A stream whose client sends nothing any more, and reads on for some seconds.
    HalfClosed,
    /// A stream of large events whose client pauses for up to twelve seconds.
    Slow,
    WebSocket,
    /// A WebSocket that the client leaves after some seconds.
    ClosedWebSocket,
}

/// The kinds of twenty subscribers.
const KINDS: [Kind; 20] = [
    Kind::Stream,
    Kind::Closed,
    Kind::Stream,
    Kind::Reset,
    Kind::Stream,
    Kind::LongPoll,
    Kind::Stream,
    Kind::WebSocket,
    Kind::Stream,
    Kind::Closed,
    Kind::Stream,
    Kind::Reset,
    Kind::Stream,
    Kind::HalfClosed,
    Kind::Stream,
    Kind::Slow,
    Kind::Stream,
    Kind::ClosedWebSocket,
    Kind::Stream,
    Kind::TwoChannels,
];

pub struct Subscriber {
    run: Arc<Run>,
    index: usize,
    kind: Kind,
    channels: Vec<usize>,
    ledger: Ledger,
    /// The id that was received last.
    cursor: String,
    random: Random,
    received: u64,
    visits: usize,
}

/// Why a subscriber is not connected any more.
enum Left {
    /// It has every event that was published.
    Finished,
    /// It comes back after this time.
    For(Duration),
}

impl Subscriber {
    pub fn new(index: usize, run: Arc<Run>) -> Self {
        let kind = KINDS[index % KINDS.len()];
        let own = index / KINDS.len() % CHANNELS;
        let channels = match kind {
            Kind::TwoChannels => vec![own, (own + 1) % CHANNELS],
            Kind::Slow => vec![LARGE],
            _ => vec![own],
        };
        let places: Vec<(usize, Place)> =
            channels.iter().map(|channel| (*channel, run.filled[*channel])).collect();
        let id = |(_, (_, id)): &(usize, Place)| id.to_string();
        let cursor = places.iter().map(id).collect::<Vec<_>>().join("_");
        let random = Random::new(index as u64 + 1);
        let ledger = Ledger::after(places);
        Self { run, index, kind, channels, ledger, cursor, random, received: 0, visits: 0 }
    }

    /// Reads until the last event of each channel has arrived. Returns the places of the subscriber
    /// and its description when the run is given up before.
    pub async fn follow(mut self) -> Option<String> {
        sleep(self.up_to(ARRIVAL_MS)).await;
        let mut given_up = self.run.given_up.subscribe();
        let visits = async {
            while let Left::For(pause) = self.visit().await {
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = visits => return None,
            _ = given_up.wait_for(|is_given_up| *is_given_up) => {}
        }
        let (index, kind, places) = (self.index, self.kind, self.ledger.places());
        Some(format!("subscriber {index} ({kind:?}) is at {places:?}, cursor {}", self.cursor))
    }

    /// Connects, and reads until it is time to leave.
    async fn visit(&mut self) -> Left {
        self.visits += 1;
        self.run.counts.visits.fetch_add(1, Relaxed);
        match self.kind {
            Kind::Stream | Kind::TwoChannels | Kind::LongPoll | Kind::Closed => {
                self.read_source().await
            }
            Kind::Reset | Kind::HalfClosed | Kind::Slow => match self.read_rudely().await {
                Some(left) => left,
                None => Left::For(self.up_to(1_500)),
            },
            Kind::WebSocket | Kind::ClosedWebSocket => match self.read_socket().await {
                Some(left) => left,
                None => Left::For(self.up_to(1_500)),
            },
        }
    }

    fn up_to(&mut self, ms: u64) -> Duration {
        Duration::from_millis(self.random.below(ms) + 1)
    }

    /// The origin of the next visit. Every visit may be to another one.
    fn server(&mut self) -> SocketAddr {
        // Each kind of subscriber, and each channel, is at both origins.
        self.run.addresses[(self.index / 3 + self.visits) % self.run.addresses.len()]
    }

    fn path(&self) -> String {
        let names: Vec<String> = self.channels.iter().map(|one| channel_name(*one)).collect();
        let query = match self.kind {
            Kind::TwoChannels => "?format=json",
            Kind::LongPoll => "?mode=hold",
            _ => "",
        };
        format!("/channels/{}{query}", names.join(","))
    }

    /// Ends a visit of a subscriber that is always connected only when the run is over.
    fn end_of_visit(&mut self) -> Instant {
        let stays = matches!(self.kind, Kind::Stream | Kind::TwoChannels | Kind::WebSocket);
        let stays = stays || self.kind == Kind::LongPoll;
        match stays {
            true => Instant::now() + Duration::from_secs(24 * 60 * 60),
            false => Instant::now() + Duration::from_secs(1) + self.up_to(10_000),
        }
    }

    /// Reads with a client that behaves like a browser.
    async fn read_source(&mut self) -> Left {
        let address = format!("http://{}", self.server()).parse().expect("an address");
        let mut source = EventSource::new(address, self.path(), Some(&self.cursor));
        let (end, mut last) = (self.end_of_visit(), self.run.last.subscribe());
        loop {
            if self.is_finished() {
                return Left::Finished;
            }
            let signal = tokio::select! {
                signal = source.next() => signal,
                () = sleep_until(end) => break,
                Ok(()) = last.changed() => continue,
            };
            match signal {
                Signal::Message(message) => self.message(&message),
                Signal::Opened => drop(self.run.counts.responses.fetch_add(1, Relaxed)),
                Signal::Reconnecting { .. } => {}
                Signal::Closed { status, why } => {
                    self.run.fail(format!("a stream ended for ever: {status:?} {why}"));
                    return Left::Finished;
                }
            }
        }
        if self.run.has(Planted::Leak) {
            // The subscriber leaves, and its connection stays open and is read.
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        _ = source.next() => {}
                        _ = last.wait_for(Option::is_some) => return,
                    }
                }
            });
        }
        Left::For(self.up_to(5_000))
    }

    /// Reads with a client that resets or half-closes its connection, or reads slowly. Returns `None`
    /// when there is no connection any more.
    async fn read_rudely(&mut self) -> Option<Left> {
        let (server, path) = (self.server(), self.path());
        let opened = timeout(OPENING_TIME_MAX, Rude::open(server, &path, &self.cursor, self.kind));
        let mut stream = opened.await.ok()??;
        self.run.counts.responses.fetch_add(1, Relaxed);
        let (mut end, mut last) = (self.end_of_visit(), self.run.last.subscribe());
        let mut is_half_closed = false;
        loop {
            if self.is_finished() {
                return Some(Left::Finished);
            }
            let block = tokio::select! {
                block = stream.events.next() => block?.ok()?,
                () = sleep_until(end) => match self.kind {
                    Kind::HalfClosed if !is_half_closed => {
                        is_half_closed = true;
                        stream.socket.shutdown(Shutdown::Write).ok()?;
                        end = Instant::now() + HALF_CLOSED;
                        continue;
                    }
                    Kind::Slow => {
                        sleep(self.up_to(12_000)).await;
                        end = self.end_of_visit();
                        continue;
                    }
                    _ => break,
                },
                Ok(()) = last.changed() => continue,
            };
            let has_id = block.id.is_some();
            if let Some(id) = block.id {
                self.cursor = id;
            }
            if let Some(data) = block.data {
                let kind = block.event.unwrap_or_else(|| "message".to_owned());
                let last_event_id = self.cursor.clone();
                self.message(&Message { kind, data, last_event_id, has_id });
            }
        }
        if self.kind == Kind::Reset {
            SockRef::from(&stream.socket).set_linger(Some(Duration::ZERO)).ok()?;
        }
        Some(Left::For(self.up_to(5_000)))
    }

    async fn read_socket(&mut self) -> Option<Left> {
        let server = self.server();
        let mut socket = timeout(OPENING_TIME_MAX, open_socket(server)).await.ok()??;
        self.run.counts.responses.fetch_add(1, Relaxed);
        let name = channel_name(self.channels[0]);
        let subscribe = json!({ "type": "subscribe", "channels": [name], "after": self.cursor });
        socket.send(Frame::text(subscribe.to_string())).await.ok()?;
        let (end, mut last) = (self.end_of_visit(), self.run.last.subscribe());
        loop {
            if self.is_finished() {
                return Some(Left::Finished);
            }
            let frame = tokio::select! {
                frame = socket.next() => frame?.ok()?,
                () = sleep_until(end) => break,
                Ok(()) = last.changed() => continue,
            };
            match frame {
                // A subscription that is refused for now, such as while Redis is away, counts as shed.
                Frame::Text(text) if text.contains("\"retry_after\":") => {
                    self.run.counts.shed.fetch_add(1, Relaxed);
                    break;
                }
                Frame::Text(text) => self.frame(&text),
                Frame::Close(_) => return None,
                _ => {}
            }
        }
        // Half of these clients close the WebSocket as the protocol says, the others disconnect.
        if self.visits.is_multiple_of(2) {
            timeout(OPENING_TIME_MAX, socket.close(None)).await.ok()?.ok()?;
        }
        Some(Left::For(self.up_to(5_000)))
    }

    /// Takes an SSE event.
    fn message(&mut self, message: &Message) {
        self.cursor.clone_from(&message.last_event_id);
        match &*message.kind {
            "message" if self.kind == Kind::TwoChannels => self.frame(&message.data),
            "message" => self.event(&message.last_event_id, &message.data),
            "gap" => {
                let gap = serde_json::from_str(&message.data).unwrap_or_default();
                self.gap(&gap);
            }
            "shed" => drop(self.run.counts.shed.fetch_add(1, Relaxed)),
            "segment" => {}
            _ => self.run.fail(format!("unexpected: {message:?}")),
        }
    }

    /// Takes an event as JSON, or another message of a WebSocket.
    fn frame(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        match frame["type"].as_str() {
            Some("event") => {
                let member = |name: &str| frame[name].as_str().unwrap_or_default();
                if self.kind != Kind::TwoChannels {
                    member("id").clone_into(&mut self.cursor);
                }
                self.event(member("id"), member("data"));
            }
            Some("gap") => self.gap(&frame),
            Some("ack") => {
                frame["cursor"].as_str().unwrap_or_default().clone_into(&mut self.cursor);
            }
            _ => self.run.fail(format!("unexpected: {text}")),
        }
    }

    fn event(&mut self, id: &str, data: &str) {
        self.received += 1;
        self.run.counts.events.fetch_add(1, Relaxed);
        if self.run.has(Planted::Loss) && self.index == 0 && self.received == LOST {
            return;
        }
        let before = self.ledger.places();
        if let Err(fault) = self.ledger.event(id, data) {
            let head = data.get(..data.len().min(20)).unwrap_or_default();
            let text = format!(
                "subscriber {} ({:?}) after {before:?} received {head:?} with the id {id}",
                self.index, self.kind
            );
            self.run.fault(fault, text);
        }
    }

    fn gap(&mut self, gap: &Value) {
        let of = |channel: &usize| Some(&*channel_name(*channel)) == gap["channel"].as_str();
        match self.channels.iter().copied().find(of) {
            Some(channel) => self.ledger.gap(channel),
            None => self.run.fault(Fault::Foreign, gap.to_string()),
        }
        self.run.gap(gap);
    }

    fn is_finished(&self) -> bool {
        self.run.last.borrow().as_ref().is_some_and(|last| self.ledger.has_all(last))
    }
}

/// A response to a client that also has the socket of its connection.
struct Rude {
    events: SseStream<Incoming>,
    socket: std::net::TcpStream,
    driver: AbortHandle,
}

impl Rude {
    async fn open(server: SocketAddr, path: &str, cursor: &str, kind: Kind) -> Option<Self> {
        let socket = TcpSocket::new_v4().ok()?;
        if kind == Kind::Slow {
            socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).ok()?;
        }
        let stream = socket.connect(server).await.ok()?.into_std().ok()?;
        let socket = stream.try_clone().ok()?;
        let stream = TokioIo::new(TcpStream::from_std(stream).ok()?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.ok()?;
        let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
        let driver = driver.abort_handle();
        let request = Request::get(path).header("host", server.to_string());
        let request = request.header("last-event-id", cursor).body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.expect("a request")).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let events = SseStream::new(answer.into_body());
        Some(Self { events, socket, driver })
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn open_socket(server: SocketAddr) -> Option<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(server).await.ok()?;
    // With the library's 128 KiB each, thousands of them would take a gigabyte.
    let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
    let url = format!("ws://{server}/ws");
    let opened = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await;
    Some(opened.ok()?.0)
}
