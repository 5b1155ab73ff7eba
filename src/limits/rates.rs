//! How fast events may come in: into one channel, and from one publisher.

use crate::core::event::ChannelName;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, InsufficientCapacity, Quota as PerTime, RateLimiter};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

/// Events a second; `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct RatesConfig {
    /// Into one channel.
    pub channel: Option<NonZeroU32>,
    /// From the bearers of tokens with one `sub`.
    pub subject: Option<NonZeroU32>,
    /// Channels that the bearers of tokens with one `sub` make.
    pub new_channels: Option<Allowance>,
    /// Publishes with an idempotency key from the bearers of tokens with one `sub`.
    pub idempotency_keys: Option<Allowance>,
}

/// So many at once, given back evenly over this time.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// How many.
    pub count: NonZeroU32,
    /// The time, longer than nothing.
    pub time: Duration,
}

/// The limits, and how far each is used.
pub struct Rates {
    channels: Option<DefaultKeyedRateLimiter<ChannelName>>,
    subjects: Option<DefaultKeyedRateLimiter<String>>,
    new_channels: Option<DefaultKeyedRateLimiter<String>>,
    keys: Option<DefaultKeyedRateLimiter<String>>,
}

/// What a publish takes of what its publisher may have.
#[derive(Clone, Copy, Debug)]
pub enum Quota {
    /// A channel that was not there before.
    NewChannel,
    /// An idempotency key.
    IdempotencyKey,
}

/// Events came too fast.
#[derive(Clone, Copy, Debug)]
pub struct TooFast {
    /// What takes no more.
    pub what: &'static str,
    /// The flag of its limit.
    pub flag: &'static str,
    /// After which time they are taken; where they never are, so many at most are at once.
    pub wait: Result<Duration, u32>,
}

impl Rates {
    /// Nothing used yet.
    pub fn new(config: RatesConfig) -> Self {
        Self {
            channels: config.channel.map(|rate| RateLimiter::keyed(PerTime::per_second(rate))),
            subjects: config.subject.map(|rate| RateLimiter::keyed(PerTime::per_second(rate))),
            new_channels: config.new_channels.and_then(allowance),
            keys: config.idempotency_keys.and_then(allowance),
        }
    }

    /// Takes `events` of one publisher for one channel. `subject`: whose token it is; all tokens
    /// without a `sub` are one, and who needs none is not counted.
    ///
    /// # Errors
    /// Says what takes no more now.
    pub fn take(
        &self,
        channel: &ChannelName,
        subject: Option<&str>,
        events: usize,
    ) -> Result<(), TooFast> {
        if let Some(subject) = subject {
            let wait = take(self.subjects.as_ref(), &subject.to_owned(), events);
            let flag = "--publish-rate-per-subject";
            wait.map_err(|wait| TooFast { what: "the publisher sends", flag, wait })?;
        }
        take(self.channels.as_ref(), channel, events).map_err(|wait| TooFast {
            what: "the channel takes",
            flag: "--publish-rate",
            wait,
        })
    }

    /// Whether a quota is set.
    pub fn has(&self, quota: Quota) -> bool {
        self.quota(quota).is_some()
    }

    /// Takes one of what the publisher `subject` may have.
    ///
    /// # Errors
    /// When nothing of it is left: after which time there is.
    pub fn take_one(&self, quota: Quota, subject: &str) -> Result<(), Duration> {
        let taken = take(self.quota(quota), &subject.to_owned(), 1);
        taken.map_err(|wait| wait.unwrap_or_default())
    }

    fn quota(&self, quota: Quota) -> Option<&DefaultKeyedRateLimiter<String>> {
        match quota {
            Quota::NewChannel => self.new_channels.as_ref(),
            Quota::IdempotencyKey => self.keys.as_ref(),
        }
    }

    /// Forgets what is not used up any more.
    pub fn sweep(&self) {
        if let Some(channels) = &self.channels {
            channels.retain_recent();
        }
        for limit in [&self.subjects, &self.new_channels, &self.keys].into_iter().flatten() {
            limit.retain_recent();
        }
    }
}

fn allowance(Allowance { count, time }: Allowance) -> Option<DefaultKeyedRateLimiter<String>> {
    let each = PerTime::with_period(time / count.get())?;
    Some(RateLimiter::keyed(each.allow_burst(count)))
}

fn take<K: Clone + Eq + Hash>(
    limit: Option<&DefaultKeyedRateLimiter<K>>,
    key: &K,
    events: usize,
) -> Result<(), Result<Duration, u32>> {
    let Some(limit) = limit else { return Ok(()) };
    let count = u32::try_from(events).unwrap_or(u32::MAX);
    match limit.check_key_n(key, NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(until)) => Err(Ok(until.wait_time_from(DefaultClock::default().now()))),
        Err(InsufficientCapacity(most)) => Err(Err(most)),
    }
}
