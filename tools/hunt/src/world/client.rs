//! A client with the rules of a native `EventSource`, on a connection that may break at any byte.

use super::World;
use super::cache::{Body, Head, Upstream};
use crate::checker::Ledger;
use crate::random::Random;
use crate::sse::{Message, Parser};
use headwater::core::cursor::Cursor;
use headwater::core::event::ChannelName;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The most requests in a row that bring nothing new, within `LOOP_MS`.
const USELESS_MAX: usize = 25;
const LOOP_MS: u64 = 10_000;

/// A browser engine: how long it waits before it reconnects, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    pub name: &'static str,
    /// Before the server has sent a `retry:`.
    first_retry_ms: u64,
    least_retry_ms: u64,
}

/// The three engines.
pub const ENGINES: [Engine; 3] = [
    Engine { name: "Chromium", first_retry_ms: 3_000, least_retry_ms: 0 },
    Engine { name: "Firefox", first_retry_ms: 5_000, least_retry_ms: 500 },
    Engine { name: "WebKit", first_retry_ms: 3_000, least_retry_ms: 0 },
];

/// What a client does.
#[derive(Clone)]
pub struct Plan {
    pub number: u64,
    pub engine: Engine,
    pub names: Vec<ChannelName>,
    pub is_json: bool,
    pub is_long_poll: bool,
    /// The start that the client requests.
    pub first: &'static str,
    pub upstream: Upstream,
    /// Its connections break once in this many responses. 0: never.
    pub breaks: u64,
    pub starts_at: u64,
    /// The client reads over a WebSocket, straight from an origin.
    pub is_websocket: bool,
}

/// A client that runs.
pub struct Client {
    world: Arc<World>,
    plan: Plan,
    random: Random,
    ledger: Ledger,
    last_event_id: String,
    retry_ms: u64,
    useless: Vec<u64>,
}

/// Why a client stops.
pub type Stopped = Result<(), String>;

impl Client {
    pub fn new(world: Arc<World>, plan: Plan, seed: u64) -> Self {
        let ledger = Ledger::new(world.redis.clone(), &plan.names, plan.is_json);
        let random = Random::of(seed, "client", plan.number);
        let retry_ms = plan.engine.first_retry_ms;
        let last_event_id = String::new();
        Self { world, plan, random, ledger, last_event_id, retry_ms, useless: Vec::new() }
    }

    /// Runs until the world is over, and then checks that nothing is missing.
    pub async fn run(mut self) {
        self.world.time.sleep(self.plan.starts_at).await;
        let world = self.world.clone();
        let broken = tokio::select! {
            biased;
            stopped = self.request_again() => stopped.err(),
            () = world.over() => None,
        };
        let broken = broken.or_else(|| self.ledger.finish().err());
        if let Some(why) = broken {
            let (number, engine) = (self.plan.number, self.plan.engine.name);
            self.world.find(format!("client {number} ({engine}): {why}"));
        }
    }

    async fn request_again(&mut self) -> Stopped {
        loop {
            self.ledger.has_news = false;
            let asked = self.last_event_id.clone();
            self.request().await?;
            self.ledger.response_ends()?;
            check_mark(&asked, &self.last_event_id)?;
            self.note_use()?;
            if self.ledger.is_ended() {
                return Ok(());
            }
            let wait = self.retry_ms.max(self.plan.engine.least_retry_ms);
            self.world.time.sleep(wait).await;
        }
    }

    /// Fails when responses that bring nothing follow each other without a pause.
    fn note_use(&mut self) -> Stopped {
        if self.ledger.has_news {
            self.useless.clear();
            return Ok(());
        }
        let now = self.world.time.passed_ms();
        self.useless.push(now);
        self.useless.retain(|at| at + LOOP_MS > now);
        match self.useless.len() > USELESS_MAX {
            true => Err(format!(
                "{} responses in a row bring nothing new, in {LOOP_MS} ms",
                self.useless.len()
            )),
            false => Ok(()),
        }
    }

    fn path(&self) -> String {
        let names: Vec<&str> = self.plan.names.iter().map(ChannelName::as_str).collect();
        let mut query = Vec::new();
        if self.plan.is_json {
            query.push("format=json");
        }
        if self.plan.is_long_poll {
            query.push("mode=hold");
        }
        if !self.plan.first.is_empty() {
            query.push(self.plan.first);
        }
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/channels/{}{mark}{}", names.join(","), query.join("&"))
    }

    /// Sends a request and reads the response.
    async fn request(&mut self) -> Result<(), String> {
        let (world, number, path) = (self.world.clone(), self.plan.number, self.path());
        let cursor = self.last_event_id.clone();
        let upstream = self.plan.upstream.clone();
        world.say(format!("client {number} requests {path} after {cursor:?}"));
        let Some((head, body)) = upstream.get(&world, &mut self.random, &path, &cursor).await
        else {
            world.say(format!("client {number} reaches no origin"));
            // Only responses count as a loop: browsers wait longer and longer where they reach
            // nothing.
            self.ledger.has_news = true;
            return Ok(());
        };
        match head.status {
            200 if head.content_type.starts_with("text/event-stream") => {}
            204 if self.ledger.is_ended() => return Ok(()),
            status => {
                let kind = &head.content_type;
                return Err(format!(
                    "the answer {status} ({kind:?}) ends the EventSource for good"
                ));
            }
        }
        self.read(head, body).await
    }

    async fn read(&mut self, head: Head, mut body: Body) -> Result<(), String> {
        let begun = self.world.redis.now();
        let is_calm = self.world.is_calm.load(Ordering::Relaxed);
        let breaks = if is_calm { 0 } else { self.plan.breaks };
        let mut left = match breaks > 0 && self.random.one_in(breaks) {
            true => self.random.choose(&[10, 80, 150, 300, 1_000, 4_000]) as usize,
            false => usize::MAX,
        };
        if left != usize::MAX {
            left += self.random.index(90);
        }
        let mut parser = Parser::default();
        let number = self.plan.number;
        loop {
            let bytes = match body.next().await {
                Some(Ok(bytes)) => bytes,
                Some(Err(())) => {
                    self.world.say(format!("client {number}: the response is aborted"));
                    return Ok(());
                }
                None => {
                    self.world.say(format!("client {number}: the response ends"));
                    return Ok(());
                }
            };
            let part = &bytes[..bytes.len().min(left)];
            left -= part.len();
            let messages = parser.take(part)?;
            self.retry_ms = parser.retry.unwrap_or(self.retry_ms);
            for message in messages {
                self.take(&message, &head, begun)?;
            }
            if left == 0 {
                self.world.say(format!("client {number}: the connection breaks"));
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: &Message, head: &Head, begun: u64) -> Stopped {
        let id = message.id.clone().unwrap_or_default();
        let kind = if message.kind.is_empty() { "event" } else { &message.kind };
        let number = self.plan.number;
        self.world.say(format!("client {number} receives {kind} {id}  {:.60}", message.data));
        if let Some(id) = &message.id {
            self.last_event_id.clone_from(id);
        }
        let event = self.ledger.take(message)?;
        if let (Some(event), Some(origin), Upstream::Origins) =
            (event, head.origin, &self.plan.upstream)
            && !self.plan.is_long_poll
        {
            self.world.check_wait(&event, origin, begun)?;
        }
        Ok(())
    }
}

/// Fails when a response ends with the positions of its request, and its mark is not later. A cache
/// could then lead clients in a circle.
fn check_mark(asked: &str, last: &str) -> Stopped {
    let (Ok(before), Ok(after)) = (Cursor::parse(asked), Cursor::parse(last)) else {
        return Ok(());
    };
    // A response whose connection breaks may change nothing.
    let went_on = before.positions != after.positions || asked == last;
    match (before.mark, after.mark) {
        (Some(before), Some(after)) if !went_on && after <= before => Err(format!(
            "a response to {asked:?} ends with {last:?}: the mark goes back without an event"
        )),
        _ => Ok(()),
    }
}
