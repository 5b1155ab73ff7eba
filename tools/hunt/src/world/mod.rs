//! The simulator of a world: publishers, origins, a store in Redis, caches and clients, in virtual
//! time. The origins are the real hub, streams and HTTP layer of Headwater.

mod cache;
mod client;
pub mod clock;
mod local;
mod origin;
mod plan;
pub mod redis;
mod socket;

use crate::random::Random;
use crate::run::{Outcome, Run, Simulator};
use client::Client;
use clock::VirtualTime;
use headwater::core::cursor::EventId;
use headwater::core::event::ChannelName;
use local::Machine;
use origin::Origin;
use parking_lot::Mutex;
use plan::{Operation, WorldPlan};
use redis::Redis;
use socket::SocketClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The longest time for which an event may wait at an origin whose client reads, in ms.
const WAIT_MAX_MS: u64 = 200;
/// How long the world is quiet at its end, so that every client can catch up, in ms.
const QUIET_MS: u64 = 50_000;

/// Origins, caches and clients, by seed.
pub struct WorldSimulator;

/// What all parts of a world share.
pub struct World {
    pub time: Arc<VirtualTime>,
    /// The store of all origins, or, where the origin has a log of its own, what that log must have.
    pub redis: Arc<Redis>,
    /// The machine of a single origin with a log of its own.
    pub machine: Option<Machine>,
    pub channels: Vec<ChannelName>,
    pub segment_ms: u64,
    pub segment_bytes: usize,
    origins: Mutex<Vec<Option<Arc<Origin>>>>,
    history: Mutex<Vec<String>>,
    finding: Mutex<Option<String>>,
    found: Notify,
    is_over: tokio::sync::Semaphore,
    /// Whether the faults are over.
    pub is_calm: AtomicBool,
}

impl World {
    fn new(plan: &WorldPlan) -> Self {
        let time = Arc::new(VirtualTime::new());
        Self {
            redis: Arc::new(Redis::new(time.clone(), plan.retain)),
            machine: plan.has_own_log.then(|| Machine::new(plan.retain)),
            channels: plan.channels.clone(),
            time,
            segment_ms: plan.segment_ms,
            segment_bytes: plan.segment_bytes,
            origins: Mutex::default(),
            history: Mutex::default(),
            finding: Mutex::default(),
            found: Notify::new(),
            is_over: tokio::sync::Semaphore::new(0),
            is_calm: AtomicBool::new(false),
        }
    }

    /// Adds a line to the history.
    pub fn say(&self, line: String) {
        let ms = self.time.passed_ms();
        self.history.lock().push(format!("{ms:>7} ms  {line}"));
    }

    /// Notes a broken promise, which ends the run.
    pub fn find(&self, why: String) {
        self.say(why.clone());
        self.finding.lock().get_or_insert(why);
        self.found.notify_one();
    }

    /// Completes when the run is over.
    pub async fn over(&self) {
        drop(self.is_over.acquire().await);
    }

    /// Returns an origin that is reachable.
    pub fn any_origin(&self, random: &mut Random) -> Option<Arc<Origin>> {
        let origins = self.origins.lock();
        let alive: Vec<&Arc<Origin>> =
            origins.iter().flatten().filter(|origin| origin.accepts()).collect();
        alive.get(random.index(alive.len())).map(|origin| Arc::clone(origin))
    }

    /// Starts an origin. It is a finding when its log cannot be used.
    async fn start(self: &Arc<Self>, number: usize, random: &mut Random) -> Option<Arc<Origin>> {
        let started = Origin::start(self, number, random).await;
        started.map_err(|why| self.find(format!("origin {number}: {why}"))).ok()
    }

    /// In half of the crashes of an origin with a log of its own, the power of its disk fails shortly
    /// before.
    async fn begin_power_failure(&self, seed: u64, at: u64) {
        let mut random = Random::of(seed, "power", at);
        if let Some(machine) = self.machine.as_ref().filter(|_| random.one_in(2)) {
            self.say("the power begins to fail".to_owned());
            machine.begin_to_fail(&mut random);
            self.time.sleep(random.range(1..100)).await;
        }
    }

    fn origin(&self, number: usize) -> Option<Arc<Origin>> {
        self.origins.lock().get(number).cloned().flatten()
    }

    /// Returns when an origin received an event, in ms.
    pub fn received_at(&self, origin: usize, event: &(ChannelName, EventId)) -> Option<u64> {
        self.origin(origin)?.feed.received_at(event)
    }

    /// Fails when an event was in the memory of the origin, and was not sent at once to a client
    /// whose response had begun at `begun`, in ms.
    pub fn check_wait(
        &self,
        event: &(ChannelName, EventId),
        origin: usize,
        begun: u64,
    ) -> Result<(), String> {
        let Some(received) = self.received_at(origin, event) else { return Ok(()) };
        let now = self.redis.now();
        let since = received.max(begun);
        if now > since + WAIT_MAX_MS && self.redis.was_well_since(since) {
            let waited = now - since;
            return Err(format!("{} waited {waited} ms at origin {origin}", event.1));
        }
        Ok(())
    }
}

impl Simulator for WorldSimulator {
    fn name(&self) -> &'static str {
        "world"
    }

    fn run(&self, run: &Run) -> Outcome {
        let plan = WorldPlan::of(run);
        headwater::sync::random::simulate(run.seed);
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                let finding = Some(format!("the simulator cannot start: {error}"));
                return Outcome { finding, ..Outcome::default() };
            }
        };
        let world = runtime.block_on(live(run, &plan));
        drop(runtime);
        let mut history = vec![plan.describe()];
        history.append(&mut world.history.lock());
        let finding = world.finding.lock().take();
        Outcome { finding, history, operations: plan.count() }
    }
}

/// Returns a runtime with one thread, whose time passes only when every task waits.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time();
    #[cfg(feature = "plants")]
    builder.start_paused(true);
    builder.build()
}

async fn live(run: &Run, plan: &WorldPlan) -> Arc<World> {
    let world = Arc::new(World::new(plan));
    for number in 0..plan.origins {
        let mut random = Random::of(run.seed, "origin", number as u64);
        let origin = world.start(number, &mut random).await;
        world.origins.lock().push(origin);
    }
    let caches = plan.caches(&world, run.seed);
    let mut tasks = JoinSet::new();
    for client in plan.clients(run, &caches) {
        let world = world.clone();
        match client.is_websocket {
            true => tasks.spawn(SocketClient::new(world, client, run.seed).run()),
            false => tasks.spawn(Client::new(world, client, run.seed).run()),
        };
    }
    tokio::select! {
        biased;
        () = operate(&world, plan, run, &caches) => {}
        () = world.found.notified() => {}
    }
    world.is_over.add_permits(1);
    tokio::select! {
        biased;
        () = async { while tasks.join_next().await.is_some() {} } => {}
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    // The tasks of the origins hold their world, so they are ended here.
    let origins = std::mem::take(&mut *world.origins.lock());
    origins.iter().flatten().for_each(|origin| origin.kill());
    world
}

/// Does the operations at their times, and then waits until all is quiet.
async fn operate(world: &Arc<World>, plan: &WorldPlan, run: &Run, caches: &[Arc<cache::Cache>]) {
    let mut restarts: Vec<(u64, usize)> = Vec::new();
    let mut publishing = JoinSet::new();
    for (at, number, operation) in &plan.operations {
        sleep_until(world, *at, &mut restarts, run).await;
        match operation {
            Operation::Publish(publish) => {
                publishing.spawn(plan::publish(world.clone(), publish.clone(), run.seed, *number));
            }
            Operation::Kill(origin, ms) => {
                world.begin_power_failure(run.seed, *at).await;
                if let Some(killed) = world.origins.lock().get_mut(*origin).and_then(Option::take) {
                    world.say(format!("origin {origin} is killed"));
                    killed.kill();
                    restarts.push((at + ms, *origin));
                }
            }
            Operation::Drain(origin, at_event) => {
                if let Some(drained) = world.origin(*origin) {
                    world.say(format!("origin {origin} drains (at its next event: {at_event})"));
                    drained.drain(*at_event);
                    restarts.push((at + world.segment_ms + 3_000, *origin));
                }
            }
            Operation::Cut(origin, ms) => {
                if let Some(cut) = world.origin(*origin) {
                    world.say(format!("origin {origin} is cut off from Redis for {ms} ms"));
                    cut.cut_link(world.redis.now() + ms);
                }
            }
            Operation::Step(origin, ms) => {
                if let Some(stepped) = world.origin(*origin) {
                    world.say(format!("the clock of origin {origin} is set by {ms} ms"));
                    stepped.time.step(*ms);
                }
            }
            Operation::Pause(ms) => {
                world.say(format!("Redis pauses for {ms} ms"));
                world.redis.pause(*ms);
            }
            Operation::Down(ms) => {
                world.say(format!("Redis cannot be reached for {ms} ms"));
                world.redis.fail(*ms);
            }
            Operation::FailOver(lag) => {
                let lost = world.redis.fail_over(*lag);
                world.say(format!("a failover of Redis loses {lost} events"));
            }
            Operation::Evict => {
                world.say("the caches forget their objects".to_owned());
                caches.iter().for_each(|cache| cache.evict());
            }
            Operation::Abort => {
                world.say("the caches abort their responses".to_owned());
                caches.iter().for_each(|cache| cache.abort());
            }
        }
    }
    world.is_calm.store(true, Ordering::Relaxed);
    let end = plan.operations.last().map_or(0, |(at, ..)| *at) + QUIET_MS;
    sleep_until(world, end, &mut restarts, run).await;
}

/// Waits until an instant (ms), and restarts the origins that are due until then.
async fn sleep_until(world: &Arc<World>, at: u64, restarts: &mut Vec<(u64, usize)>, run: &Run) {
    restarts.sort_unstable();
    while let Some((due, number)) = restarts.first().copied().filter(|(due, _)| *due <= at) {
        restarts.remove(0);
        world.time.sleep(due.saturating_sub(world.time.passed_ms())).await;
        if let Some(old) = world.origins.lock().get_mut(number).and_then(Option::take) {
            old.kill();
        }
        world.say(format!("origin {number} starts"));
        let mut random = Random::of(run.seed, "restart", due);
        if let Some(machine) = &world.machine {
            machine.process_has_ended(&mut Random::of(run.seed, "disk", due));
        }
        let origin = world.start(number, &mut random).await;
        if let Some(place) = world.origins.lock().get_mut(number) {
            *place = origin;
        }
    }
    world.time.sleep(at.saturating_sub(world.time.passed_ms())).await;
}
