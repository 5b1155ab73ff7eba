//! The store for more than one origin: Redis or Valkey, alone, behind Sentinel, or as a cluster.
//!
//! A publish is one script (`publish.lua`), atomic on the server: the idempotency key, the event in
//! its channel's log, the state of its key, and the entry in the shard's firehose that wakes the
//! origins (`tail.rs`). Origins hold nothing that Redis does not; each cuts its segments by Redis's
//! clock. A publish that ran out of time is refused by the script itself when it arrives late, so
//! that a `503` stays true.

mod keys;
mod link;
mod publish;
mod reply;
mod tail;

use super::{
    Answer, Bounds, Limits, Listener, Page, PageLimit, Publication, Published, Standing, State,
    Store, StoreError, StoreMetrics,
};
use crate::clock::Clock;
use crate::cursor::EventId;
use crate::event::{ChannelName, Event};
use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use fred::types::config::Config;
use keys::Keys;
use link::{Cause, Link, Script, down};
use publish::Said;
use reply::{array, bytes, id, id_if_any, next, number, text};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tail::Progress;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Most shards: each costs an origin a connection.
pub const SHARDS_MAX: usize = 64;
/// The part of `--store-timeout` after which Redis is not ready: the answer can say why then.
const READY_PART: f64 = 0.8;
/// The clock is not corrected for less (ms), nor by an answer that took longer.
const CLOCK_STEP_MS: i64 = 3;
const CLOCK_ANSWER_TIME_MAX: Duration = Duration::from_millis(50);

/// How to reach Redis, and how to use it.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`.
    pub url: String,
    /// What all keys begin with.
    pub prefix: String,
    /// Number of shards; all origins must agree.
    pub shards: usize,
    /// Replicas that must have a publish before it is acknowledged.
    pub wait_replicas: u32,
    /// Longest time a publish or a read may take.
    pub timeout: Duration,
}

/// The store.
pub struct RedisStore {
    config: RedisConfig,
    keys: Keys,
    limits: Limits,
    clock: Clock,
    listener: Arc<dyn Listener>,
    link: Link,
    scripts: Scripts,
    progress: Vec<Progress>,
    /// Set once the server was found to be right; nothing is written or followed before.
    checked: OnceCell<()>,
    /// Redis's clock less this machine's, in ms.
    clock_ahead_ms: AtomicI64,
    /// Makes a key for each publish that comes without one.
    publish_count: AtomicU64,
    run: u64,
    metrics: StoreMetrics,
    tasks: Mutex<JoinSet<()>>,
}

struct Scripts {
    publish: Script,
    read: Script,
    read_back: Script,
    position_back: Script,
    standing: Script,
    before: Script,
    state: Script,
    head: Script,
    reopen: Script,
    self_test: Script,
}

impl RedisStore {
    /// Connects, and begins to follow the log. Redis may be away: then it goes on trying.
    ///
    /// # Errors
    /// When the URL is wrong, or another number of shards is in use.
    pub async fn open(
        config: RedisConfig,
        limits: Limits,
        clock: Clock,
        listener: Arc<dyn Listener>,
    ) -> Result<Arc<Self>, StoreError> {
        let server = Config::from_url(&config.url).map_err(|error| down(&error))?;
        let keys = Keys::new(&config.prefix, config.shards);
        let cause = Cause::default();
        let store = Arc::new(Self {
            link: Link::open(&server, config.timeout, cause.clone())?,
            scripts: Scripts::new(),
            progress: (0..config.shards).map(|_| Progress::new()).collect(),
            checked: OnceCell::new(),
            clock_ahead_ms: AtomicI64::new(0),
            publish_count: AtomicU64::new(0),
            run: RandomState::new().build_hasher().finish(),
            metrics: StoreMetrics::default(),
            tasks: Mutex::default(),
            config,
            keys,
            limits,
            clock,
            listener,
        });
        match store.link.connected().await {
            Ok(()) => store.checked().await?,
            // The cause is logged by the connection.
            Err(_) => tracing::warn!("redis is not there yet; it is tried until it is"),
        }
        for shard in 0..store.keys.shards() {
            let link = Link::open(&server, store.config.timeout, cause.clone())?;
            let mut tasks = store.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(tail::follow(store.clone(), shard, link));
        }
        // What is published from now on is told; unless Redis is away, which only delays it.
        let begun = store.progress.iter().map(|progress| progress.reached(EventId::START));
        let begun = futures_util::future::join_all(begun);
        tokio::time::timeout(store.config.timeout, begun).await.ok();
        Ok(store)
    }

    /// Checks the server, until it was found to be right once: it may be away when we start.
    async fn checked(&self) -> Result<(), StoreError> {
        self.checked.get_or_try_init(|| self.check_server()).await.copied()
    }

    /// What must be right before anything is written.
    async fn check_server(&self) -> Result<(), StoreError> {
        for shard in 0..self.keys.shards() {
            let policy = self.link.eviction_policy(self.keys.slot(shard)).await;
            if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
                tracing::error!(
                    %policy,
                    "maxmemory-policy must be noeviction: with another, redis drops events that \
                     were acknowledged when its memory is full"
                );
            }
        }
        self.check_commands().await?;
        let shards = self.keys.shards().to_string();
        let key = Value::from(self.keys.shard_count());
        let words = vec![key, Value::from(shards.as_str()), "NX".into(), "GET".into()];
        let slot = self.keys.slot(0);
        let known = self.link.command("SET", slot, words, self.config.timeout).await;
        match known.map_err(|error| self.link.down(&error))? {
            Value::Null => Ok(()),
            known if text(known.clone())? == shards => Ok(()),
            known => Err(StoreError::Down(format!(
                "these keys are spread over {} shards; start with --redis-shards {0}, or with \
                 another --redis-prefix",
                text(known)?
            ))),
        }
    }

    /// Whether the user of this connection may run what a publish needs: found out before the first
    /// one, because a script that is stopped in the middle has stored something.
    async fn check_commands(&self) -> Result<(), StoreError> {
        let checks = (0..self.keys.shards()).map(async |shard| {
            let (slot, keys) = (self.keys.slot(shard), self.keys.self_test(shard));
            let answer = self.link.run(&self.scripts.self_test, slot, &keys, &[]).await;
            let refused = array(answer.map_err(|error| self.link.down(&error))?)?;
            refused.into_iter().map(text).collect::<Result<Vec<_>, _>>()
        });
        let refused = futures_util::future::try_join_all(checks).await?;
        match refused.into_iter().find(|names| !names.is_empty()) {
            None => Ok(()),
            Some(names) => {
                let (names, rules) = (names.join(", "), names.join(" +"));
                Err(StoreError::Down(format!(
                    "redis: this user may not run {names}; allow it (ACL SETUSER <name> +{rules})"
                )))
            }
        }
    }

    async fn script(
        &self,
        script: &Script,
        channel: &ChannelName,
        keys: &[String],
        arguments: &[Bytes],
    ) -> Result<Value, StoreError> {
        let slot = self.keys.slot(self.keys.shard_of(channel));
        self.link.run(script, slot, keys, arguments).await.map_err(|error| self.link.down(&error))
    }

    /// What the scripts `read.lua` and `read_back.lua` return.
    async fn page(
        &self,
        script: &Script,
        channel: &ChannelName,
        place: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let keys = [self.keys.log(channel), self.keys.meta(channel)];
        let numbers = [place.to_string(), limit.events.to_string(), limit.bytes.to_string()];
        let answer = self.script(script, channel, &keys, &numbers.map(Bytes::from)).await?;
        let mut parts = array(answer)?.into_iter();
        let last = id(next(&mut parts)?)?;
        let closed = id_if_any(next(&mut parts)?)?.is_some();
        let trimmed_to = id_if_any(next(&mut parts)?)?.unwrap_or(last);
        let complete = text(next(&mut parts)?)? == "1";
        let mut events = Vec::new();
        while let Some(event_id) = parts.next() {
            events.push(reply::stored(id(event_id)?, &bytes(next(&mut parts)?)?)?);
        }
        let bounds = Bounds { trimmed_to, last, ..Bounds::default() };
        Ok(Page { events, complete, bounds, closed })
    }

    /// Where a shard's firehose ends, by one connection, and the time there. Corrects the clock by
    /// the way.
    async fn head(&self, link: &Link, shard: usize) -> Result<(EventId, u64), StoreError> {
        let (begun, asked) = (Instant::now(), self.clock.machine_now());
        let key = self.keys.head(shard);
        let answer = link.run(&self.scripts.head, self.keys.slot(shard), &[key], &[]).await;
        let mut parts = array(answer.map_err(|error| link.down(&error))?)?.into_iter();
        let (head, time) = (id(next(&mut parts)?)?, number(next(&mut parts)?)?);
        let took = begun.elapsed();
        if shard == 0 && took < CLOCK_ANSWER_TIME_MAX {
            let middle = asked + took.as_millis() as u64 / 2;
            let ahead = time as i64 - middle as i64;
            if (ahead - self.clock_ahead_ms.load(Ordering::Relaxed)).abs() >= CLOCK_STEP_MS {
                self.clock_ahead_ms.store(ahead, Ordering::Relaxed);
                self.clock.correct(ahead);
            }
        }
        Ok((head, time))
    }

    async fn settle_shard(&self, shard: usize, ms: u64) -> Result<(), StoreError> {
        loop {
            let (head, time) = self.head(&self.link, shard).await?;
            if time >= ms {
                self.progress[shard].reached(head).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(ms - time)).await;
        }
    }
}

impl Scripts {
    fn new() -> Self {
        Self {
            publish: Script::new(include_str!("publish.lua")),
            read: Script::new(include_str!("read.lua")),
            read_back: Script::new(include_str!("read_back.lua")),
            position_back: Script::new(include_str!("position_back.lua")),
            standing: Script::new(include_str!("standing.lua")),
            before: Script::new(include_str!("before.lua")),
            state: Script::new(include_str!("state.lua")),
            head: Script::new(include_str!("head.lua")),
            reopen: Script::new(include_str!("reopen.lua")),
            self_test: Script::new(include_str!("self_test.lua")),
        }
    }
}

impl Store for RedisStore {
    fn publish(&self, publication: Publication) -> Answer<'_, Result<Published, StoreError>> {
        Box::pin(async move {
            match self.store_publication(publication, false, self.config.wait_replicas).await? {
                Said::Stored { first: EventId { ms, seq }, count, repeated, .. } => {
                    let ids = (0..count).map(|n| EventId { ms, seq: seq + n }).collect();
                    Ok(Published { ids, repeated })
                }
                Said::Closed(_) => Err(StoreError::Closed),
                Said::Refused(error) => Err(error),
                Said::Late => Err(reply::unexpected()),
            }
        })
    }

    fn close<'a>(&'a self, channel: &'a ChannelName) -> Answer<'a, Result<EventId, StoreError>> {
        Box::pin(async move {
            let events = vec![Event::end()];
            let publication = Publication { channel: channel.clone(), events, idempotency: None };
            match self.store_publication(publication, true, self.config.wait_replicas).await? {
                Said::Stored { first: end, .. } | Said::Closed(end) => Ok(end),
                Said::Refused(error) => Err(error),
                Said::Late => Err(reply::unexpected()),
            }
        })
    }

    fn reopen<'a>(&'a self, channel: &'a ChannelName) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let keys = [self.keys.meta(channel)];
            match number(self.script(&self.scripts.reopen, channel, &keys, &[]).await?)? {
                0 => Err(StoreError::NoChannel),
                _ => Ok(()),
            }
        })
    }

    fn standing<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> Answer<'a, Result<Standing, StoreError>> {
        Box::pin(async move {
            let keys = [self.keys.log(channel), self.keys.meta(channel), self.keys.state(channel)];
            let answer = self.script(&self.scripts.standing, channel, &keys, &[]).await?;
            let mut parts = array(answer)?.into_iter();
            let last = id(next(&mut parts)?)?;
            let closed = id_if_any(next(&mut parts)?)?.is_some();
            let keyed = number(next(&mut parts)?)? > 0;
            let oldest = id_if_any(next(&mut parts)?)?;
            let before_oldest = id_if_any(next(&mut parts)?)?;
            let trimmed_to = before_oldest.unwrap_or(last);
            let bounds = Bounds { trimmed_to, last, ..Bounds::default() };
            Ok(Standing { bounds, oldest, closed, keyed })
        })
    }

    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> Answer<'a, Result<EventId, StoreError>> {
        Box::pin(async move {
            let keys = [self.keys.log(channel), self.keys.meta(channel)];
            let arguments = [Bytes::from(ms.to_string())];
            id(self.script(&self.scripts.before, channel, &keys, &arguments).await?)
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> Answer<'a, Result<Page, StoreError>> {
        Box::pin(self.page(&self.scripts.read, channel, position, limit))
    }

    fn read_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> Answer<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let mut page = self.page(&self.scripts.read_back, channel, before, limit).await?;
            page.events.reverse();
            Ok(page)
        })
    }

    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> Answer<'a, Result<EventId, StoreError>> {
        Box::pin(async move {
            let keys = [self.keys.log(channel), self.keys.meta(channel)];
            let arguments = [Bytes::from(count.to_string())];
            id(self.script(&self.scripts.position_back, channel, &keys, &arguments).await?)
        })
    }

    fn state<'a>(&'a self, channel: &'a ChannelName) -> Answer<'a, Result<State, StoreError>> {
        Box::pin(async move {
            let keys = [self.keys.log(channel), self.keys.meta(channel), self.keys.state(channel)];
            let answer = self.script(&self.scripts.state, channel, &keys, &[]).await?;
            let mut parts = array(answer)?.into_iter();
            let position = id(next(&mut parts)?)?;
            let mut events = Vec::new();
            while parts.next().is_some() {
                events.push(reply::stored_state(&bytes(next(&mut parts)?)?)?);
            }
            events.sort_by_key(|stored| stored.id);
            Ok(State { position, events })
        })
    }

    fn settle(&self, ms: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let shards = (0..self.keys.shards()).map(|shard| self.settle_shard(shard, ms));
            // Where one does not answer, the others are settled all the same.
            futures_util::future::join_all(shards).await;
        })
    }

    fn ready(&self) -> Answer<'_, Result<(), StoreError>> {
        Box::pin(async {
            let ready = async {
                self.checked().await?;
                // Side by side: one after another, many shards of a distant Redis would take too long.
                let heads = (0..self.keys.shards()).map(|shard| self.head(&self.link, shard));
                futures_util::future::try_join_all(heads).await.map(drop)
            };
            let slow = |_| self.link.down(&Error::new(ErrorKind::Timeout, "no answer in time"));
            let patience = self.config.timeout.mul_f64(READY_PART);
            tokio::time::timeout(patience, ready).await.map_err(slow)?
        })
    }

    fn metrics(&self) -> StoreMetrics {
        self.metrics.clone()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn stop(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let mut tasks =
                std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            tasks.shutdown().await;
            self.link.close().await;
        })
    }
}
