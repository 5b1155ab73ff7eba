//! The origins of a soak with their store, and the faults that they have meanwhile.

use super::ledger::{Place, event_data};
use crate::kit::Origin;
use crate::kit::redis::{RedisServer, Sentinels, wait_until};
use headwater::core::cursor::EventId;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::time::sleep;

/// Channels with small events. Each subscriber reads one or two of them.
pub const CHANNELS: usize = 8;
/// The channel with large events, which slow readers have.
pub const LARGE: usize = CHANNELS;
/// Events that a channel keeps. It has so many before the first subscriber comes, so that the store
/// has the same size from then on.
pub const RETAINED: u64 = 1_000;
/// Connections that may wait until the origin accepts them, also while none runs.
const BACKLOG: i32 = 4_096;
/// The time for which a process does not answer before it is killed.
const STALL: Duration = Duration::from_millis(300);
/// The time for which it answers again, so that some publishes are stored and not answered.
const AFTER_STALL: Duration = Duration::from_millis(1);
/// Everything that the origin keeps for a time is kept for less than the warm-up takes.
const FLAGS: [&str; 18] = [
    "--segment",
    "10s",
    "--drain",
    "now",
    "--retain-events",
    "1000",
    "--idempotency-age",
    "30s",
    "--live-bytes",
    "2MiB",
    "--idle-timeout",
    "20s",
    "--write-timeout",
    "5s",
    "--log",
    "error",
    "--max-connections",
    "50000",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// One origin, which restarts in the first third of the soak.
    Disk,
    /// One origin, which does not restart.
    Memory,
    /// Two origins on a Redis with a replica and three sentinels. The second origin restarts, and
    /// replicas are promoted, until shortly before the end.
    Redis,
}

pub struct Deployment {
    store: Store,
    /// The first one is measured.
    origins: Vec<Origin>,
    /// They stay open while an origin restarts.
    sockets: Vec<TcpListener>,
    redis: Option<Sentinels>,
    _directory: tempfile::TempDir,
    faults: usize,
}

#[derive(Clone, Copy)]
enum Fault {
    Stop,
    Kill,
    Promote,
}

impl Fault {
    fn describe(self) -> &'static str {
        match self {
            Self::Stop => "an origin was stopped and started again",
            Self::Kill => "an origin was killed and started again",
            Self::Promote => "a replica of Redis was promoted",
        }
    }
}

/// The size of the data of an event, in bytes.
pub fn event_bytes(channel: usize) -> usize {
    if channel == LARGE { 8_000 } else { 200 }
}

pub fn channel_name(channel: usize) -> String {
    format!("soak{channel}")
}

impl Store {
    fn cycle(self) -> &'static [Fault] {
        match self {
            Self::Disk => &[Fault::Stop, Fault::Kill],
            Self::Memory => &[],
            Self::Redis => &[Fault::Stop, Fault::Promote, Fault::Kill, Fault::Promote],
        }
    }

    /// When the faults happen, as times since the beginning.
    pub fn faults(self, length: Duration) -> Vec<Duration> {
        // Sentinels promote no replica within 12 s of the last time; every second fault is one.
        let (pause, least, end) = match self {
            Self::Disk => (length / 15, 7, length / 3),
            Self::Redis => (length / 9, 10, length * 5 / 6),
            Self::Memory => return Vec::new(),
        };
        let pause = pause.clamp(Duration::from_secs(least), Duration::from_secs(60));
        let times = (1..).map(|count| pause * count);
        times.take_while(|at| *at < end).collect()
    }
}

impl Deployment {
    pub fn start(store: Store) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let redis = (store == Store::Redis).then(Sentinels::start);
        let address = match (store, &redis) {
            (_, Some(redis)) => redis.url(),
            (Store::Memory, _) => "memory".to_owned(),
            _ => format!("disk:{}", directory.path().display()),
        };
        // An origin remembers the newest 20,000 publishes of each shard. With one shard their number
        // is constant earlier.
        let of_redis = ["--redis-wait-replicas", "1", "--redis-shards", "1"];
        let of_redis = if redis.is_some() { &of_redis[..] } else { &[] };
        let flags = [&["--store", &*address], &FLAGS[..], of_redis].concat();
        let sockets: Vec<TcpListener> =
            (0..if redis.is_some() { 2 } else { 1 }).map(|_| socket()).collect();
        let origins = sockets.iter().map(|socket| Origin::inheriting(socket, &flags)).collect();
        Self { store, origins, sockets, redis, _directory: directory, faults: 0 }
    }

    /// The origin that is measured.
    pub fn measured(&self) -> &Origin {
        &self.origins[0]
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local_addr().expect("an address")).collect()
    }

    /// Fills each channel, and returns the last event of each.
    pub async fn fill(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for channel in 0..=LARGE {
            let event = |number| event_data(channel, number, event_bytes(channel));
            let line = |number| format!("{{\"data\":\"{}\"}}\n", event(number));
            let mut last = String::new();
            for first in (1..=RETAINED).step_by(100) {
                let lines: String = (first..first + 100).map(line).collect();
                let ids = self.measured().publish_lines(&channel_name(channel), &lines).await;
                last = ids.last().expect("ids").clone();
            }
            places.push((RETAINED, EventId::parse(&last).expect("an id")));
        }
        places
    }

    /// Carries out the next fault, and returns its description.
    pub async fn fail(&mut self) -> &'static str {
        let cycle = self.store.cycle();
        let fault = cycle[self.faults % cycle.len()];
        self.faults += 1;
        let origin = self.origins.last_mut().expect("an origin");
        match (fault, &mut self.redis) {
            (Fault::Promote, Some(redis)) => tokio::task::block_in_place(|| promote(redis)),
            (Fault::Stop, _) => {
                origin.signal("TERM");
                assert!(origin.ended().await.success(), "the origin stops in order");
                tokio::task::block_in_place(|| origin.start_again());
            }
            _ => {
                // Meanwhile publishes arrive, and the process is killed while it answers them.
                origin.signal("STOP");
                sleep(STALL).await;
                origin.signal("CONT");
                sleep(AFTER_STALL).await;
                tokio::task::block_in_place(|| {
                    origin.kill();
                    origin.start_again();
                });
            }
        }
        fault.describe()
    }
}

fn socket() -> TcpListener {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    rustix::net::listen(&socket, BACKLOG).expect("a socket");
    socket
}

/// Kills the master of Redis, waits until its replica is promoted, and starts the former master again
/// as the replica.
fn promote(redis: &mut Sentinels) {
    let is_master = |server: &RedisServer| server.command(&["ROLE"]).starts_with("master");
    if !is_master(&redis.master) {
        std::mem::swap(&mut redis.master, &mut redis.replica);
    }
    redis.fail_over();
    redis.master.start_again();
    redis.master.command(&["REPLICAOF", "127.0.0.1", &redis.replica.port.to_string()]);
    wait_until("the former master follows the new one", || {
        redis.master.command(&["INFO", "replication"]).contains("master_link_status:up")
    });
}
