//! Limits on the rate of events: into one channel, and from one publisher.

use crate::core::event::ChannelName;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, InsufficientCapacity, Quota as PerTime, RateLimiter};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

/// The default of both rates, in events per second. At this rate, large batches of one publisher cost
/// the other publishers little: docs/security.md has the figures.
pub const EVENT_RATE: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

/// The rates in events per second, and the allowances; `None`: no limit.
#[derive(Clone, Copy, Debug)]
pub struct RatesConfig {
    /// Rate of events into one channel.
    pub channel: Option<NonZeroU32>,
    /// Rate of events from all tokens with the same `sub`.
    pub subject: Option<NonZeroU32>,
    /// Allowance of channels that the tokens with the same `sub` may create.
    pub new_channels: Option<Allowance>,
    /// Allowance of publishes with an idempotency key from the tokens with the same `sub`.
    pub idempotency_keys: Option<Allowance>,
}

impl Default for RatesConfig {
    fn default() -> Self {
        let rate = Some(EVENT_RATE);
        Self { channel: rate, subject: rate, new_channels: None, idempotency_keys: None }
    }
}

/// A number of uses that may happen all at once. Used ones become free again evenly over time.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// The number of uses.
    pub count: NonZeroU32,
    /// The time in which all uses become free again, longer than zero.
    pub time: Duration,
}

/// The limits, and how much of each is used.
pub struct Rates {
    channels: Option<DefaultKeyedRateLimiter<ChannelName>>,
    subjects: Option<DefaultKeyedRateLimiter<String>>,
    new_channels: Option<DefaultKeyedRateLimiter<String>>,
    keys: Option<DefaultKeyedRateLimiter<String>>,
}

/// A resource of which each publisher has an allowance.
#[derive(Clone, Copy, Debug)]
pub enum PublisherQuota {
    /// The creation of a channel.
    NewChannel,
    /// The use of an idempotency key.
    IdempotencyKey,
}

/// Error: the events came too fast.
#[derive(Clone, Copy, Debug)]
pub struct TooFast {
    /// The beginning of the message that names the limit, such as "the channel takes".
    pub what: &'static str,
    /// The flag that sets the limit.
    pub flag: &'static str,
    pub excess: Excess,
}

/// By how much a limit would be exceeded.
#[derive(Clone, Copy, Debug)]
pub enum Excess {
    /// The events are accepted after this time.
    Now(Duration),
    /// The events are never accepted at once, because there are more than this number.
    Always(u32),
}

impl Rates {
    /// Returns the limits, of which nothing is used yet.
    pub fn new(config: RatesConfig) -> Self {
        Self {
            channels: config.channel.map(|rate| RateLimiter::keyed(PerTime::per_second(rate))),
            subjects: config.subject.map(|rate| RateLimiter::keyed(PerTime::per_second(rate))),
            new_channels: config.new_channels.and_then(allowance),
            keys: config.idempotency_keys.and_then(allowance),
        }
    }

    /// Counts `events` events of one publisher for one channel. `subject` is the `sub` of the
    /// publisher's token. All tokens without a `sub` share one limit; `None` means that no token is
    /// needed, and then only the channel's limit applies.
    ///
    /// # Errors
    /// Fails when a limit is used up. The error names the limit.
    pub fn take(
        &self,
        channel: &ChannelName,
        subject: Option<&str>,
        events: usize,
    ) -> Result<(), TooFast> {
        if let Some(subject) = subject {
            let taken = take(self.subjects.as_ref(), &subject.to_owned(), events);
            let flag = "--publish-rate-per-subject";
            taken.map_err(|excess| TooFast { what: "the publisher sends", flag, excess })?;
        }
        let (what, flag) = ("the channel takes", "--publish-rate");
        take(self.channels.as_ref(), channel, events).map_err(|excess| TooFast {
            what,
            flag,
            excess,
        })
    }

    /// Whether the quota has a limit.
    pub fn has(&self, quota: PublisherQuota) -> bool {
        self.quota(quota).is_some()
    }

    /// Counts one use of `quota` by the publisher `subject`.
    ///
    /// # Errors
    /// Fails when the allowance is used up. The error is the time after which a use becomes free.
    pub fn take_one(&self, quota: PublisherQuota, subject: &str) -> Result<(), Duration> {
        let taken = take(self.quota(quota), &subject.to_owned(), 1);
        taken.map_err(|excess| match excess {
            Excess::Now(wait) => wait,
            Excess::Always(_) => Duration::ZERO,
        })
    }

    fn quota(&self, quota: PublisherQuota) -> Option<&DefaultKeyedRateLimiter<String>> {
        match quota {
            PublisherQuota::NewChannel => self.new_channels.as_ref(),
            PublisherQuota::IdempotencyKey => self.keys.as_ref(),
        }
    }

    /// Drops the entries of channels and publishers that have recovered their full limit.
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
) -> Result<(), Excess> {
    let Some(limit) = limit else { return Ok(()) };
    let count = u32::try_from(events).unwrap_or(u32::MAX);
    match limit.check_key_n(key, NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(until)) => Err(Excess::Now(until.wait_time_from(DefaultClock::default().now()))),
        Err(InsufficientCapacity(most)) => Err(Excess::Always(most)),
    }
}
