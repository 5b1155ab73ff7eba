//! Simulates how many requests reach the origin for a number of clients that no test can open. The
//! segments, rejoin ticks and cache lifetimes are computed by the code of the origin. The clients
//! are simulated as arrivals with a time and a cursor, and the caches as maps of responses.
//!
//! `varnish.rs` compares the small case with real clients. docs/caching/README.md has a table of the
//! results, and a test in this module checks it.

use crate::kit::Random;
use headwater::core::caching::Freshness;
use headwater::core::segment::{Arrival, SegmentClock};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A deployment and the behaviour of its clients. Times are in ms.
#[derive(Clone, Copy)]
pub struct Deployment {
    pub clients: u64,
    pub pops: u64,
    pub has_shield: bool,
    pub segment: u64,
    pub rejoin_tick: u64,
    /// How many of a thousand clients disconnect in a minute.
    pub abort: u64,
    /// The shortest and the longest time that a disconnected client waits before it reconnects.
    pub away: (u64, u64),
    /// Events per second.
    pub events: u64,
    pub duration: u64,
}

/// The load of one channel on the origin.
#[derive(Debug, PartialEq, Eq)]
pub struct Load {
    pub requests: u64,
    pub requests_a_segment: u64,
    pub most_open: u64,
}

/// The cache key of a request: how many events the client has, and the mark of its cursor in ms (0:
/// none).
type Key = (u64, u64);

/// A cache's entry for a key: until when it is served, and when its response ends.
#[derive(Clone, Copy)]
struct Kept {
    until: u64,
    ends_at: u64,
}

struct Simulation {
    deployment: Deployment,
    clock: SegmentClock,
    edges: Vec<HashMap<Key, Kept>>,
    shield: HashMap<Key, Kept>,
    requests: u64,
    /// The end times of the responses that the origin has open.
    open: BinaryHeap<Reverse<u64>>,
    most_open: u64,
}

/// Runs the simulation. The first segment begins a whole number of segments after the epoch.
pub fn load(deployment: Deployment) -> Load {
    let clock = SegmentClock {
        length_ms: deployment.segment,
        lanes: 1,
        rejoin_tick_ms: deployment.rejoin_tick,
    };
    let simulation = Simulation {
        deployment,
        clock,
        edges: vec![HashMap::new(); deployment.pops as usize],
        shield: HashMap::new(),
        requests: 0,
        open: BinaryHeap::new(),
        most_open: 0,
    };
    simulation.play()
}

impl Simulation {
    fn play(mut self) -> Load {
        let Deployment { clients, pops, segment, abort, away, duration, .. } = self.deployment;
        // Each arrival has a time, a POP and a cursor.
        let mut arrivals: BinaryHeap<Reverse<(u64, u64, Key)>> = BinaryHeap::new();
        let begun = 1_000 * segment;
        for boundary in (begun..begun + duration).step_by(segment as usize) {
            // All clients reconnect within the time that `retry` and the network take.
            let cursor = (self.events_by(boundary), boundary);
            arrivals.extend((0..pops).map(|pop| Reverse((boundary + 100, pop, cursor))));
        }
        let mut random = Random::new(clients);
        let stragglers = clients * abort * duration / (1_000 * 60_000);
        for _ in 0..stragglers {
            let broke_off = begun + random.below(duration);
            let back = broke_off + away.0 + random.below(away.1 - away.0);
            let cursor = (self.events_by(broke_off), 0);
            arrivals.push(Reverse((back, random.below(pops), cursor)));
        }
        while let Some(Reverse((now, pop, cursor))) = arrivals.pop() {
            if now >= begun + duration {
                continue;
            }
            let ends_at = self.ask_edge(now, pop, cursor);
            // A client whose response ends at a boundary reconnects with all others, which are
            // counted above.
            if !ends_at.is_multiple_of(segment) {
                let cursor = (self.events_by(ends_at), ends_at);
                // A cached response that has ended is served once more, and its client reconnects
                // at once.
                arrivals.push(Reverse((ends_at.max(now) + 100, pop, cursor)));
            }
        }
        let segments = duration / segment;
        let requests_a_segment = self.requests.div_ceil(segments);
        Load { requests: self.requests, requests_a_segment, most_open: self.most_open }
    }

    fn events_by(&self, instant: u64) -> u64 {
        instant * self.deployment.events / 1_000
    }

    /// Requests a stream at an edge cache, and returns when the response ends.
    fn ask_edge(&mut self, now: u64, pop: u64, key: Key) -> u64 {
        if let Some(kept) = self.edges[pop as usize].get(&key).filter(|kept| now < kept.until) {
            return kept.ends_at;
        }
        let kept = self.ask_shield(now, key);
        self.edges[pop as usize].insert(key, kept);
        kept.ends_at
    }

    fn ask_shield(&mut self, now: u64, key: Key) -> Kept {
        if !self.deployment.has_shield {
            return self.ask_origin(now, key);
        }
        if let Some(kept) = self.shield.get(&key).filter(|kept| now < kept.until) {
            return *kept;
        }
        let kept = self.ask_origin(now, key);
        self.shield.insert(key, kept);
        kept
    }

    fn ask_origin(&mut self, now: u64, key: Key) -> Kept {
        let arrival = if key.1 == 0 { Arrival::Straggler } else { Arrival::Marked(key.1) };
        let ends_at = self.clock.span(0, now, arrival).ends_at;
        let value = Freshness::Segment { ends_at }.cache_control(now);
        let max_age = value.split(',').find_map(|part| part.trim().strip_prefix("max-age="));
        let max_age = max_age.and_then(|seconds| seconds.parse::<u64>().ok());
        self.requests += 1;
        while self.open.peek().is_some_and(|Reverse(end)| *end <= now) {
            self.open.pop();
        }
        self.open.push(Reverse(ends_at));
        self.most_open = self.most_open.max(self.open.len() as u64);
        Kept { until: now + 1_000 * max_age.expect("max-age"), ends_at }
    }
}

/// The deployment that docs/caching/README.md describes.
const WORLD: Deployment = Deployment {
    clients: 0,
    pops: 100,
    has_shield: false,
    segment: 30_000,
    rejoin_tick: 1_000,
    abort: 10,
    away: (3_000, 6_000),
    events: 10,
    duration: 300_000,
};

#[test]
fn the_table_of_the_guide_is_what_the_rules_give() {
    let guide = std::fs::read_to_string("docs/caching/README.md").expect("docs/caching/README.md");
    let mut missing = Vec::new();
    for clients in [1_000_000, 10_000_000] {
        for has_shield in [false, true] {
            for rejoin_tick in [0, 1_000] {
                let load = load(Deployment { clients, has_shield, rejoin_tick, ..WORLD });
                let shield = if has_shield { "yes" } else { "no" };
                let tick = if rejoin_tick > 0 { "1s" } else { "0" };
                let row = format!(
                    "| {},000,000 | {shield} | {tick} | {} | {} |",
                    clients / 1_000_000,
                    load.requests_a_segment,
                    load.most_open
                );
                if !guide.contains(&row) {
                    missing.push(row);
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/caching/README.md lacks\n{}", missing.join("\n"));
}

#[test]
fn ten_times_the_clients_behind_a_shield_are_no_more_requests() {
    let shielded = Deployment { has_shield: true, ..WORLD };
    let million = load(Deployment { clients: 1_000_000, ..shielded });
    let ten = load(Deployment { clients: 10_000_000, ..shielded });
    // The number of cursors is bounded by the events, not by the clients.
    assert!(ten.requests < million.requests * 2, "{ten:?} {million:?}");
    // The bound is a stream for each tick of a segment, the stragglers of a tick, and the responses
    // whose ends overlap.
    assert!(ten.most_open <= 30 + 10 * 4 + 10, "{ten:?}");
}
