//! The session of one WebSocket after its handshake.
//!
//! One loop does one thing at a time: it handles a message, sends events, or sends a ping. The loop
//! waits while a slow client does not read, so nothing is queued for it; a client that reads
//! nothing for `--write-timeout` is disconnected. The loop reads no event while a publish of its
//! client is being stored. It therefore knows the id of an event that must not be echoed (`"echo":
//! false`) before it reads that event.

use super::subscription::{Subscription, Subscriptions};
use super::wire::{Wire, close, failed, wire};
use super::{AppState, CloseReason, Handshake, Problem, may};
use crate::access::scope::Right;
use crate::core::event::ChannelName;
use crate::core::resume::ResumeFrom;
use crate::core::sse;
use crate::http::HttpConfig;
use crate::http::access::EXPIRED;
use crate::http::probe;
use crate::http::publish::check_quotas;
use crate::http::websocket::frame::{self, ClientMessage, Frame, Publish, Reference};
use crate::hub::reader::{ReadFailure, Step};
use crate::hub::{Join, Joined};
use crate::store::{Idempotency, Publication};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::select;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::upgrade::Upgraded;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WireFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The longest frame of a message with an event, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;
/// The number of unanswered pings after which a client counts as disconnected.
const UNANSWERED_PINGS_MAX: u32 = 2;
/// Seconds after which a client may connect again when the store does not answer.
const RETRY_STORE_S: u64 = 5;

/// A WebSocket that is being served.
pub struct Session {
    origin: Arc<AppState>,
    /// The settings at the handshake, which stay in force when they are read again.
    config: Arc<HttpConfig>,
    handshake: Arc<Handshake>,
    wire: Wire,
    subscriptions: Subscriptions,
    /// One permit, so that only one subscription at a time reads a page of old events.
    turn: Arc<Semaphore>,
    frames: DefaultDirectRateLimiter,
    /// Whether a message was taken first the last time, and not a step of a subscription.
    is_turn_of_client: bool,
    unanswered_pings: u32,
}

/// How a session ends.
enum End {
    /// The origin closes the connection with this reason.
    Close(CloseReason),
    /// The client has closed the connection, or is disconnected.
    Gone,
}

enum Due {
    Message(Option<Result<Message, Error>>),
    Step(usize, Result<Step, ReadFailure>),
    Ping,
    Drain,
    Expired,
}

impl Session {
    /// Creates a session for a connection after its handshake.
    pub async fn new(origin: Arc<AppState>, upgraded: Upgraded, handshake: Arc<Handshake>) -> Self {
        let config = origin.config();
        let wire = wire(upgraded, &config.websocket, handshake.credit.clone()).await;
        let frames = RateLimiter::direct(Quota::per_second(config.websocket.frames_per_second));
        let subscriptions = Subscriptions::default();
        Self {
            origin,
            config,
            handshake,
            wire,
            subscriptions,
            turn: Arc::new(Semaphore::new(1)),
            frames,
            is_turn_of_client: false,
            unanswered_pings: 0,
        }
    }

    /// Serves the client until one side ends the session, or until `draining` completes. Returns
    /// the connection, and the code with which the origin has closed it.
    pub async fn run(mut self, draining: impl Future<Output = ()>) -> (Wire, Option<u16>) {
        let origin = self.origin.clone();
        let metrics = origin.hub.metrics();
        metrics.websockets_open.inc();
        let end = match &self.handshake.close_reason {
            Some(close_reason) => End::Close(close_reason.clone()),
            None => self.serve(draining).await,
        };
        metrics.websockets_open.dec();
        let close_reason = match end {
            End::Close(close_reason) => Some(close_reason),
            End::Gone => None,
        };
        let code = close_reason.as_ref().map(|close_reason| close_reason.code.into());
        metrics.websocket_closed(code);
        if let Some(close_reason) = close_reason {
            close(&mut self.wire, close_reason).await;
        }
        (self.wire, code)
    }

    async fn serve(&mut self, draining: impl Future<Output = ()>) -> End {
        let mut draining = pin!(draining);
        let mut expired = pin!(self.expiry());
        let every = self.config.websocket.ping;
        let mut pings = interval_at(tokio::time::Instant::now() + every, every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The order is fixed, and not left to chance, so that a seed of the simulated world is
            // always the same schedule.
            let due = tokio::select! {
                biased;
                () = &mut draining => Due::Drain,
                () = &mut expired => Due::Expired,
                _ = pings.tick() => Due::Ping,
                due = self.message_or_step() => due,
            };
            if let Err(end) = self.take(due).await {
                return end;
            }
        }
    }

    /// Waits for a message of the client or a step of a subscription. The two take turns when both
    /// are ready, so that neither a busy client nor a busy channel delays the other one for long.
    async fn message_or_step(&mut self) -> Due {
        self.is_turn_of_client = !self.is_turn_of_client;
        let is_client_first = self.is_turn_of_client;
        let may_send_more = !self.subscriptions.must_catch_up();
        let message = pin!(async {
            match may_send_more {
                true => Due::Message(self.wire.next().await),
                false => pending().await,
            }
        });
        let step = pin!(async {
            let (index, step) = self.subscriptions.next().await;
            Due::Step(index, step)
        });
        match is_client_first {
            true => select(message, step).await.factor_first().0,
            false => select(step, message).await.factor_first().0,
        }
    }

    /// Completes when the token of the client expires.
    fn expiry(&self) -> impl Future<Output = ()> + use<> {
        let until = self.handshake.credentials.grant.as_ref().map(|grant| grant.until);
        let left = until.map(|until| until.saturating_sub(self.origin.hub.clock().wall()));
        async move {
            match left {
                Some(left) => sleep(Duration::from_millis(left)).await,
                None => pending().await,
            }
        }
    }

    async fn take(&mut self, due: Due) -> Result<(), End> {
        match due {
            Due::Message(None) => Err(End::Gone),
            Due::Message(Some(Err(error))) => {
                let close_reason = failed(&error, &self.config.websocket);
                Err(close_reason.map_or(End::Gone, End::Close))
            }
            Due::Message(Some(Ok(message))) => self.on_message(message).await,
            Due::Step(index, step) => self.step(index, step).await,
            Due::Ping => self.ping().await,
            Due::Drain => Err(End::Close(CloseReason::restart())),
            Due::Expired => Err(End::Close(CloseReason::policy(EXPIRED))),
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<(), End> {
        self.unanswered_pings = 0;
        if let Err(until) = self.frames.check() {
            let limit = self.config.websocket.frames_per_second;
            let reason = format!("at most {limit} frames a second (--ws-frame-rate)");
            let wait = until.wait_time_from(DefaultClock::default().now());
            return Err(End::Close(CloseReason::later(&reason, wait.as_secs() + 1)));
        }
        self.origin.hub.metrics().websocket_frames_in.inc();
        match message {
            Message::Text(text) => self.dispatch(&text).await,
            Message::Binary(_) => {
                let reason = "only text frames here, with a JSON object each";
                Err(End::Close(CloseReason::new(CloseCode::Unsupported, reason)))
            }
            // The library answers both; the answer has to be flushed.
            Message::Close(_) | Message::Ping(_) => self.flush().await,
            Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    async fn dispatch(&mut self, text: &str) -> Result<(), End> {
        let Frame { reference, command } = match Frame::parse(text, self.config.event_bytes) {
            Ok(frame) => frame,
            Err(error) => {
                let mut problem = Problem::bad_frame(&error.why);
                if let Some(field) = error.field {
                    problem = Problem::bad_field(field, format!("{field:?} {}", error.why));
                }
                if let Some(limit) = error.limit {
                    problem = problem.with("limit", limit);
                }
                return self.refuse(error.reference.as_ref(), &problem).await;
            }
        };
        let reference = reference.as_ref();
        match command {
            ClientMessage::Ping => self.send(frame::pong(reference)).await,
            ClientMessage::Unsubscribe(channels) => self.unsubscribe(reference, channels).await,
            ClientMessage::Subscribe(wanted) => match self.check_subscribe(&wanted) {
                Err(problem) => self.refuse(reference, &problem).await,
                Ok(()) => self.subscribe(reference, wanted).await,
            },
            ClientMessage::Publish(publish) => match self.publish(*publish).await {
                Ok((ids, repeated)) => self.send(frame::published(reference, ids, repeated)).await,
                Err(problem) => {
                    self.origin.hub.metrics().refused(problem.slug);
                    self.refuse(reference, &problem).await
                }
            },
        }
    }

    /// Checks a whole `subscribe` message. If one channel is refused, all of them are.
    fn check_subscribe(&self, wanted: &[(ChannelName, ResumeFrom)]) -> Result<(), Problem> {
        let limit = self.config.websocket.channels;
        if self.subscriptions.len() + wanted.len() > limit {
            let detail = format!("a socket has at most {limit} channels (--max-ws-channels)");
            return Err(Problem::bad_field("channels", detail).with("limit", limit));
        }
        for (name, _) in wanted {
            if probe::is_fault(std::slice::from_ref(name)) {
                return Err(Problem::unavailable("fault", probe::TAKES_NO_EVENTS, 1));
            }
            may(&self.origin.access, &self.handshake.credentials, Right::Subscribe, name)?;
            if self.subscriptions.find(name).is_some() {
                let detail = format!("{name} is subscribed already; unsubscribe it first");
                return Err(Problem::bad_field("channels", detail));
            }
        }
        Ok(())
    }

    async fn subscribe(
        &mut self,
        reference: Option<&Reference>,
        wanted: Vec<(ChannelName, ResumeFrom)>,
    ) -> Result<(), End> {
        for (name, asked) in wanted {
            match self.origin.hub.join_endless(&name, &asked).await {
                Ok(Join::Stream(joined)) => {
                    let reader = self.begin(reference, &name, *joined).await?;
                    self.subscriptions.add(Subscription::new(name, reader));
                }
                Ok(Join::NothingLeft) => {
                    let cursor = match asked {
                        ResumeFrom::After(cursor) => cursor.to_string(),
                        _ => String::new(),
                    };
                    self.send(frame::subscribed(reference, &name, &cursor)).await?;
                    self.send(frame::end(&name)).await?;
                }
                Err(error) => self.refuse(reference, &Problem::from(error)).await?,
            }
        }
        Ok(())
    }

    /// Sends the gaps, then the state, then the `ack` with the cursor after which events follow.
    async fn begin(
        &mut self,
        reference: Option<&Reference>,
        name: &ChannelName,
        joined: Joined,
    ) -> Result<crate::hub::reader::Reader, End> {
        let Joined { mut reader, prelude, .. } = joined;
        reader.take_turns(self.turn.clone());
        let metrics = self.origin.hub.metrics();
        let mut gaps = Vec::new();
        for gap in &prelude.gaps {
            metrics.gap(gap.reason);
            sse::gap(&mut gaps, gap, None);
        }
        for bytes in std::iter::once(gaps.into()).chain(prelude.state) {
            self.send_events(&bytes).await?;
        }
        self.send(frame::subscribed(reference, name, &prelude.cursor.to_string())).await?;
        Ok(reader)
    }

    async fn unsubscribe(
        &mut self,
        reference: Option<&Reference>,
        channels: Vec<ChannelName>,
    ) -> Result<(), End> {
        if let Some(name) = channels.iter().find(|name| self.subscriptions.find(name).is_none()) {
            let problem = Problem::bad_field("channels", format!("{name} is not subscribed"));
            return self.refuse(reference, &problem).await;
        }
        for name in channels {
            let Some(index) = self.subscriptions.find(&name) else { continue };
            let cursor = self.subscriptions.remove(index).cursor().to_string();
            self.send(frame::unsubscribed(reference, &name, &cursor)).await?;
        }
        Ok(())
    }

    async fn publish(
        &mut self,
        publish: Publish,
    ) -> Result<(crate::core::cursor::EventId, bool), Problem> {
        let Publish { channel, event, echo, idempotency_key } = publish;
        let (origin, credentials) = (&self.origin, &self.handshake.credentials);
        may(&origin.access, credentials, Right::Publish, &channel)?;
        if probe::is_fault(std::slice::from_ref(&channel)) {
            return Err(Problem::not_found(probe::TAKES_NO_EVENTS));
        }
        let subject = credentials.grant.as_ref().map(|grant| grant.subject.as_deref());
        let subject = subject.map(Option::unwrap_or_default);
        origin.publishing.check_rate(&channel, subject, 1)?;
        let idempotency = idempotency_key
            .map(|key| Idempotency::of_event(key, &event))
            .map(|made| made.map(|made| made.of_subject(subject.unwrap_or_default())))
            .transpose()
            .map_err(|why| Problem::bad_field("idempotency_key", why))?;
        check_quotas(origin, &channel, subject, idempotency.is_some()).await?;
        let publication = Publication { channel, events: vec![event], idempotency };
        let channel = publication.channel.clone();
        let published = origin.hub.publish(publication).await?;
        if let (false, Some(index)) = (echo, self.subscriptions.find(&channel)) {
            self.subscriptions.at(index).suppress(&published.ids);
        }
        Ok((published.ids.first().copied().unwrap_or_default(), published.repeated))
    }

    async fn step(&mut self, index: usize, step: Result<Step, ReadFailure>) -> Result<(), End> {
        match step {
            Ok(Step::Events(delivery)) => {
                // Bytes are not counted, because the metric counts the bytes of streams only.
                self.origin.hub.metrics().sent(delivery.events, 0);
                self.send_step(index, &delivery.bytes).await?;
                self.origin.hub.note_sent(self.subscriptions.at(index).reader());
                // A client that has received the `end` may subscribe again at once.
                if self.subscriptions.at(index).is_over() {
                    self.subscriptions.remove(index);
                }
                Ok(())
            }
            Ok(Step::Ended) => {
                self.subscriptions.remove(index);
                Ok(())
            }
            Err(_) => {
                // The subscription joins again at its cursor, like a client after a broken-off
                // stream. Missing events lead to a gap.
                let subscription = self.subscriptions.at(index);
                let (name, asked) =
                    (subscription.channel.clone(), ResumeFrom::After(subscription.cursor()));
                let again = self.origin.hub.join_endless(&name, &asked).await;
                let Ok(Join::Stream(joined)) = again else {
                    return Err(End::Close(CloseReason::later(
                        "the store does not answer",
                        RETRY_STORE_S,
                    )));
                };
                let reader = self.begin(None, &name, *joined).await?;
                self.subscriptions.at(index).replace(reader);
                Ok(())
            }
        }
    }

    /// Sends the events that a subscription has read, without those that must be skipped.
    async fn send_step(&mut self, index: usize, bytes: &Bytes) -> Result<(), End> {
        for block in sse::json_events(bytes) {
            if self.subscriptions.at(index).wants(block.id) {
                self.send_chunks(block.data).await?;
            }
        }
        self.flush().await
    }

    async fn send_events(&mut self, bytes: &Bytes) -> Result<(), End> {
        for block in sse::json_events(bytes) {
            self.send_chunks(block.data).await?;
        }
        self.flush().await
    }

    /// Sends a message in frames of at most [`CHUNK_BYTES`]. The text is shared with the log and
    /// its other readers, so a slow client of a large event holds one frame and no copy of the
    /// event.
    async fn send_chunks(&mut self, mut text: Bytes) -> Result<(), End> {
        let mut kind = Data::Text;
        loop {
            let chunk = text.split_to(text.len().min(CHUNK_BYTES));
            let is_last = text.is_empty();
            let wire = WireFrame::message(chunk, OpCode::Data(kind), is_last);
            self.feed(Message::Frame(wire)).await?;
            if is_last {
                return Ok(());
            }
            kind = Data::Continue;
        }
    }

    async fn refuse(
        &mut self,
        reference: Option<&Reference>,
        problem: &Problem,
    ) -> Result<(), End> {
        self.send(frame::error(reference, problem.value())).await
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        self.feed(Message::text(text)).await?;
        self.flush().await
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.unanswered_pings == UNANSWERED_PINGS_MAX {
            return Err(End::Close(CloseReason::policy("no answer to two pings (--ws-ping)")));
        }
        self.unanswered_pings += 1;
        self.feed(Message::Ping(Bytes::new())).await?;
        self.flush().await
    }

    async fn feed(&mut self, message: Message) -> Result<(), End> {
        let fed = timeout(self.config.write_timeout, self.wire.feed(message)).await;
        if matches!(fed, Ok(Ok(()))) { Ok(()) } else { Err(End::Gone) }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let flushed = timeout(self.config.write_timeout, self.wire.flush()).await;
        if matches!(flushed, Ok(Ok(()))) { Ok(()) } else { Err(End::Gone) }
    }
}
