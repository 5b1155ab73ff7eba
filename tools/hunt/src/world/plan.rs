//! What a seed decides about a world, before it begins.

use super::World;
use super::cache::{Cache, Manner, Upstream};
use super::client::{ENGINES, Plan};
use crate::random::Random;
use crate::run::Run;
use headwater::core::event::{ChannelName, Event, Field};
use headwater::store::{Idempotency, Publication, StoreError};
use std::sync::Arc;

/// The most clients of a world.
const CLIENTS_MAX: u64 = 14;

/// The parts of a world, and what happens in it.
pub struct WorldPlan {
    pub origins: usize,
    pub segment_ms: u64,
    pub segment_bytes: usize,
    pub retain: usize,
    /// The time (ms), the number and the operation, in the order of time.
    pub operations: Vec<(u64, u64, Operation)>,
    pub channels: Vec<ChannelName>,
    /// Whether the only origin has a log of its own, in place of Redis.
    pub has_own_log: bool,
    edge: Edge,
    clients: u64,
    /// Whether all clients read the same stream of one origin.
    is_one_stream: bool,
    operation_count: u64,
}

/// What stands between the clients and the origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    None,
    /// Two caches beside each other.
    Caches,
    /// Two caches behind a shield.
    Shielded,
}

/// Something that happens.
#[derive(Clone)]
pub enum Operation {
    Publish(Publish),
    /// An origin ends without a warning, and starts again after this time (ms).
    Kill(usize, u64),
    /// An origin drains: at once, or when its next event arrives.
    Drain(usize, bool),
    /// An origin receives nothing from Redis for this time (ms).
    Cut(usize, u64),
    /// The clock of an origin is set (ms).
    Step(usize, i64),
    Pause(u64),
    Down(u64),
    /// The replica, which lacks the last ms, replaces the server.
    FailOver(u64),
    Evict,
    Abort,
}

/// A publish, which is sent again until it is answered.
#[derive(Clone)]
pub struct Publish {
    channel: ChannelName,
    events: Vec<Event>,
}

impl WorldPlan {
    /// Returns the plan of a run.
    pub fn of(run: &Run) -> Self {
        let mut random = Random::of(run.seed, "world plan", 0);
        let channels = ["a", "b", "c"].into_iter().filter_map(|name| ChannelName::parse(name).ok());
        let channels: Vec<ChannelName> = channels.take(1 + random.index(3)).collect();
        let operation_count = random.range(15..90);
        let mut plan = Self {
            origins: 1 + random.index(3),
            segment_ms: random.choose(&[2_000, 4_000, 6_000]),
            segment_bytes: random.choose(&[4_000, 1 << 20, 1 << 20]),
            retain: random.choose(&[20, 60, 1_000]),
            operations: Vec::new(),
            channels,
            has_own_log: false,
            edge: random.choose(&[Edge::None, Edge::Caches, Edge::Caches, Edge::Shielded]),
            clients: random.range(1..CLIENTS_MAX + 1),
            is_one_stream: false,
            operation_count,
        };
        let calm = random.one_in(4);
        plan.is_one_stream = random.one_in(8);
        if plan.is_one_stream {
            (plan.origins, plan.edge, plan.clients) = (1, Edge::None, CLIENTS_MAX);
            plan.channels.truncate(1);
        }
        plan.has_own_log = plan.origins == 1 && Random::of(run.seed, "log", 0).one_in(2);
        for number in (0..operation_count).filter(|number| run.has(*number)) {
            let mut random = Random::of(run.seed, "world operation", number);
            let at = random.below(20_000);
            let operation = plan.operation(number, calm, &mut random);
            plan.operations.push((at, number, plan.of_own_log(operation)));
        }
        plan.operations.sort_by_key(|(at, number, _)| (*at, *number));
        plan
    }

    /// Returns the number of operations that the seed has, with its clients.
    pub fn count(&self) -> u64 {
        self.operation_count + self.clients
    }

    /// Returns the plan as a sentence.
    pub fn describe(&self) -> String {
        let store = if self.has_own_log { " with a log of its own" } else { "" };
        format!(
            "{} origins{store}, segments of {} ms and {} bytes, {} events kept, edge: {:?}",
            self.origins, self.segment_ms, self.segment_bytes, self.retain, self.edge
        )
    }

    fn operation(&self, number: u64, calm: bool, random: &mut Random) -> Operation {
        let origin = random.index(self.origins);
        match random.below(if calm { 80 } else { 100 }) {
            0..80 => Operation::Publish(self.publish(number, random)),
            80..83 => Operation::Kill(origin, random.range(100..4_000)),
            83..87 => Operation::Drain(origin, random.one_in(2)),
            87..90 => Operation::Cut(origin, random.range(50..6_000)),
            90 => Operation::Step(origin, random.choose(&[-3_600_000, -700, 900, 60_000])),
            91..93 => Operation::Pause(random.range(100..5_000)),
            93 => Operation::Down(random.range(100..5_000)),
            94..97 => Operation::FailOver(random.choose(&[0, 50, 500, 3_000])),
            97 => Operation::Evict,
            _ => Operation::Abort,
        }
    }

    /// Where there is no Redis, the origin crashes in place of faults of Redis.
    fn of_own_log(&self, operation: Operation) -> Operation {
        match operation {
            Operation::Cut(origin, ms) if self.has_own_log => Operation::Kill(origin, ms),
            Operation::Pause(ms) | Operation::Down(ms) | Operation::FailOver(ms)
                if self.has_own_log =>
            {
                Operation::Kill(0, ms)
            }
            other => other,
        }
    }

    fn publish(&self, number: u64, random: &mut Random) -> Publish {
        let channel = self.channels[random.index(self.channels.len())].clone();
        // The first channel has a state.
        let is_keyed = channel == self.channels[0];
        let event = |index: u64, random: &mut Random| {
            let key = is_keyed.then(|| format!("key {}", random.below(4)));
            let key = key.and_then(|key| Field::key(&key).ok());
            Event::new(None, key, format!("{number}.{index}"), is_keyed && random.one_in(6))
        };
        let count = random.choose(&[1, 1, 1, 2, 9]);
        let events = (0..count).map(|index| event(index, random)).collect();
        Publish { channel, events }
    }

    /// Returns the caches: those that clients use come first.
    pub fn caches(&self, world: &Arc<World>, seed: u64) -> Vec<Arc<Cache>> {
        let mut random = Random::of(seed, "caches", 0);
        let manner = |number: u64, random: &mut Random| {
            let mut misses = Random::of(seed, "hit-for-miss", number);
            Manner {
                keep_late_ms: random.choose(&[0, 0, 0, 10_000]),
                early_ms: random.choose(&[0, 0, 1_500]),
                holds_back: random.one_in(8),
                unkept_one_in: misses.choose(&[0, 0, 5]),
                hit_for_miss_ms: misses.choose(&[0, 2_000, 30_000]),
            }
        };
        let shield = |random: &mut Random| {
            let inner = Random::of(seed, "shield", 0);
            Cache::new(world.clone(), Upstream::Origins, manner(2, random), inner)
        };
        let cache = |number: u64, upstream: Upstream, random: &mut Random| {
            let inner = Random::of(seed, "cache", number);
            Cache::new(world.clone(), upstream, manner(number, random), inner)
        };
        match self.edge {
            Edge::None => Vec::new(),
            Edge::Caches => (0..2).map(|n| cache(n, Upstream::Origins, &mut random)).collect(),
            Edge::Shielded => {
                let shield = shield(&mut random);
                let edge = |n| cache(n, Upstream::Cache(shield.clone()), &mut random);
                let mut caches: Vec<Arc<Cache>> = (0..2).map(edge).collect();
                caches.push(shield);
                caches
            }
        }
    }

    /// Returns the clients that take part.
    pub fn clients(&self, run: &Run, caches: &[Arc<Cache>]) -> Vec<Plan> {
        let takes_part = |number: &u64| run.has(self.operation_count + number);
        let client = |number: u64| {
            let mut random = Random::of(run.seed, "client plan", number);
            let several = self.channels.len() > 1 && random.one_in(2);
            let names = match several {
                true => self.channels.clone(),
                false => vec![self.channels[random.index(self.channels.len())].clone()],
            };
            let upstream = match caches.get(random.index(caches.len().min(2))) {
                Some(cache) if !random.one_in(4) => Upstream::Cache(cache.clone()),
                _ => Upstream::Origins,
            };
            Plan {
                number,
                engine: random.choose(&ENGINES),
                is_json: several || !self.is_one_stream && random.one_in(2),
                is_long_poll: !self.is_one_stream && random.one_in(5),
                first: random.choose(&["", "", "", "after=0-0", "last=3", "since=-5s"]),
                upstream,
                breaks: if self.is_one_stream { 0 } else { random.choose(&[0, 2, 6]) },
                starts_at: random.choose(if self.is_one_stream { &[0] } else { &[0, 0, 1] })
                    * random.below(15_000),
                names,
                is_websocket: !self.is_one_stream && random.one_in(6),
            }
        };
        (0..self.clients).filter(takes_part).map(client).collect()
    }
}

/// Sends a publish until an origin answers it.
pub async fn publish(world: Arc<World>, publish: Publish, seed: u64, number: u64) {
    let mut random = Random::of(seed, "publisher", number);
    let Publish { channel, events } = publish;
    let key = format!("publish {number}");
    loop {
        let idempotency = Some(Idempotency { key: key.clone(), digest: 0 });
        let publication =
            Publication { channel: channel.clone(), events: events.clone(), idempotency };
        if let Some(origin) = world.any_origin(&mut random) {
            match origin.hub.publish(publication).await {
                Ok(published) => {
                    let ids = published.ids.iter().map(ToString::to_string);
                    let ids = ids.collect::<Vec<_>>().join(" ");
                    return world.say(format!("publish {number} to {channel}: {ids}"));
                }
                Err(StoreError::Closed) => return,
                Err(_) => {}
            }
        }
        world.time.sleep(random.range(20..400)).await;
    }
}
