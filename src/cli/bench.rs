//! `headwater bench` runs subscribers and a publisher against an origin, or a cache in front of it.
//!
//! Every event carries a number and the instant at which it was sent, so each subscriber detects
//! late, duplicate and missing events by itself. The command opens all subscribers, then publishes,
//! and then waits until the last events have arrived.

use super::scrape::Scrape;
use super::units::duration;
use super::{admin, block_on, fail};
use crate::client::agent::Agent;
use crate::client::http::{self, Address, HttpError};
use crate::client::socket::{Frame, Socket};
use crate::client::{EventSource, Interruption, Signal};
use crate::sync::random::random;
use clap::Args;
use hdrhistogram::Histogram;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Most connections that are being opened at the same time.
const OPENING_MAX: usize = 256;
/// Longest wait for the first subscriber to have a stream, if requests have failed.
const OPENING_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the first subscriber to have a stream, if no request has failed. On a quiet
/// channel a cache that shares long polls answers only after `--long-poll-timeout` (20 s).
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How often the publisher sends the events that are due; with one channel they form one batch.
const PUBLISH_PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for the last events to arrive.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(20);
/// Pause before the server's memory is measured, so that it has settled.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);
/// Largest latency that is measured, in microseconds; larger ones are counted as this one.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Number of histograms that share the latencies, so that subscribers rarely wait for a lock.
const HISTOGRAMS: usize = 16;

#[derive(Args, Debug, Clone)]
pub struct BenchArguments {
    /// URL of the origin, or of a cache in front of it
    #[arg(long, env = "HEADWATER_URL", default_value = "http://127.0.0.1:8080")]
    url: Address,
    /// URL to publish to, if subscribers read from another server [default: --url]
    #[arg(long)]
    publish_url: Option<Address>,
    /// URL of the origin's admin listener; with it, the server's CPU and memory are measured too
    #[arg(long, env = "HEADWATER_ADMIN_URL")]
    admin_url: Option<Address>,
    /// Bearer token for the requests to the origin
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Channel to use; with several channels, the prefix of their names
    #[arg(long, default_value = "bench")]
    channel: String,
    /// Number of channels that subscribers and events are spread over (count)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    channels: u64,
    /// Number of subscribers, each with its own connection (count)
    #[arg(long, default_value_t = 100)]
    subscribers: u64,
    /// Events published per second, over all channels (count)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Number of bytes in the data of each event (count, at least 60)
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// How long events are published (time)
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Subscribe over WebSockets instead of streams
    #[arg(long)]
    websocket: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The measurements of all subscribers together.
struct Seen {
    /// The number of this run. Every event has it, so that events of other runs are not counted.
    run: u32,
    begun: Instant,
    open: AtomicU64,
    delivered: AtomicU64,
    duplicates: AtomicU64,
    missing: AtomicU64,
    gap_events: AtomicU64,
    reconnects: AtomicU64,
    broken: AtomicU64,
    /// Why a subscriber could not connect.
    not_open: Mutex<Option<String>>,
    /// When the newest event arrived, in microseconds since `begun`.
    last_delivery: AtomicU64,
    latencies: [Mutex<Histogram<u64>>; HISTOGRAMS],
}

/// The events of a subscriber: their numbers and its index have the same remainder modulo `step`.
#[derive(Clone, Copy)]
struct Selection {
    index: u64,
    step: u64,
}

#[derive(Clone, Copy, Default)]
struct Server {
    cpu_seconds: f64,
    resident_bytes: f64,
}

pub fn run(arguments: BenchArguments) -> ExitCode {
    crate::telemetry::process::raise_file_limit();
    let as_json = arguments.json;
    let result = match block_on(bench(arguments)) {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => return fail(&error),
        Err(error) => return fail(&error),
    };
    match as_json {
        true => println!("{result:#}"),
        false => print(&result),
    }
    match is_exactly_once(&result) {
        true => ExitCode::SUCCESS,
        false => fail(&"events were missing or came twice: see duplicates, gaps and complete"),
    }
}

async fn bench(mut arguments: BenchArguments) -> Result<Value, HttpError> {
    let token = arguments.token.clone();
    arguments.url = arguments.url.with_token(token.clone());
    arguments.publish_url = arguments.publish_url.map(|url| url.with_token(token));
    let seen = Arc::new(Seen::new()?);
    let empty = server(&arguments).await?;
    let (last, lasts) = watch::channel(None);
    let mut subscribers = open_subscribers(&arguments, &seen, &lasts).await?;
    sleep(SETTLE_PAUSE).await;
    let idle = server(&arguments).await?;
    let from = seen.micros();
    let published = publish(&arguments, &seen).await?;
    last.send_replace(Some(published));
    let arrived = async { while subscribers.join_next().await.is_some() {} };
    let is_complete = timeout(ARRIVAL_TIME_MAX, arrived).await.is_ok();
    let busy = server(&arguments).await?;
    subscribers.shutdown().await;
    Ok(report(&arguments, &seen, published, from, is_complete, [empty, idle, busy]))
}

async fn open_subscribers(
    arguments: &BenchArguments,
    seen: &Arc<Seen>,
    lasts: &watch::Receiver<Option<u64>>,
) -> Result<JoinSet<()>, HttpError> {
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let mut subscribers = JoinSet::new();
    for index in 0..arguments.subscribers {
        let selection = Selection { index, step: arguments.channels };
        let (url, channel) = (arguments.url.clone(), arguments.channel(index));
        let (seen, lasts, opening) = (seen.clone(), lasts.clone(), opening.clone());
        if arguments.websocket {
            subscribers.spawn(socket_subscriber(selection, url, channel, seen, lasts, opening));
        } else {
            let source = EventSource::new(url, arguments.path(index), None);
            subscribers.spawn(subscriber(selection, source, seen, lasts, opening));
        }
    }
    let bar =
        bar(arguments.subscribers, "opening {human_pos} of {human_len} subscribers {wide_bar}");
    let began = Instant::now();
    while seen.open.load(Relaxed) < arguments.subscribers {
        let refused = seen.not_open.lock().clone();
        let longest = refused.as_ref().map_or(ANSWER_TIME_MAX, |_| OPENING_TIME_MAX);
        if seen.open.load(Relaxed) == 0 && began.elapsed() > longest {
            let why = refused.as_deref().unwrap_or("no answer");
            return Err(HttpError(format!("no subscriber has a stream yet: {why}")));
        }
        bar.set_position(seen.open.load(Relaxed));
        if subscribers.try_join_next().is_some() {
            return Err(HttpError("a subscriber was refused".to_owned()));
        }
        sleep(Duration::from_millis(20)).await;
    }
    bar.finish_and_clear();
    Ok(subscribers)
}

async fn subscriber(
    selection: Selection,
    mut source: EventSource,
    seen: Arc<Seen>,
    mut lasts: watch::Receiver<Option<u64>>,
    opening: Arc<Semaphore>,
) {
    // The semaphore is never closed.
    let mut permit = opening.acquire_owned().await.ok();
    let mut number = None;
    loop {
        let signal = tokio::select! {
            signal = source.next() => signal,
            Ok(_) = lasts.wait_for(|last| selection.has_all(number, *last)) => return,
        };
        match signal {
            Signal::Opened => {
                if permit.take().is_some() {
                    seen.open.fetch_add(1, Relaxed);
                }
            }
            Signal::Message(message) if message.kind == "message" => {
                number = seen.note(selection, number, &message.data);
            }
            Signal::Message(message) if message.kind == "gap" => {
                seen.gap_events.fetch_add(1, Relaxed);
            }
            Signal::Message(_) => {}
            Signal::Reconnecting { why, .. } => {
                seen.reconnects.fetch_add(1, Relaxed);
                if let Interruption::Broken(why) = why {
                    seen.broken.fetch_add(1, Relaxed);
                    if permit.is_some() {
                        *seen.not_open.lock() = Some(why);
                    }
                }
            }
            Signal::Closed { .. } => return,
        }
        if selection.has_all(number, *lasts.borrow_and_update()) {
            return;
        }
    }
}

/// Does the same as `subscriber` over a WebSocket, which has no planned end: any end is a fault.
async fn socket_subscriber(
    selection: Selection,
    url: Address,
    channel: String,
    seen: Arc<Seen>,
    mut lasts: watch::Receiver<Option<u64>>,
    opening: Arc<Semaphore>,
) {
    let mut permit = opening.acquire_owned().await.ok();
    let Ok(mut socket) = Socket::open(&url).await else { return };
    if socket.subscribe(&channel).await.is_err() {
        return;
    }
    let mut number = None;
    while !selection.has_all(number, *lasts.borrow_and_update()) {
        let frame = tokio::select! {
            frame = socket.next() => frame,
            Ok(_) = lasts.wait_for(|last| selection.has_all(number, *last)) => return,
        };
        match frame {
            Some(Frame::Ack) => {
                permit.take();
                seen.open.fetch_add(1, Relaxed);
            }
            Some(Frame::Event { data }) => number = seen.note(selection, number, &data),
            Some(Frame::Gap) => drop(seen.gap_events.fetch_add(1, Relaxed)),
            Some(Frame::Other) => {}
            None => {
                seen.broken.fetch_add(1, Relaxed);
                return;
            }
        }
    }
}

/// Publishes the events that are due every few milliseconds. Returns the number of the last event.
async fn publish(arguments: &BenchArguments, seen: &Seen) -> Result<u64, HttpError> {
    let url = arguments.publish_url.as_ref().unwrap_or(&arguments.url);
    let mut agent = Agent::new(url.clone());
    let total = (arguments.rate as f64 * arguments.duration.as_secs_f64()) as u64;
    let bar = bar(total, "published {human_pos} of {human_len} {wide_bar} {msg}");
    let mut ticks = interval(PUBLISH_PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let mut published = 0;
    while published < total {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * arguments.rate as f64) as u64 + 1;
        let due = due.min(total);
        if due == published {
            continue;
        }
        // With one channel, all due events form one batch; with several, each event is a request.
        let at_once = if arguments.channels == 1 { due - published } else { 1 };
        while published < due {
            let lines = published + 1..=published + at_once;
            let lines = lines.map(|number| seen.event(number, arguments.size)).collect::<String>();
            published += at_once;
            let path = arguments.path(published);
            let headers = [(CONTENT_TYPE, "application/x-ndjson")];
            let answer = agent.send(Method::POST, &path, &headers, lines.into()).await?;
            let status = answer.status();
            let answer = http::text(answer).await?;
            if status != StatusCode::CREATED {
                return Err(HttpError(answer));
            }
        }
        bar.set_position(published);
        bar.set_message(format!("{} delivered", seen.delivered.load(Relaxed)));
    }
    bar.finish_and_clear();
    Ok(published)
}

impl BenchArguments {
    /// The path for the subscriber with this index, and for the event with this number.
    fn path(&self, number: u64) -> String {
        format!("/channels/{}", self.channel(number))
    }

    fn channel(&self, number: u64) -> String {
        match self.channels {
            1 => self.channel.clone(),
            channels => format!("{}-{}", self.channel, number % channels),
        }
    }
}

impl Selection {
    /// Whether the subscriber has received the last of the `published` events of its channel.
    /// `seen`: the highest number that it has received.
    fn has_all(self, seen: Option<u64>, published: Option<u64>) -> bool {
        let Some(published) = published else { return false };
        let behind = (published + self.step - self.index % self.step) % self.step;
        seen.unwrap_or(0) >= published.saturating_sub(behind)
    }
}

impl Seen {
    fn new() -> Result<Self, HttpError> {
        let histogram = || {
            let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
            histogram.map_err(|error| HttpError(error.to_string()))
        };
        let histograms: Result<Vec<_>, _> =
            (0..HISTOGRAMS).map(|_| histogram().map(Mutex::new)).collect();
        let latencies = histograms?.try_into();
        Ok(Self {
            run: random() as u32,
            begun: Instant::now(),
            open: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            gap_events: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            not_open: Mutex::default(),
            last_delivery: AtomicU64::new(0),
            latencies: latencies.map_err(|_| HttpError("histograms".to_owned()))?,
        })
    }

    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// A line of a batch; its data is `[run, number, sent at (µs), padding]` and has `size` bytes.
    fn event(&self, number: u64, size: usize) -> String {
        let head = format!("[{},{number},{},\"", self.run, self.micros());
        let padding = size.saturating_sub(head.len() + 2);
        format!("{{\"data\":{head}{:x<padding$}\"]}}\n", "")
    }

    /// Counts a received event. Returns the highest number that the subscriber has received so far.
    fn note(&self, selection: Selection, before: Option<u64>, data: &str) -> Option<u64> {
        let mut parts = data.trim_start_matches('[').splitn(4, ',').map(str::parse::<u64>);
        let (Some(Ok(run)), Some(Ok(number)), Some(Ok(sent_at))) =
            (parts.next(), parts.next(), parts.next())
        else {
            return before;
        };
        if run != u64::from(self.run) {
            return before;
        }
        let now = self.micros();
        self.delivered.fetch_add(1, Relaxed);
        self.last_delivery.store(now, Relaxed);
        let histogram = &self.latencies[selection.index as usize % HISTOGRAMS];
        let mut histogram = histogram.lock();
        histogram.saturating_record(now.saturating_sub(sent_at).max(1));
        if before.is_some_and(|before| number <= before) {
            self.duplicates.fetch_add(1, Relaxed);
            return before;
        }
        let since = |before| (number - before) / selection.step - 1;
        self.missing.fetch_add(before.map_or((number - 1) / selection.step, since), Relaxed);
        Some(number)
    }
}

/// CPU time and memory of the server according to its metrics; zero without `--admin-url`.
async fn server(arguments: &BenchArguments) -> Result<Server, HttpError> {
    let Some(admin) = &arguments.admin_url else { return Ok(Server::default()) };
    let text = admin::request(admin, Method::GET, "/metrics").await.map_err(HttpError)?;
    let metrics = Scrape::parse(&text);
    let cpu_seconds = metrics.total("process_cpu_seconds_total");
    Ok(Server { cpu_seconds, resident_bytes: metrics.total("process_resident_memory_bytes") })
}

fn report(
    arguments: &BenchArguments,
    seen: &Seen,
    published: u64,
    from: u64,
    is_complete: bool,
    [empty, idle, busy]: [Server; 3],
) -> Value {
    let mut latencies = seen.latencies[0].lock().clone();
    for other in &seen.latencies[1..] {
        // All histograms have the same bounds, so adding them cannot fail.
        latencies.add(&*other.lock()).unwrap_or_default();
    }
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let delivered = seen.delivered.load(Relaxed);
    let seconds = seen.last_delivery.load(Relaxed).saturating_sub(from) as f64 / 1e6;
    let mut result = json!({
        "subscribers": arguments.subscribers,
        "channels": arguments.channels,
        "rate": arguments.rate,
        "size": arguments.size,
        "published": published,
        "delivered": delivered,
        "delivered_per_second": (delivered as f64 / seconds.max(1e-6)).round(),
        "latency_ms": { "p50": ms(0.5), "p90": ms(0.9), "p99": ms(0.99), "max": ms(1.0) },
        "duplicates": seen.duplicates.load(Relaxed),
        "gaps": seen.missing.load(Relaxed) + seen.gap_events.load(Relaxed),
        "reconnects": seen.reconnects.load(Relaxed),
        "broken": seen.broken.load(Relaxed),
        "complete": is_complete,
    });
    if arguments.admin_url.is_some() {
        let cpu_us = (busy.cpu_seconds - idle.cpu_seconds) * 1e6;
        let memory = idle.resident_bytes - empty.resident_bytes;
        result["server_cpu_us_per_delivery"] = json!(round(cpu_us / delivered.max(1) as f64));
        result["server_kib_per_subscriber"] =
            json!(round(memory / 1024.0 / arguments.subscribers.max(1) as f64));
    }
    result
}

/// Whether each subscriber received each event once.
fn is_exactly_once(result: &Value) -> bool {
    let is_zero = |name: &str| result[name].as_u64() == Some(0);
    is_zero("duplicates") && is_zero("gaps") && result["complete"] == true
}

fn print(result: &Value) {
    let Value::Object(members) = result else { return };
    for (name, value) in members {
        match value {
            Value::Object(parts) => {
                let parts = parts.iter().map(|(name, value)| format!("{name} {value}"));
                println!("{name:>28}  {}", parts.collect::<Vec<_>>().join(", "));
            }
            value => println!("{name:>28}  {value}"),
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A progress bar, which is visible only when standard error is a terminal.
fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_a_lost_or_doubled_event_fails() {
        let whole = json!({ "duplicates": 0, "gaps": 0, "complete": true });
        assert!(is_exactly_once(&whole));
        for (name, value) in
            [("duplicates", json!(1)), ("gaps", json!(1)), ("complete", json!(false))]
        {
            let mut result = whole.clone();
            result[name] = value;
            assert!(!is_exactly_once(&result), "{name}");
        }
    }
}
