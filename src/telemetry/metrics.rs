//! The metrics of the process for Prometheus. Counters only increase, and labels have only values
//! that are fixed in the code.

use crate::core::caching::Ending;
use crate::core::sse::{GapReason, ShedReason};
use crate::store::StoreMetrics;
use crate::telemetry::repeats::Repeats;
use crate::telemetry::traces::Exports;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// Upper bounds of the histograms of latencies, in seconds.
const LATENCY_SECONDS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// The kinds of requests that a cache may share: the first one of its segment, and later ones that
/// are the same.
const FIRST: &str = "first";
const REPEAT: &str = "repeat";

type Labels = [(&'static str, &'static str); 1];

/// How a client joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// The request had no cursor that is valid for the stream: none at all, an unknown one,
    /// `?since=` or `?last=`.
    Fresh,
    /// The request had a cursor.
    Cursor,
    /// The request was a long poll (`?mode=hold`).
    LongPoll,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    streams_opened: [Counter; 3],
    /// Streams and long polls that are being served.
    pub streams_open: Gauge,
    /// Open connections of any kind.
    pub connections_open: Gauge,
    tasks: Gauge,
    /// 1 if `/readyz` reports that the origin is ready.
    pub ready: Gauge,
    /// Channels in memory.
    pub channels_live: Gauge,
    ended: Family<Labels, Counter>,
    shed: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    gaps: Family<Labels, Counter>,
    /// WebSockets that are being served.
    pub websockets_open: Gauge,
    websockets_closed: Family<[(&'static str, String); 1], Counter>,
    /// Frames that were received over WebSockets.
    pub websocket_frames_in: Counter,
    events_in: Counter,
    event_bytes_in: Counter,
    events_out: Counter,
    bytes_out: Counter,
    shareable: Family<Labels, Counter>,
    repeats: Repeats,
    publish_seconds: Histogram,
    delivery_seconds: Histogram,
    /// How far ids and segments are ahead of the wall clock, in seconds.
    pub clock_lead_seconds: Gauge<f64, AtomicU64>,
    /// How often the wall clock was set to another time.
    pub clock_steps: Gauge,
    process: ProcessMetrics,
}

/// The metrics of the process, with the names that Prometheus' client libraries give them.
#[derive(Default)]
struct ProcessMetrics {
    cpu_seconds: Counter<f64, AtomicU64>,
    start_seconds: Gauge<f64, AtomicU64>,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_files: Gauge,
    max_files: Gauge,
}

impl JoinKind {
    const ALL: [Self; 3] = [Self::Fresh, Self::Cursor, Self::LongPoll];

    fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Cursor => "cursor",
            Self::LongPoll => "long_poll",
        }
    }
}

impl ProcessMetrics {
    fn register(&self, process: &mut Registry) {
        let (bytes, seconds) = (Unit::Bytes, Unit::Seconds);
        let cpu = self.cpu_seconds.clone();
        process.register_with_unit("cpu", "User and system time used so far", seconds.clone(), cpu);
        let start = self.start_seconds.clone();
        let help = "Start of the process, since the Unix epoch";
        process.register_with_unit("start_time", help, seconds, start);
        let resident = self.resident_bytes.clone();
        process.register_with_unit("resident_memory", "Memory in use", bytes.clone(), resident);
        let reserved = self.virtual_bytes.clone();
        process.register_with_unit("virtual_memory", "Memory reserved", bytes, reserved);
        process.register("open_fds", "Open file descriptors", self.open_files.clone());
        process.register("max_fds", "Most file descriptors allowed", self.max_files.clone());
    }

    fn refresh(&self) {
        let usage = crate::telemetry::process::usage();
        // The kernel counts the time itself, and its count never goes back.
        self.cpu_seconds.inner().store(usage.cpu_seconds.to_bits(), Ordering::Relaxed);
        self.start_seconds.set(usage.start_seconds);
        self.resident_bytes.set(usage.resident_bytes);
        self.virtual_bytes.set(usage.virtual_bytes);
        self.open_files.set(usage.open_files);
        self.max_files.set(usage.max_files);
    }
}

impl Metrics {
    /// Returns the metrics, all at zero.
    pub fn new(store: &StoreMetrics, exports: &Exports) -> Self {
        let opened = Family::<Labels, Counter>::default();
        let kind = |kind: JoinKind| opened.get_or_create(&[("kind", kind.as_str())]).clone();
        let mut metrics = Self {
            registry: Registry::default(),
            streams_opened: JoinKind::ALL.map(kind),
            streams_open: Gauge::default(),
            ready: Gauge::default(),
            connections_open: Gauge::default(),
            tasks: Gauge::default(),
            channels_live: Gauge::default(),
            ended: Family::default(),
            shed: Family::default(),
            refused: Family::default(),
            gaps: Family::default(),
            websockets_open: Gauge::default(),
            websockets_closed: Family::default(),
            websocket_frames_in: Counter::default(),
            events_in: Counter::default(),
            event_bytes_in: Counter::default(),
            events_out: Counter::default(),
            bytes_out: Counter::default(),
            shareable: Family::default(),
            repeats: Repeats::default(),
            publish_seconds: Histogram::new(LATENCY_SECONDS),
            delivery_seconds: Histogram::new(LATENCY_SECONDS),
            clock_lead_seconds: Gauge::default(),
            clock_steps: Gauge::default(),
            process: ProcessMetrics::default(),
        };
        metrics.register(opened);
        let own = metrics.registry.sub_registry_with_prefix("headwater");
        store.register(own);
        exports.register(own);
        metrics.begin_at_zero();
        metrics
    }

    fn register(&mut self, opened: Family<Labels, Counter>) {
        let own = self.registry.sub_registry_with_prefix("headwater");
        own.register("streams_opened", "Streams begun, by how the client joined", opened);
        own.register("streams_open", "Streams being served", self.streams_open.clone());
        let open = self.connections_open.clone();
        own.register("connections_open", "Connections accepted and not yet closed", open);
        own.register("tasks", "Asynchronous tasks that have not ended", self.tasks.clone());
        own.register(
            "ready",
            "Whether /readyz answers that the origin is ready",
            self.ready.clone(),
        );
        own.register("channels_live", "Channels in memory", self.channels_live.clone());
        own.register("streams_ended", "Streams ended, by reason", self.ended.clone());
        own.register(
            "streams_shed",
            "Stream requests that got no stream, by reason",
            self.shed.clone(),
        );
        let refused = self.refused.clone();
        own.register(
            "publishes_refused",
            "Publishes and ends of channels not accepted, by problem",
            refused,
        );
        own.register("gaps", "Gap events sent, by reason", self.gaps.clone());
        let open = self.websockets_open.clone();
        own.register("websockets_open", "WebSockets being served", open);
        let closed = self.websockets_closed.clone();
        own.register("websockets_closed", "WebSockets ended, by the code of our close", closed);
        let frames = self.websocket_frames_in.clone();
        own.register("websocket_frames_in", "Frames that came in over WebSockets", frames);
        own.register("events_in", "Events accepted", self.events_in.clone());
        let bytes_in = self.event_bytes_in.clone();
        let bytes = Unit::Bytes;
        own.register_with_unit("events_in", "Bytes of events accepted", bytes.clone(), bytes_in);
        own.register("events_out", "Events sent, once for each client", self.events_out.clone());
        let bytes_out = self.bytes_out.clone();
        own.register_with_unit("streams_out", "Bytes of streams sent", bytes, bytes_out);
        let help =
            "Stream requests that a cache may share, by whether the segment had the same one";
        own.register("shareable_requests", help, self.shareable.clone());
        let (help, publishes) =
            ("From the body of a publish to its durability", &self.publish_seconds);
        own.register_with_unit("publish", help, Unit::Seconds, publishes.clone());
        let help = "From the time of the oldest event of a pass to the end of the pass";
        own.register_with_unit("delivery", help, Unit::Seconds, self.delivery_seconds.clone());
        let lead = self.clock_lead_seconds.clone();
        let help = "How far ids and segments are ahead of the wall clock";
        own.register_with_unit("clock_lead", help, Unit::Seconds, lead);
        let steps = self.clock_steps.clone();
        own.register("clock_steps", "Times that the wall clock was set to another time", steps);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The version of this program", build);
        self.process.register(self.registry.sub_registry_with_prefix("process"));
    }

    /// Creates counters at zero, so that a program that computes rates also sees the first
    /// increase.
    fn begin_at_zero(&self) {
        for ending in Ending::ALL {
            self.ended.get_or_create(&[("reason", ending.as_str())]).inc_by(0);
        }
        for reason in ShedReason::ALL {
            self.shed.get_or_create(&[("reason", reason.as_str())]).inc_by(0);
        }
        for reason in GapReason::ALL {
            self.gaps.get_or_create(&[("reason", reason.as_str())]).inc_by(0);
        }
        for kind in [FIRST, REPEAT] {
            self.shareable.get_or_create(&[("kind", kind)]).inc_by(0);
        }
        for problem in ["store-down", "store-unclear"] {
            self.refused.get_or_create(&[("problem", problem)]).inc_by(0);
        }
        for code in ["none", "1008", "1012", "1013"] {
            self.websockets_closed.get_or_create(&[("code", code.to_owned())]).inc_by(0);
        }
    }

    /// Counts a stream that began.
    pub fn opened(&self, kind: JoinKind) {
        self.streams_opened[kind as usize].inc();
        self.streams_open.inc();
    }

    /// Counts a stream that ended.
    pub fn ended(&self, ending: Ending) {
        self.streams_open.dec();
        self.ended.get_or_create(&[("reason", ending.as_str())]).inc();
    }

    /// Counts a request for a stream that a cache may share. `key` is what it asks for, and
    /// `ends_at` the end of its response, in ms.
    pub fn shareable(&self, key: &impl Hash, ends_at: u64, now: u64) {
        if let Some(is_first) = self.repeats.is_first(key, ends_at, now) {
            let kind = if is_first { FIRST } else { REPEAT };
            self.shareable.get_or_create(&[("kind", kind)]).inc();
        }
    }

    /// Records the time of a publish until the store had it.
    pub fn stored(&self, time: Duration) {
        self.publish_seconds.observe(time.as_secs_f64());
    }

    /// Records how long after their time, in ms, the events of a pass were sent.
    pub fn delivered(&self, ms: u64) {
        self.delivery_seconds.observe(ms as f64 / 1_000.0);
    }

    /// Counts a request for a stream that was shed.
    pub fn shed(&self, reason: ShedReason) {
        self.shed.get_or_create(&[("reason", reason.as_str())]).inc();
    }

    /// Counts a publish, or the end of a channel, that was not accepted.
    pub fn refused(&self, problem: &'static str) {
        self.refused.get_or_create(&[("problem", problem)]).inc();
    }

    /// Counts a WebSocket that ended. `code` is the code with which the origin closed it; `None`:
    /// the client left.
    pub fn websocket_closed(&self, code: Option<u16>) {
        let code = code.map_or("none".to_owned(), |code| code.to_string());
        self.websockets_closed.get_or_create(&[("code", code)]).inc();
    }

    /// Counts a stream that began with a `gap` event.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.get_or_create(&[("reason", reason.as_str())]).inc();
    }

    /// Counts events that were accepted, and their bytes.
    pub fn published(&self, events: u64, bytes: u64) {
        self.events_in.inc_by(events);
        self.event_bytes_in.inc_by(bytes);
    }

    /// Counts events that were sent, and bytes of streams.
    pub fn sent(&self, events: u64, bytes: usize) {
        self.events_out.inc_by(events);
        self.bytes_out.inc_by(bytes as u64);
    }

    /// Returns all metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        self.process.refresh();
        if let Ok(runtime) = Handle::try_current() {
            self.tasks.set(runtime.metrics().num_alive_tasks() as i64);
        }
        let mut text = String::new();
        // Writing to a `String` does not fail.
        encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}
