//! The sweep, once a second: drops old events, expired idempotency keys and channels that are not
//! used any more, and looks at the disk.

use super::catalog::{Channel, LogFile};
use super::maintenance::Maintainer;
use super::writer::Writer;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::sync::clock::Clock;
use std::time::Duration;

/// Maximum number of events that one sweep drops, so that publishes do not wait long for it.
const SWEEP_EVENTS_MAX: u64 = 100_000;
/// The clock for ages catches up with the real clock at this multiple of the passing time. After a
/// jump of the real clock or a pause of the process, events are therefore not all dropped at once.
const AGE_CATCH_UP: u64 = 2;
/// The interval at which an idle log records the clock for ages, in ms.
const AGES_CHECKPOINT_MS: u64 = 60_000;

/// The clock against which the ages of events are measured, in ms.
pub(super) struct Ages {
    /// The instant against which ages are measured now.
    pub now: u64,
    /// The uptime at the last sweep.
    swept: u64,
    /// The value that was last recorded in the log.
    pub checkpointed: u64,
}

impl Ages {
    /// Continues from the value `known` that the log recorded, but never later than `now`. The
    /// value 0 means that the log has none.
    pub fn new(known: u64, now: u64, uptime: u64) -> Self {
        let known = if known == 0 { now } else { known.min(now) };
        Self { now: known, swept: uptime, checkpointed: known }
    }

    fn advance(&mut self, clock: &Clock) -> u64 {
        let uptime = clock.uptime();
        let passed = uptime.saturating_sub(self.swept);
        self.swept = uptime;
        self.catch_up(clock.now(), passed)
    }

    fn catch_up(&mut self, now: u64, passed: u64) -> u64 {
        self.now = (self.now + AGE_CATCH_UP * passed).min(now);
        self.now
    }

    /// Whether the log has to record the clock again.
    fn is_unrecorded(&self) -> bool {
        self.now > self.checkpointed + AGES_CHECKPOINT_MS
    }
}

impl Writer {
    /// Drops old events, expired idempotency keys and unused channels, and requests a compaction.
    pub fn sweep(&mut self, maintainer: &Maintainer) {
        let now = self.clock.now();
        let ages = self.ages.advance(&self.clock);
        self.drop_old(now, ages);
        if self.ages.is_unrecorded() {
            // The checkpoint keeps dropped events from coming back when the log is opened again.
            self.health.must_checkpoint();
        }
        self.look_at_disk();
        self.try_after_failure();
        maintainer.compact(self.last_file.number, now);
    }

    fn drop_old(&self, now: u64, ages: u64) {
        let mut catalog = self.catalog.write();
        let reader = &self.reader;
        let ago = |time: Duration| ages.saturating_sub(time.as_millis() as u64);
        let (shortest_age, shortest_idle) = self.limits.shortest_times();
        let (before, unused_since) = (ago(shortest_age), ago(shortest_idle));
        catalog.keys.expire(now);
        // The limits of a channel are looked up only if the shortest ones of any channel are over.
        let is_before = |oldest: EventId, instant| oldest.ms < instant;
        let is_old =
            |channel: &Channel| channel.oldest().is_some_and(|oldest| is_before(oldest, before));
        let old = catalog.names_where(is_old);
        let mut left = SWEEP_EVENTS_MAX;
        for name in &old {
            let before = ago(self.limits.of(name).retain_age);
            let load = |log_file: &LogFile, block: &_| reader.entries(name, log_file, block).ok();
            left -=
                catalog.trim(name, left, &load, |_, oldest| is_before(oldest, before)).min(left);
        }
        let is_unused = |name: &ChannelName, channel: &Channel| {
            let is_unused_since = |instant| channel.used_at < instant;
            channel.events == 0
                && channel.state.is_empty()
                && is_unused_since(unused_since)
                && is_unused_since(ago(self.limits.of(name).channel_idle))
        };
        let unused = catalog.channels.iter().filter(|(name, channel)| is_unused(name, channel));
        let unused: Vec<ChannelName> = unused.map(|(name, _)| name.clone()).collect();
        unused.iter().for_each(|name| catalog.forget(name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalConfig;
    use super::super::command::WriteCommand;
    use super::super::damage_tests::LIMITS;
    use super::super::stepped_log_tests::{SteppedLog, durable_files, name, publication};
    use super::*;
    use crate::core::event::Event;
    use crate::store::{ChannelSettings, Limits, Publication, settings_channel};

    const CONFIG: LocalConfig =
        LocalConfig { timeout: Duration::from_secs(60), reserve: 0, file_bytes: 1 << 20 };

    #[test]
    fn an_idle_log_records_the_clock_for_ages_each_minute() {
        let mut log = SteppedLog::open(durable_files(), CONFIG, LIMITS);
        let mut sweep = |recorded_ago: u64| {
            let commit = log.writer.commit;
            log.writer.ages.checkpointed = log.writer.ages.now - recorded_ago;
            log.send(WriteCommand::Sweep);
            log.commit();
            log.maintain();
            log.writer.commit - commit
        };
        assert_eq!(sweep(0), 0);
        assert_eq!(sweep(AGES_CHECKPOINT_MS / 2), 0);
        assert_eq!(sweep(AGES_CHECKPOINT_MS + 1), 1);
        assert_eq!(sweep(0), 0);
        let mut ages = Ages::new(1_000_000, 1_000_000, 0);
        ages.checkpointed -= AGES_CHECKPOINT_MS;
        assert!(!ages.is_unrecorded());
        ages.now += 1;
        assert!(ages.is_unrecorded());
    }

    #[test]
    fn a_channel_of_which_nothing_is_left_is_forgotten_after_its_idle_time() {
        const USED_AT: u64 = 1_000_000_000_000;
        let hours = |count: u64| Duration::from_secs(3600 * count);
        let open = |retain_age| {
            let limits = Limits { retain_age, channel_idle: hours(1), ..LIMITS };
            let mut log = SteppedLog::open(durable_files(), CONFIG, limits);
            let two_hours = Some(hours(2).as_millis() as u64);
            let settings = ChannelSettings { channel_idle_ms: two_hours, ..Default::default() };
            let events = vec![settings.event_for(&name("own")).unwrap()];
            let channel = settings_channel();
            log.publish(Publication { channel, events, idempotency: None }).unwrap();
            let keyed = vec![Event::stored(None, Some("k"), "1")];
            log.publish(Publication { events: keyed, ..publication("keyed", "") }).unwrap();
            log.publish(publication("plain", "1")).unwrap();
            log.publish(publication("own", "1")).unwrap();
            let mut catalog = log.writer.catalog.write();
            catalog.channels.values_mut().for_each(|channel| channel.used_at = USED_AT);
            drop(catalog);
            log
        };
        let known_after = |log: &SteppedLog, ages: u64| {
            log.writer.drop_old(0, USED_AT + ages);
            let catalog = log.writer.catalog.read();
            ["keyed", "own", "plain"].map(|channel| catalog.channels.contains_key(&name(channel)))
        };
        let hour = hours(1).as_millis() as u64;
        let log = open(hours(u64::from(u32::MAX)));
        assert_eq!(known_after(&log, 10 * hour), [true; 3], "their events are kept");
        let log = open(Duration::ZERO);
        // All events of the channels are older than this.
        let mut catalog = log.writer.catalog.write();
        for channel in ["keyed", "own", "plain"] {
            catalog.trim(&name(channel), u64::MAX, &|_, _| None, |_, _| true);
        }
        drop(catalog);
        assert_eq!(known_after(&log, hour), [true; 3]);
        assert_eq!(known_after(&log, hour + 1), [true, true, false]);
        assert_eq!(known_after(&log, 2 * hour), [true, true, false]);
        assert_eq!(known_after(&log, 2 * hour + 1), [true, false, false]);
    }

    #[test]
    fn a_sweep_drops_what_is_older_than_the_limit_up_to_a_number() {
        let limits = Limits { retain_events: 200_000, ..LIMITS };
        let age = LIMITS.retain_age.as_millis() as u64;
        let mut log = SteppedLog::open(durable_files(), CONFIG, limits);
        let published = log.publish(publication("a", "old")).unwrap().ids[0].ms;
        let events = |log: &SteppedLog| -> u64 {
            log.writer.catalog.read().channels.values().map(|channel| channel.events).sum()
        };
        log.writer.drop_old(published, published + age);
        assert_eq!(events(&log), 1);
        log.writer.drop_old(published, published + age + 1);
        assert_eq!(events(&log), 0);
        for channel in ["a", "b"] {
            let events = vec![Event::stored(None, None, "x"); 10_000];
            for _ in 0..6 {
                let publication =
                    Publication { events: events.clone(), ..publication(channel, "") };
                log.publish(publication).unwrap();
            }
        }
        for left in [120_000 - SWEEP_EVENTS_MAX, 0] {
            log.writer.drop_old(published, u64::MAX);
            assert_eq!(events(&log), left);
        }
    }

    #[test]
    fn ages_catch_up_with_the_clock_at_twice_the_speed_of_time() {
        let mut ages = Ages::new(1_000, 5_000, 0);
        assert_eq!(ages.catch_up(100_000, 10), 1_020);
        assert_eq!(ages.catch_up(100_000, 500), 2_020);
        assert_eq!(ages.catch_up(2_025, 10), 2_025);
        // Neither a log without a clock nor one from the future changes the ages at the start.
        assert_eq!(Ages::new(0, 5_000, 0).now, 5_000);
        assert_eq!(Ages::new(9_000, 5_000, 0).now, 5_000);
    }
}
