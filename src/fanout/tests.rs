//! Tests of a group with random sequences of steps: events are appended, sockets block, subscribers
//! join, leave and continue, and the stream ends. Each subscriber must receive exactly the bytes of
//! its stream.
//!
//! The hub, its store and the sockets are real. The test takes the place of the pump and of the
//! clients.

#![cfg(test)]

use super::group::{Group, Joiner, Outcome, Subscribers, WindowLimits};
use super::socket::Socket;
use crate::core::cursor::{Cursor, EventId};
use crate::core::event::{ChannelName, Event};
use crate::core::resume::ResumeFrom;
use crate::core::segment::SegmentClock;
use crate::core::sse::Format;
use crate::hub::event_stream::{CountedStream, EventStream, StreamAccount};
use crate::hub::registry::ChannelRegistry;
use crate::hub::{Hub, Join, Wanted};
use crate::limits::budget::Budget;
use crate::store::local::{Backing, FILE_BYTES, LocalConfig, LocalStore};
use crate::store::{Limits, Publication};
use crate::sync::clock::Clock;
use crate::telemetry::metrics::JoinKind;
use proptest::prelude::*;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

const BUDGET_BYTES: usize = 64 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
enum Step {
    /// Publishes events, each with so many bytes of data.
    Publish(Vec<usize>),
    /// A client joins after so many of the events.
    Join(usize),
    /// The group polls its stream and sends for so many slices.
    Send(usize),
    /// A client reads so many bytes, and its socket becomes writable.
    Read(usize, usize),
    /// The pump lets subscribers leave for another pump.
    MoveAway(usize),
}

struct World {
    hub: Arc<Hub>,
    ids: Vec<EventId>,
    data: Vec<String>,
}

/// A client, and the part of its stream that the pump no longer sends.
struct Client {
    socket: UnixStream,
    received: Vec<u8>,
    /// The number of events before its place.
    first: usize,
    outcome: oneshot::Receiver<Outcome>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop_oneof![0..200usize, 0..20_000usize, Just(150_000usize)];
    let step = prop_oneof![
        3 => proptest::collection::vec(sizes, 1..5).prop_map(Step::Publish),
        2 => any::<usize>().prop_map(Step::Join),
        4 => (1..3usize).prop_map(Step::Send),
        4 => (any::<usize>(), 1..400_000usize).prop_map(|(who, bytes)| Step::Read(who, bytes)),
        1 => (0..3usize).prop_map(Step::MoveAway),
    ];
    proptest::collection::vec(step, 1..40)
}

fn name() -> ChannelName {
    ChannelName::parse("a").unwrap()
}

impl World {
    fn new(length_ms: u64) -> Self {
        let clock = Clock::default();
        let registry = Arc::new(ChannelRegistry::new(clock.clone(), BUDGET_BYTES));
        let config = LocalConfig { timeout: PATIENCE, reserve: 0, file_bytes: FILE_BYTES };
        let limits = Limits::default();
        let store =
            LocalStore::open(Backing::Memory, config, limits, clock.clone(), registry.clone());
        let segments = SegmentClock { length_ms, ..SegmentClock::default() };
        let budget = Budget::new(BUDGET_BYTES, PATIENCE);
        let store = Arc::new(store.unwrap());
        let hub = Hub::new(clock, segments, registry, store, PATIENCE, budget);
        Self { hub: Arc::new(hub), ids: Vec::new(), data: Vec::new() }
    }

    async fn publish(&mut self, bytes: usize) {
        let data = format!("{}-{}", self.data.len(), "x".repeat(bytes));
        let events = vec![Event::stored(None, None, &data)];
        let publication = Publication { channel: name(), events, idempotency: None };
        let published = self.hub.publish(publication).await.unwrap();
        self.ids.extend(published.ids);
        self.data.push(data);
    }

    /// Returns the stream after the first `count` events, without its opening.
    async fn stream(&self, count: usize) -> EventStream {
        let position = count.checked_sub(1).map_or(EventId::START, |last| self.ids[last]);
        let asked = ResumeFrom::After(Cursor { positions: vec![position], mark: None });
        let names = [name()];
        let wanted = Wanted {
            names: &names,
            asked: &asked,
            lane: 0,
            is_endless: false,
            format: Format::Raw,
        };
        let Join::Stream(joined) = self.hub.join(wanted).await.unwrap() else {
            panic!("the channel has not ended")
        };
        EventStream::new(self.hub.clone(), *joined, Duration::from_secs(60), usize::MAX)
    }
}

/// Returns the rest of a stream that a task would send, as text.
async fn rest_of(mut stream: EventStream) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(next) = std::future::poll_fn(|context| stream.poll_next(context)).await {
        out.extend_from_slice(&next.unwrap().bytes);
    }
    out
}

/// Decodes chunks. The end of the last one may be missing.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16);
        let length = length.unwrap();
        let chunk = &bytes[end + 2..];
        out.extend_from_slice(&chunk[..length]);
        assert_eq!(&chunk[length..length + 2], b"\r\n");
        bytes = &chunk[length + 2..];
    }
    assert!(bytes.is_empty(), "a chunk is cut off");
    out
}

/// The data of all events of a text of SSE.
fn data_of(text: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(text).unwrap();
    let events = text.split("\n\n").filter(|event| !event.contains("event: "));
    let data = events.filter_map(|event| event.split_once("\ndata: "));
    data.map(|(_, data)| data.to_owned()).collect()
}

struct Stage {
    limits: WindowLimits,
    world: World,
    group: Group,
    subscribers: Subscribers,
    clients: Vec<Client>,
}

impl Stage {
    async fn new(length_ms: u64) -> Self {
        let mut world = World::new(length_ms);
        world.publish(0).await;
        let mut stream = world.stream(1).await;
        assert!(stream.poll_next(&mut Context::from_waker(Waker::noop())).is_ready());
        let poll = mio::Poll::new().unwrap();
        let subscribers = Subscribers::new(poll.registry().try_clone().unwrap());
        let limits = WindowLimits { slow: 100_000, history: 16 * 1024 };
        let group = Group::new(0, stream);
        Self { limits, world, group, subscribers, clients: Vec::new() }
    }

    async fn play(&mut self, step: Step) {
        match step {
            Step::Publish(sizes) => {
                for bytes in sizes {
                    self.world.publish(bytes).await;
                }
            }
            Step::Join(after) => self.join(after % (self.world.ids.len() + 1)).await,
            Step::Send(slices) => self.send(slices),
            Step::Read(who, bytes) => self.read(who, bytes),
            Step::MoveAway(count) => self.group.move_away(count, &mut self.subscribers),
        }
    }

    /// A client joins after `first` events. Like its task, it first reads what the group no longer
    /// has.
    async fn join(&mut self, first: usize) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut stream = self.world.stream(first).await;
        let mut received = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(next) = stream.poll_next(&mut context) {
            let bytes = next.unwrap().unwrap().bytes;
            received.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
            received.extend_from_slice(&bytes);
            received.extend_from_slice(b"\r\n");
        }
        let _more = self.group.poll(&mut context);
        let outcome = self.join_with(near, stream);
        self.clients.push(Client { socket: far, received, first, outcome });
    }

    fn join_with(&mut self, socket: UnixStream, stream: EventStream) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let account = StreamAccount::open(self.world.hub.clone(), JoinKind::Cursor);
        let stream = Box::new(CountedStream { stream, account });
        let joiner = Joiner { socket: Socket::Unix(socket), stream, reply };
        self.group.join(joiner, &mut self.subscribers);
        outcome
    }

    fn send(&mut self, slices: usize) {
        for _ in 0..slices {
            if self.group.is_between_passes() {
                let _more = self.group.poll(&mut Context::from_waker(Waker::noop()));
            }
            self.group.slice(&mut self.subscribers, self.limits);
        }
    }

    fn read(&mut self, who: usize, bytes: usize) {
        let Some(count) = self.clients.len().checked_sub(1) else { return };
        let client = &mut self.clients[who % (count + 1)];
        client.read(bytes);
        // The pump learns which sockets are writable. Here it tries all.
        for key in self.subscribers.keys() {
            self.group.unblock(key, &mut self.subscribers);
        }
    }

    /// Ends the channel. All clients read to their ends.
    async fn end(mut self) {
        self.world.hub.close(&name()).await.unwrap();
        let begun = std::time::Instant::now();
        while !self.subscribers.is_empty() || self.group.is_open() {
            assert!(begun.elapsed() < PATIENCE, "the group does not end");
            self.send(1);
            self.clients.iter_mut().for_each(|client| client.read(usize::MAX));
            for key in self.subscribers.keys() {
                self.group.unblock(key, &mut self.subscribers);
            }
        }
        for client in self.clients {
            let first = client.first;
            assert_eq!(client.all().await, self.world.data[first..]);
        }
    }
}

impl Client {
    fn read(&mut self, bytes: usize) {
        let mut buffer = vec![0; bytes.min(1 << 20)];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(buffer.len());
            match self.socket.read(&mut buffer[..most]) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    left -= count;
                }
            }
        }
    }

    /// Returns the data of all events that the client has received, also from the task that goes
    /// on for a subscriber that left.
    async fn all(mut self) -> Vec<String> {
        self.read(usize::MAX);
        match self.outcome.await.unwrap() {
            Outcome::Gone => panic!("the client was there"),
            Outcome::Complete(_) => {
                assert!(self.received.ends_with(b"\r\n0\r\n\r\n"), "no last chunk");
                let length = self.received.len() - 5;
                data_of(&unchunked(&self.received[..length]))
            }
            Outcome::Leave(leaver) => {
                self.received.extend_from_slice(&leaver.rest);
                let Some(stream) = leaver.stream else {
                    let length = self.received.len() - 5;
                    return data_of(&unchunked(&self.received[..length]));
                };
                let mut text = unchunked(&self.received);
                text.extend(rest_of(stream).await);
                data_of(&text)
            }
        }
    }
}

/// The place of a stream does not change when its segment ends, so the joiner must not be taken
/// for one that has got the end.
#[tokio::test]
async fn a_group_that_has_ended_takes_no_joiner() {
    let mut stage = Stage::new(1_000).await;
    let hub = stage.world.hub.clone();
    tokio::spawn(async move { hub.run().await });
    let mut stream = stage.world.stream(1).await;
    let mut context = Context::from_waker(Waker::noop());
    while stream.poll_next(&mut context).is_ready() {}
    let begun = std::time::Instant::now();
    while stage.group.is_open() {
        assert!(begun.elapsed() < PATIENCE, "the segment does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let _more = stage.group.poll(&mut context);
    }
    let (near, _far) = UnixStream::pair().unwrap();
    let Outcome::Leave(leaver) = stage.join_with(near, stream).await.unwrap() else {
        panic!("the joiner is refused")
    };
    let rest = String::from_utf8(rest_of(leaver.stream.unwrap()).await).unwrap();
    assert!(rest.contains("event: segment"), "{rest}");
}

/// The group may have read an event that a joiner still has to receive. Then the closing cursor of
/// the group has the mark of the boundary, whatever mark the request of the joiner had.
#[tokio::test]
async fn a_joiner_raises_the_mark_of_its_group_only_while_no_event_follows_its_place() {
    const LENGTH_MS: u64 = 4_000;
    const LATE_MS: u64 = 9_999_999_999_999;
    let closing_text = async |has_event: bool| {
        let mut stage = Stage::new(LENGTH_MS).await;
        let hub = stage.world.hub.clone();
        tokio::spawn(async move { hub.run().await });
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = stage.world.stream(1).await;
        while stream.poll_next(&mut context).is_ready() {}
        stream.raise_least_mark(LATE_MS);
        if has_event {
            stage.world.publish(0).await;
        }
        let _more = stage.group.poll(&mut context);
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut outcome = stage.join_with(near, stream);
        while outcome.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            stage.send(1);
        }
        let mut buffer = vec![0; 4_096];
        let length = far.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    while Clock::default().now() % LENGTH_MS > LENGTH_MS / 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let texts = async { tokio::join!(closing_text(true), closing_text(false)) };
    let (with_event, without) = tokio::time::timeout(3 * PATIENCE, texts).await.unwrap();
    assert_eq!(with_event.matches("\nid: ").count(), 2, "{with_event}");
    let late = format!(".{LATE_MS}\n");
    assert!(!with_event.contains(&late), "{with_event}");
    assert!(without.contains(&late), "{without}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_subscriber_receives_exactly_its_bytes(steps in steps()) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap().block_on(async {
            let mut stage = Stage::new(600_000).await;
            for step in steps {
                stage.play(step).await;
            }
            stage.end().await;
        });
    }
}
