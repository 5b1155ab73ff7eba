//! A traced publish has a span for its request, a span for the work of the store, and at each
//! origin a span for the delivery to clients. The spans are exported only if an exporter is given;
//! otherwise every function here does nothing.
//!
//! The last event of a publish carries the context of the trace. The span of a delivery begins when
//! the store passes this event to an origin. It ends when the origin has first sent the event: in
//! one response, over one WebSocket, or in one pass of the fan-out over a group of responses.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::core::trace_context::TraceContext;
use crate::store::Publication;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanExporter};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most deliveries that wait for a client at the same time. Further ones have no span.
const WAITING_MAX: usize = 1_000;
/// A delivery that has waited for this long has no client, and gets no span.
const WAITING_TIME_MAX: Duration = Duration::from_secs(60);
/// The longest wait, at the end of the process, for spans that are being exported.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
const CHANNEL: &str = "messaging.destination.name";
const EVENTS: &str = "messaging.batch.message_count";
const EVENT_ID: &str = "messaging.message.id";

/// The traces of the process.
#[derive(Debug, Default)]
pub struct Traces {
    exporting: Option<Exporting>,
    /// The requests with spans that a collector has accepted, and those that have failed.
    pub exports: Exports,
}

/// Counts the requests with spans.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    /// Requests that a collector has accepted.
    pub accepted: Counter,
    /// Requests that have failed. The exporter tries a few times, then the spans are lost.
    pub failed: Counter,
}

#[derive(Debug)]
struct Exporting {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    deliveries: Mutex<HashMap<ChannelName, VecDeque<Delivery>>>,
    /// The number of all deliveries.
    waiting: AtomicUsize,
}

/// A traced event that no response has carried yet.
#[derive(Debug)]
struct Delivery {
    id: EventId,
    trace: TraceContext,
    since: Instant,
}

/// The span of a publish. Without a method call it ends when it is dropped.
#[derive(Debug, Default)]
pub struct PublishSpan(Option<Span>);

/// The span of the store's work on a publish.
#[derive(Debug)]
pub struct StoreSpan(Option<Span>);

impl Traces {
    /// Returns traces that are exported to `exporter`: all that a client records (the flag `sampled`
    /// of `traceparent`), and this share (0 to 1) of the publishes without `traceparent`.
    pub fn exported_to(
        exporter: impl SpanExporter + 'static,
        exports: Exports,
        ratio: f64,
        resource: Resource,
    ) -> Self {
        let own = Sampler::TraceIdRatioBased(ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(own)))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("headwater");
        let (deliveries, waiting) = (Mutex::default(), AtomicUsize::new(0));
        let exporting = Exporting { provider, tracer, deliveries, waiting };
        Self { exporting: Some(exporting), exports }
    }

    /// Begins the span of a publish with this `traceparent`, if there is one.
    pub fn publish(&self, channel: &ChannelName, traceparent: Option<&str>) -> PublishSpan {
        let Some(exporting) = &self.exporting else { return PublishSpan::default() };
        let parent = traceparent.and_then(TraceContext::parse);
        let attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", "/channels/{name}"),
            KeyValue::new(CHANNEL, channel.to_string()),
        ];
        let builder = exporting.tracer.span_builder("POST /channels/{name}");
        let builder = builder.with_kind(SpanKind::Server).with_attributes(attributes);
        let parent = parent.map(context).unwrap_or_default();
        let span = builder.start_with_context(&exporting.tracer, &parent);
        PublishSpan(Some(span).filter(Span::is_recording))
    }

    /// Begins the span of the store's work, if the publish is traced.
    pub fn store(&self, publication: &Publication) -> StoreSpan {
        let Some(exporting) = &self.exporting else { return StoreSpan(None) };
        let events = publication.events.len() as i64;
        let trace = publication.events.last().and_then(|event| event.trace());
        let begin = |trace| {
            let channel = &publication.channel;
            let attributes =
                vec![KeyValue::new(CHANNEL, channel.to_string()), KeyValue::new(EVENTS, events)];
            let builder = exporting.tracer.span_builder(format!("store {channel}"));
            let builder = builder.with_kind(SpanKind::Internal).with_attributes(attributes);
            builder.start_with_context(&exporting.tracer, &context(trace))
        };
        StoreSpan(trace.map(begin))
    }

    /// Notes events that the store has passed to this origin, for the spans of their deliveries.
    pub fn stored(&self, channel: &ChannelName, events: &[StoredEvent]) {
        let Some(exporting) = &self.exporting else { return };
        for StoredEvent { id, event } in events {
            if let Some(trace) = event.trace().filter(TraceContext::is_sampled) {
                exporting.wait(channel, Delivery { id: *id, trace, since: Instant::now() });
            }
        }
    }

    /// Whether an event waits for its delivery.
    pub fn has_waiting(&self) -> bool {
        let waiting = |exporting: &Exporting| exporting.waiting.load(Ordering::Relaxed) > 0;
        self.exporting.as_ref().is_some_and(waiting)
    }

    /// Ends the spans of the deliveries of a channel's events up to `position`.
    pub fn delivered(&self, channel: &ChannelName, position: EventId) {
        let Some(exporting) = self.exporting.as_ref().filter(|_| self.has_waiting()) else {
            return;
        };
        let mut deliveries = exporting.deliveries.lock();
        let Some(waiting) = deliveries.get_mut(channel) else { return };
        let count = waiting.partition_point(|delivery| delivery.id <= position);
        for delivery in waiting.drain(..count) {
            exporting.waiting.fetch_sub(1, Ordering::Relaxed);
            exporting.export(channel, &delivery);
        }
        if waiting.is_empty() {
            deliveries.remove(channel);
        }
    }

    /// Forgets deliveries that have waited for too long.
    pub fn sweep(&self) {
        let Some(exporting) = self.exporting.as_ref().filter(|_| self.has_waiting()) else {
            return;
        };
        let mut deliveries = exporting.deliveries.lock();
        deliveries.retain(|_, waiting| {
            let count = waiting.len();
            waiting.retain(|delivery| delivery.since.elapsed() < WAITING_TIME_MAX);
            exporting.waiting.fetch_sub(count - waiting.len(), Ordering::Relaxed);
            !waiting.is_empty()
        });
    }

    /// Exports the spans that have ended, and stops. It blocks for five seconds at most.
    pub fn stop(&self) {
        if let Some(exporting) = &self.exporting {
            // A failed export has been logged and counted.
            exporting.provider.shutdown_with_timeout(FLUSH_TIME_MAX).ok();
        }
    }
}

impl Exports {
    /// Adds the counters to the metrics.
    pub fn register(&self, own: &mut Registry) {
        let accepted = self.accepted.clone();
        let help = "Requests with spans that the collector has accepted";
        own.register("trace_exports_accepted", help, accepted);
        let help = "Requests with spans that have failed";
        own.register("trace_exports_failed", help, self.failed.clone());
    }
}

impl Exporting {
    fn wait(&self, channel: &ChannelName, delivery: Delivery) {
        let mut deliveries = self.deliveries.lock();
        if self.waiting.load(Ordering::Relaxed) < WAITING_MAX {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            deliveries.entry(channel.clone()).or_default().push_back(delivery);
        }
    }

    fn export(&self, channel: &ChannelName, delivery: &Delivery) {
        let attributes = vec![
            KeyValue::new(CHANNEL, channel.to_string()),
            KeyValue::new(EVENT_ID, delivery.id.to_string()),
        ];
        let builder = self.tracer.span_builder(format!("deliver {channel}"));
        let builder = builder.with_kind(SpanKind::Internal).with_attributes(attributes);
        let builder =
            builder.with_start_time(opentelemetry::time::now() - delivery.since.elapsed());
        builder.start_with_context(&self.tracer, &context(delivery.trace)).end();
    }
}

impl PublishSpan {
    /// Returns the context in which the publish causes further spans.
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        Some(TraceContext {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        })
    }

    /// Ends the span of a publish that was answered with this HTTP status.
    pub fn answered(self, status: u16) {
        let Some(mut span) = self.0 else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
    }
}

impl StoreSpan {
    /// Ends the span; `error` is the reason why nothing was stored, if the store has failed.
    pub fn ended(self, error: Option<String>) {
        if let (Some(mut span), Some(error)) = (self.0, error) {
            span.set_status(Status::error(error));
        }
    }
}

/// Returns the context whose current span is the one that `trace` names.
fn context(trace: TraceContext) -> Context {
    let TraceContext { trace_id, span_id, flags } = trace;
    let parent = SpanContext::new(
        trace_id.into(),
        span_id.into(),
        TraceFlags::new(flags),
        true,
        TraceState::NONE,
    );
    Context::new().with_remote_span_context(parent)
}
