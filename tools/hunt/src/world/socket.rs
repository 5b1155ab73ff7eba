//! A client that reads over a WebSocket of an origin. No cache is between them, and one connection
//! carries several channels, each with a cursor of its own.

use super::World;
use super::client::{Plan, Stopped};
use super::origin::Origin;
use crate::checker::Ledger;
use crate::random::Random;
use crate::sse::Message;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use headwater::core::event::ChannelName;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A client that runs.
pub struct SocketClient {
    world: Arc<World>,
    plan: Plan,
    random: Random,
    channels: Vec<Subscription>,
}

/// One channel of the client.
struct Subscription {
    name: ChannelName,
    ledger: Ledger,
    /// The cursor after which the client subscribes again.
    after: Option<String>,
    /// The `ack` with the cursor of the subscription has not come yet.
    is_beginning: bool,
    /// The `gap` that has come before that `ack`.
    gap: Option<String>,
    /// Whether events of a state have come before that `ack`.
    has_state: bool,
    /// When that `ack` came, in ms.
    begun: u64,
}

impl SocketClient {
    pub fn new(world: Arc<World>, plan: Plan, seed: u64) -> Self {
        let subscription = |name: &ChannelName| Subscription {
            name: name.clone(),
            ledger: Ledger::new(world.redis.clone(), std::slice::from_ref(name), true),
            after: None,
            is_beginning: false,
            gap: None,
            has_state: false,
            begun: 0,
        };
        let channels = plan.names.iter().map(subscription).collect();
        let random = Random::of(seed, "client", plan.number);
        Self { world, plan, random, channels }
    }

    /// Runs until the world is over, and then checks that nothing is missing.
    pub async fn run(mut self) {
        self.world.time.sleep(self.plan.starts_at).await;
        let world = self.world.clone();
        let broken = tokio::select! {
            biased;
            stopped = self.connect_again() => stopped.err(),
            () = world.over() => None,
        };
        let missing = || self.channels.iter().find_map(|channel| channel.ledger.finish().err());
        if let Some(why) = broken.or_else(missing) {
            self.world.find(format!("client {} (WebSocket): {why}", self.plan.number));
        }
    }

    async fn connect_again(&mut self) -> Stopped {
        loop {
            match self.world.any_origin(&mut self.random) {
                Some(origin) => self.visit(&origin).await?,
                None => self.say("reaches no origin"),
            }
            for channel in &mut self.channels {
                channel.ledger.response_ends()?;
            }
            let pause = self.random.range(100..2_000);
            self.world.time.sleep(pause).await;
        }
    }

    fn say(&self, what: &str) {
        self.world.say(format!("client {}: {what}", self.plan.number));
    }

    /// Subscribes to the channels over a new connection, and reads until it ends.
    async fn visit(&mut self, origin: &Origin) -> Stopped {
        self.say(&format!("opens a WebSocket to origin {}", origin.number));
        let Some(mut socket) = open(origin).await else { return Ok(()) };
        for channel in &mut self.channels {
            channel.begins()?;
            if socket.send(Frame::text(channel.subscribe())).await.is_err() {
                return Ok(());
            }
        }
        let is_calm = self.world.is_calm.load(Ordering::Relaxed);
        let breaks = if is_calm { 0 } else { self.plan.breaks };
        let is_cut = breaks > 0 && self.random.one_in(breaks);
        let mut left = if is_cut { 1 + self.random.index(20) } else { usize::MAX };
        while left > 0 {
            match socket.next().await {
                Some(Ok(Frame::Text(text))) if !self.take(&text, origin)? => break,
                Some(Ok(Frame::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => left -= 1,
            }
        }
        self.say("the WebSocket ends");
        Ok(())
    }

    /// Takes a message. Returns `false` if the origin has refused a subscription.
    fn take(&mut self, text: &str, origin: &Origin) -> Result<bool, String> {
        self.say(&format!("receives {text:.90}"));
        let frame: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let kind = frame["type"].as_str().unwrap_or_default();
        if kind == "error" {
            return Ok(false);
        }
        let named = |channel: &&mut Subscription| frame["channel"] == channel.name.as_str();
        let channel = self.channels.iter_mut().find(named);
        let channel = channel.ok_or(format!("{text:?} is for no channel of the client"))?;
        let begun = channel.begun;
        let event = match kind {
            "ack" => channel.acknowledged(frame["cursor"].as_str(), self.world.redis.now())?,
            "event" => channel.take("", text, frame["id"].as_str())?,
            "gap" if frame["id"].is_null() => channel.begins_with_gap(text)?,
            "gap" | "end" => channel.take(kind, text, frame["id"].as_str())?,
            _ => return Err(format!("{text:?} is not a message that the client expects")),
        };
        if let Some(event) = event {
            self.world.check_wait(&event, origin.number, begun)?;
        }
        Ok(true)
    }
}

type Taken = Result<Option<(ChannelName, headwater::core::cursor::EventId)>, String>;

impl Subscription {
    fn subscribe(&self) -> String {
        let mut subscribe = json!({ "type": "subscribe", "channels": [self.name.as_str()] });
        if let Some(after) = &self.after {
            subscribe["after"] = after.as_str().into();
        }
        subscribe.to_string()
    }

    /// Gaps and a state may follow, and then the `ack`.
    fn begins(&mut self) -> Stopped {
        (self.is_beginning, self.gap, self.has_state) = (true, None, false);
        self.ledger.take(&message("segment", "{}", None)).map(drop)
    }

    /// The events after a cursor follow. A stream has the same cursor in its last `gap`, or at the
    /// end of its state.
    fn acknowledged(&mut self, cursor: Option<&str>, now: u64) -> Taken {
        let data = if self.is_beginning { "{\"state\":true}" } else { "{}" };
        (self.is_beginning, self.begun) = (false, now);
        match self.gap.take() {
            Some(gap) if !self.has_state => return self.take("gap", &gap, cursor),
            Some(gap) => drop(self.ledger.take(&message("gap", &gap, None))?),
            None => {}
        }
        self.take("segment", data, cursor)
    }

    /// Takes a `gap` before an `ack`. The origin subscribes a client that was too slow again by itself.
    fn begins_with_gap(&mut self, gap: &str) -> Taken {
        if !self.is_beginning {
            self.begins()?;
        }
        self.gap = Some(gap.to_owned());
        Ok(None)
    }

    fn take(&mut self, kind: &str, data: &str, id: Option<&str>) -> Taken {
        self.has_state |= self.is_beginning && kind.is_empty();
        self.after = id.map(str::to_owned).or(self.after.take());
        self.ledger.take(&message(kind, data, id))
    }
}

fn message(kind: &str, data: &str, id: Option<&str>) -> Message {
    Message { kind: kind.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
}

/// Opens a WebSocket. Returns `None` if the origin refuses the handshake or does not answer it.
async fn open(origin: &Origin) -> Option<Socket> {
    let pipe = TokioIo::new(origin.connect());
    let (mut sender, connection) = http1::handshake(pipe).await.ok()?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get("/ws")
        .header(HOST, "world")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    let upgraded = hyper::upgrade::on(response).await.ok()?;
    Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}
