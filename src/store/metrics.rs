//! The metrics of a store. The store updates shared handles, which are registered here and exported
//! by `telemetry/metrics.rs`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Upper bounds of the histogram of commit times, in seconds. They range from a write to the page
/// cache to a disk that hangs.
const COMMIT_SECONDS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];

/// A gauge with a fractional value: seconds or a ratio.
type Fraction = Gauge<f64, AtomicU64>;

/// The kinds of faults of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// A commit failed, or Redis could not be reached.
    Write,
    /// A commit took more than a second, or Redis did not confirm it.
    Stall,
    /// A record was damaged when it was read.
    Damaged,
    /// An index, or an entry of the firehose of Redis, was damaged. The events were read from the
    /// log instead.
    Index,
    /// Events that were acknowledged or read before are gone.
    Lost,
}

/// The counters and gauges of one store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// 1 while a publish would be accepted, otherwise 0.
    pub up: Gauge,
    /// Histogram of the duration of commits.
    pub commit_seconds: Histogram,
    /// Bytes of the events and states that are kept.
    pub bytes: Gauge,
    /// Number of events that are kept.
    pub events: Gauge,
    /// [`StoreMetrics::bytes`] divided by `--max-store-bytes`.
    pub fill: Fraction,
    /// Bytes of the files of the log.
    pub file_bytes: Gauge,
    /// Free bytes on the disk.
    pub free_bytes: Gauge,
    /// The clock of Redis minus the clock of this machine, in seconds.
    pub clock_offset_seconds: Fraction,
    /// The age of the publish that was read last from Redis, when it was read, in seconds.
    pub lag_seconds: Fraction,
    /// Number of settings that differ from those of the origin that was started last on the same
    /// Redis.
    pub settings_differ: Gauge,
    faults: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let metrics = Self {
            up: Gauge::default(),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            bytes: Gauge::default(),
            events: Gauge::default(),
            fill: Fraction::default(),
            file_bytes: Gauge::default(),
            free_bytes: Gauge::default(),
            clock_offset_seconds: Fraction::default(),
            lag_seconds: Fraction::default(),
            settings_differ: Gauge::default(),
            faults: Family::default(),
        };
        // A counter that exists from the start shows its first increase.
        for kind in StoreFault::ALL {
            metrics.faults.get_or_create(&[("kind", kind.as_str())]).inc_by(0);
        }
        metrics
    }
}

impl StoreFault {
    const ALL: [Self; 5] = [Self::Write, Self::Stall, Self::Damaged, Self::Index, Self::Lost];

    fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Stall => "stall",
            Self::Damaged => "damaged",
            Self::Index => "index",
            Self::Lost => "lost",
        }
    }
}

impl StoreMetrics {
    /// Returns the number of faults of a kind.
    #[cfg(test)]
    pub fn faults(&self, kind: StoreFault) -> u64 {
        self.faults.get_or_create(&[("kind", kind.as_str())]).get()
    }

    /// Counts a fault.
    pub fn fault(&self, kind: StoreFault) {
        self.faults.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// Registers all metrics with the prefix `store`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("store");
        own.register("up", "Whether a publish would be accepted", self.up.clone());
        let commits = self.commit_seconds.clone();
        own.register_with_unit("commit", "How long commits took", Unit::Seconds, commits);
        own.register("events", "Events kept", self.events.clone());
        let bytes = |own: &mut Registry, name: &str, help: &str, gauge: &Gauge| {
            own.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        };
        bytes(own, "kept", "Bytes of events and state kept", &self.bytes);
        bytes(own, "files", "Bytes of the files of the log", &self.file_bytes);
        bytes(own, "disk_free", "Free bytes on the disk of the log", &self.free_bytes);
        let fill = self.fill.clone();
        own.register("fill_ratio", "Bytes kept, as a part of --max-store-bytes", fill);
        let seconds = |own: &mut Registry, name: &str, help: &str, gauge: &Fraction| {
            own.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        };
        let offset = &self.clock_offset_seconds;
        seconds(own, "clock_offset", "The clock of Redis less that of this machine", offset);
        let lag = "Age of the publish that was read last from Redis, when it was read";
        seconds(own, "lag", lag, &self.lag_seconds);
        let differ = "Settings that differ from those of the origin started last on this Redis";
        own.register("settings_differ", differ, self.settings_differ.clone());
        own.register("errors", "Faults of the store, by kind", self.faults.clone());
    }
}
