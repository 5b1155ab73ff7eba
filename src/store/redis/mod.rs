//! The store for several origins: Redis or Valkey, alone, behind Sentinel, or as a cluster.
//!
//! A publish is stored by one call of a script (`publish.lua`), which is atomic on the server. A
//! call can store several publishes of one channel (`together.rs`). The script stores the
//! idempotency key, the events in the log of their channel, the state of their keys, and an entry
//! in the firehose of the shard, which wakes the origins (`tail.rs`). The script refuses a publish
//! that arrives after its deadline, so that no publish is stored after a `503` was sent.
//!
//! All durable data is in Redis. An origin has only buffers and the newest entries of the firehose
//! (`progress.rs`) in memory. All origins end their streams by the clock of Redis.

mod agreement;
mod config;
mod connection;
mod counts;
mod erasure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keys;
mod listing;
mod loss;
mod pages;
mod permissions;
mod progress;
mod publish;
mod reply;
mod scripts;
mod tail;
mod tls;
mod together;

pub use config::RedisConfig;
pub use permissions::{ACL_OF_CLUSTER, ACL_OF_SENTINEL, ACL_RULES};
pub use tls::RedisTls;

use super::fill::FillWatch;
use super::{
    ChannelFilter, ChannelLimits, ChannelSize, EventSink, Page, PageLimit, Publication, Published,
    State, Store, StoreError, StoreFault, StoreFuture, StoreMetrics,
};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::sync::clock::Clock;
use crate::sync::random::random;
use agreement::{Difference, wrong_shards};
use bytes::Bytes;
use connection::{Cause, RedisConnection, Script};
use counts::Counts;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use keys::Keys;
use parking_lot::Mutex;
use progress::Progress;
use reply::{array, id, id_if_any, next, number, text};
use scripts::Scripts;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use together::Calls;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Maximum number of shards. Each shard costs an origin a connection.
pub const SHARDS_MAX: usize = 64;
/// The fraction of `--store-timeout` to wait for Redis, so that an answer can still state the
/// cause.
const READY_PART: f64 = 0.8;
/// The error message when Redis does not answer.
const NO_ANSWER: &str = "no answer in time (--store-timeout)";
/// The clock is corrected only by at least `CLOCK_STEP_MS` (ms), and only by an answer that took
/// less than `CLOCK_ANSWER_TIME_MAX`.
const CLOCK_STEP_MS: i64 = 3;
const CLOCK_ANSWER_TIME_MAX: Duration = Duration::from_millis(50);

/// The store in Redis.
pub struct RedisStore {
    config: RedisConfig,
    keys: Keys,
    limits: Arc<ChannelLimits>,
    clock: Clock,
    sink: Arc<dyn EventSink>,
    connection: RedisConnection,
    scripts: Scripts,
    progress: Vec<Progress>,
    calls: Calls,
    fill: FillWatch,
    counts: Counts,
    /// This store, for tasks of its own.
    own: Weak<Self>,
    runtime: Handle,
    /// Set once a check of the server has succeeded. Nothing is written or followed before that.
    checked: OnceCell<()>,
    difference: Difference,
    /// The clock of Redis minus the clock of this machine, in ms.
    clock_ahead_ms: AtomicI64,
    /// Makes a unique key for each publish without an idempotency key.
    publish_count: AtomicU64,
    run: u64,
    metrics: StoreMetrics,
    followers: Followers,
}

/// The tasks that follow the shards.
#[derive(Default)]
struct Followers {
    tasks: Mutex<JoinSet<()>>,
    /// Notified when one of the tasks has panicked.
    died: Arc<Notify>,
}

/// Reports when its task panics.
struct Watch(Arc<Notify>);

impl RedisStore {
    /// Connects, and follows the log. While Redis is unreachable, the store keeps trying.
    ///
    /// # Errors
    /// Fails when the URL is invalid, or when Redis is reachable and fails the check, for example
    /// because another number of shards is in use.
    pub async fn open(
        config: RedisConfig,
        limits: impl Into<Arc<ChannelLimits>>,
        clock: Clock,
        sink: Arc<dyn EventSink>,
    ) -> Result<Arc<Self>, StoreError> {
        let server = config.server()?;
        let keys = Keys::new(&config.prefix, config.shards);
        let cause = Cause::default();
        let connection = RedisConnection::open(&server, config.timeout, cause.clone())?;
        let store = Arc::new_cyclic(|own| Self {
            connection,
            calls: Calls::default(),
            fill: FillWatch::default(),
            counts: Counts::new(config.shards),
            own: own.clone(),
            runtime: Handle::current(),
            scripts: Scripts::new(),
            progress: (0..config.shards).map(|_| Progress::new()).collect(),
            checked: OnceCell::new(),
            difference: Difference::default(),
            followers: Followers::default(),
            clock_ahead_ms: AtomicI64::new(0),
            publish_count: AtomicU64::new(0),
            run: random(),
            metrics: StoreMetrics::default(),
            config,
            keys,
            limits: limits.into(),
            clock,
            sink,
        });
        match store.connection.connected().await {
            Ok(()) => store.checked().await?,
            // The connection logs the cause.
            Err(_) => tracing::warn!("redis is not there yet; it is tried until it is"),
        }
        for shard in 0..store.keys.shards() {
            let connection = RedisConnection::open(&server, store.config.timeout, cause.clone())?;
            store.followers.spawn(tail::follow(store.clone(), shard, connection));
        }
        // Every shard is followed before `open` returns, so that the sink receives each event
        // from then on. An unreachable Redis only delays that.
        let begun = store.progress.iter().map(|progress| progress.reached(EventId::START));
        let begun = futures_util::future::join_all(begun);
        tokio::time::timeout(store.config.timeout, begun).await.ok();
        Ok(store)
    }

    /// Checks the server until one check has succeeded, because Redis may be down at the start.
    async fn checked(&self) -> Result<(), StoreError> {
        self.checked.get_or_try_init(|| self.check_server()).await.copied()
    }

    /// Waits until Redis is reachable and has passed the check. If that takes until `give_up`, the
    /// call fails with the cause, and nothing was sent.
    async fn reachable(&self, give_up: Instant) -> Result<(), StoreError> {
        let reachable = async {
            self.connection.reachable().await;
            self.checked().await
        };
        let slow = |_| self.connection.down(&Error::new(ErrorKind::Timeout, NO_ANSWER));
        tokio::time::timeout_at(give_up, reachable).await.map_err(slow)?
    }

    /// Checks everything that must be right before the first write.
    async fn check_server(&self) -> Result<(), StoreError> {
        for shard in 0..self.keys.shards() {
            let policy = self.connection.eviction_policy(self.keys.slot(shard)).await;
            if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
                tracing::error!(
                    %policy,
                    "maxmemory-policy must be noeviction: with another, redis drops events that \
                     were acknowledged when its memory is full"
                );
            }
        }
        self.check_permissions().await?;
        let heads = (0..self.keys.shards()).map(|shard| self.head(&self.connection, shard));
        futures_util::future::try_join_all(heads).await?;
        let counts = (0..self.keys.shards()).map(|shard| self.count(&self.connection, shard));
        futures_util::future::try_join_all(counts).await?;
        // Earlier versions check this key. It is written last: a refused origin changes nothing.
        let shards = self.keys.shards().to_string();
        let key = Value::from(self.keys.shard_count());
        let words = vec![key, Value::from(shards.as_str()), "NX".into(), "GET".into()];
        let slot = self.keys.slot(0);
        let known = self.connection.command("SET", slot, words, self.config.timeout).await;
        match known.map_err(|error| self.connection.down(&error))? {
            Value::Null => {}
            known if text(known.clone())? == shards => {}
            known => return Err(wrong_shards(&text(known)?)),
        }
        self.claim_settings().await
    }

    fn count_fault(&self, error: &StoreError) {
        match error {
            StoreError::Unclear(_) => self.metrics.fault(StoreFault::Stall),
            StoreError::Down(_) => self.metrics.fault(StoreFault::Write),
            _ => {}
        }
    }

    async fn script(
        &self,
        script: &Script,
        channel: &ChannelName,
        keys: &[String],
        arguments: &[Bytes],
    ) -> Result<Value, StoreError> {
        let shard = self.keys.shard_of(channel);
        if !self.progress[shard].agrees() {
            return Err(StoreError::Down(agreement::OTHER_SHARDS.to_owned()));
        }
        self.reachable(Instant::now() + self.config.timeout.mul_f64(READY_PART)).await?;
        let slot = self.keys.slot(shard);
        self.connection
            .run(script, slot, keys, arguments)
            .await
            .map_err(|error| self.connection.down(&error))
    }

    /// Returns the end of a shard's firehose, as seen by `connection`, and the time of Redis in ms.
    /// Also corrects the clock.
    async fn head(
        &self,
        connection: &RedisConnection,
        shard: usize,
    ) -> Result<(EventId, u64), StoreError> {
        let (begun, asked) = (Instant::now(), self.clock.machine_now());
        let (key, own_shards) = (self.keys.head(shard), self.keys.shards().to_string());
        let (slot, arguments) = (self.keys.slot(shard), [Bytes::from(own_shards.clone())]);
        let answer = connection.run(&self.scripts.head, slot, &[key], &arguments).await;
        let mut parts = array(answer.map_err(|error| connection.down(&error))?)?.into_iter();
        let (head, time) = (id(next(&mut parts)?)?, number(next(&mut parts)?)?);
        let shards = text(next(&mut parts)?)?;
        self.progress[shard].agree(shards == own_shards);
        if shards != own_shards {
            return Err(wrong_shards(&shards));
        }
        let took = begun.elapsed();
        if shard == 0 && took < CLOCK_ANSWER_TIME_MAX {
            let middle = asked + took.as_millis() as u64 / 2;
            let ahead = time as i64 - middle as i64;
            let change = ahead - self.clock_ahead_ms.load(Ordering::Relaxed);
            if !self.clock.is_corrected() || change.abs() >= CLOCK_STEP_MS {
                self.clock_ahead_ms.store(ahead, Ordering::Relaxed);
                self.metrics.clock_offset_seconds.set(ahead as f64 / 1_000.0);
                self.clock.correct(ahead);
            }
        }
        Ok((head, time))
    }

    /// Checks that a shard can be read and accepts a write. Redis refuses a write when its memory
    /// is full, when it is a replica, or when it lacks the number of replicas that it requires.
    async fn ready_shard(&self, shard: usize) -> Result<(), StoreError> {
        self.head(&self.connection, shard).await?;
        let [key, ..] = self.keys.self_test(shard);
        let words = [key.as_str(), "1", "PX", "1000"].map(Value::from).into();
        let written =
            self.connection.command("SET", self.keys.slot(shard), words, self.config.timeout);
        written.await.map(drop).map_err(|error| self.connection.down(&error))
    }

    async fn settle_shard(&self, shard: usize, ms: u64) -> Result<(), StoreError> {
        loop {
            let (head, time) = self.head(&self.connection, shard).await?;
            if time >= ms {
                self.progress[shard].reached(head).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(ms - time)).await;
        }
    }
}

impl Followers {
    fn spawn(&self, follow: impl Future<Output = ()> + Send + 'static) {
        let watch = Watch(self.died.clone());
        let mut tasks = self.tasks.lock();
        tasks.spawn(async move {
            let _watch = watch;
            follow.await;
        });
    }

    async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The notification is stored for a waiter that comes later.
            self.0.notify_one();
        }
    }
}

impl Store for RedisStore {
    fn publish(&self, publication: Publication) -> StoreFuture<'_, Result<Published, StoreError>> {
        Box::pin(self.publish_events(publication))
    }

    fn close<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.close_call(channel))
    }

    fn erase<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.erase_call(channel))
    }

    fn reopen<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let keys = [self.keys.meta(channel)];
            match number(self.script(&self.scripts.reopen, channel, &keys, &[]).await?)? {
                0 => Err(StoreError::NoChannel),
                _ => Ok(()),
            }
        })
    }

    fn log_state<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<LogState, StoreError>> {
        Box::pin(async move {
            let (log_state, keys) = (&self.scripts.log_state, self.keys.of_state(channel));
            let answer = self.script(log_state, channel, &keys, &[]).await?;
            let mut parts = array(answer)?.into_iter();
            let bounds = pages::bounds(&mut parts)?;
            let closed = id_if_any(next(&mut parts)?)?.is_some();
            let keyed = number(next(&mut parts)?)? > 0;
            Ok(LogState { bounds, oldest: id_if_any(next(&mut parts)?)?, closed, keyed })
        })
    }

    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(async move {
            let keys = self.keys.of_log(channel);
            let arguments = [ms.to_string().into()];
            id(self.script(&self.scripts.before, channel, &keys, &arguments).await?)
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.page_after(channel, position, limit))
    }

    fn read_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.page_before(channel, before, limit))
    }

    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(async move {
            let (keys, arguments) = (self.keys.of_log(channel), [count.to_string().into()]);
            id(self.script(&self.scripts.position_back, channel, &keys, &arguments).await?)
        })
    }

    fn state<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<State, StoreError>> {
        Box::pin(self.current_state(channel))
    }

    fn names<'a>(
        &'a self,
        filter: &'a ChannelFilter,
    ) -> StoreFuture<'a, Result<Vec<ChannelName>, StoreError>> {
        Box::pin(self.names_of(filter))
    }

    fn size<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<ChannelSize, StoreError>> {
        Box::pin(self.size_of(channel))
    }

    fn settle(&self, ms: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let shards = (0..self.keys.shards()).map(|shard| self.settle_shard(shard, ms));
            // If one shard does not answer, the others are settled nevertheless.
            futures_util::future::join_all(shards).await;
        })
    }

    fn ready(&self) -> StoreFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            let ready = async {
                self.checked().await?;
                // A sequential check of many shards of a distant Redis would take too long.
                let shards = (0..self.keys.shards()).map(|shard| self.ready_shard(shard));
                futures_util::future::try_join_all(shards).await?;
                self.connection.takes_writes();
                Ok(())
            };
            let slow = |_| self.connection.down(&Error::new(ErrorKind::Timeout, NO_ANSWER));
            let patience = self.config.timeout.mul_f64(READY_PART);
            tokio::time::timeout(patience, ready).await.map_err(slow)?
        })
    }

    fn limits(&self) -> &Arc<ChannelLimits> {
        &self.limits
    }

    fn metrics(&self) -> StoreMetrics {
        self.metrics.clone()
    }

    fn failed(&self) -> StoreFuture<'_, String> {
        Box::pin(async {
            self.followers.died.notified().await;
            "a task that follows redis has died (see the messages before this one); nothing \
             acknowledged is lost, start the process again"
                .to_owned()
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn stop(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.followers.stop().await;
            self.connection.close().await;
        })
    }
}
