//! `headwater stats` shows the load and the delays of one or more origins, from their metrics.

use super::output::reader_gone;
use super::scrape::Scrape;
use super::table::{aligned, grouped};
use super::{admin, block_on, fail};
use crate::client::http::Address;
use bytesize::ByteSize;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Clears the terminal and moves the cursor to its beginning (ECMA-48).
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Args, Debug)]
pub struct StatsArguments {
    /// Admin listeners of the origins (--admin-listen), separated by commas
    #[arg(
        long = "admin-url",
        env = "HEADWATER_ADMIN_URL",
        default_value = "http://127.0.0.1:8081",
        value_delimiter = ','
    )]
    admin_urls: Vec<Address>,
    /// Time between two looks at the origins, over which rates and delays are measured
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Number of channels to list: those with the most subscribers at all origins (count)
    #[arg(long, default_value_t = 10)]
    channels: usize,
    /// Stop after this number of tables [default: run until it is stopped]
    #[arg(long)]
    count: Option<u64>,
    /// Print a JSON object for each look
    #[arg(long)]
    json: bool,
}

/// What was read of one origin at one time.
struct Look {
    at: Instant,
    scrape: Scrape,
    /// The number of subscribers of each channel that has any.
    subscribers: BTreeMap<String, u64>,
}

/// The figures of one origin between two looks.
struct Figures {
    now: Scrape,
    grown: Scrape,
    seconds: f64,
}

/// One figure: its name as JSON, its name in the table, and how it is shown.
type Row = (&'static str, &'static str, fn(&Figures) -> Option<f64>, fn(f64) -> String);

/// The figures, in the order of the table.
const ROWS: [Row; 16] = [
    ("ready", "ready", |figures| Some(figures.now.total("headwater_ready")), yes_or_no),
    ("connections", "connections", |f| Some(f.now.total("headwater_connections_open")), count),
    ("streams", "streams", |f| Some(f.now.total("headwater_streams_open")), count),
    ("websockets", "WebSockets", |f| Some(f.now.total("headwater_websockets_open")), count),
    (
        "channels_in_memory",
        "channels in memory",
        |f| Some(f.now.total("headwater_channels_live")),
        count,
    ),
    ("events_in_per_second", "events in a second", |f| f.rate("headwater_events_in_total"), rate),
    (
        "events_out_per_second",
        "events out a second",
        |f| f.rate("headwater_events_out_total"),
        rate,
    ),
    (
        "bytes_out_per_second",
        "bytes out a second",
        |f| f.rate("headwater_streams_out_bytes_total"),
        bytes,
    ),
    (
        "streams_per_second",
        "streams begun a second",
        |f| f.rate("headwater_streams_opened_total"),
        rate,
    ),
    ("requests_per_response", "requests a shared response", Figures::requests_per_response, ratio),
    (
        "publish_p50_seconds",
        "publish, p50",
        |f| f.grown.quantile("headwater_publish_seconds", 0.5),
        time,
    ),
    (
        "publish_p99_seconds",
        "publish, p99",
        |f| f.grown.quantile("headwater_publish_seconds", 0.99),
        time,
    ),
    (
        "delivery_p99_seconds",
        "delivery, p99",
        |f| f.grown.quantile("headwater_delivery_seconds", 0.99),
        time,
    ),
    ("shed_per_second", "streams shed a second", |f| f.rate("headwater_streams_shed_total"), rate),
    (
        "refused_per_second",
        "publishes refused a second",
        |f| f.rate("headwater_publishes_refused_total"),
        rate,
    ),
    ("resident_bytes", "memory", |f| Some(f.now.total("process_resident_memory_bytes")), bytes),
];

impl Figures {
    fn rate(&self, name: &str) -> Option<f64> {
        Some(self.grown.total(name) / self.seconds)
    }

    /// The requests for a stream that a cache may share, for each different one. Behind a cache
    /// that shares all of them this is 1.
    fn requests_per_response(&self) -> Option<f64> {
        let name = "headwater_shareable_requests_total";
        let first = self.grown.labelled(name, "kind", "first");
        (first > 0.0).then(|| self.grown.total(name) / first)
    }
}

pub fn run(arguments: StatsArguments) -> ExitCode {
    let shown = block_on(async {
        tokio::select! {
            shown = show(&arguments) => shown,
            () = reader_gone() => Ok(()),
        }
    });
    match shown {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => fail(&why),
        Err(error) => fail(&error),
    }
}

async fn show(arguments: &StatsArguments) -> Result<(), String> {
    let mut before: Vec<Option<Look>> =
        looks(arguments).await.into_iter().map(Result::ok).collect();
    if before.iter().all(Option::is_none) {
        // With no origin there is nothing to show, and the first error says why.
        let first = looks(arguments).await.into_iter().find_map(Result::err);
        return Err(first.unwrap_or_default());
    }
    let mut shown = 0;
    while arguments.count.is_none_or(|count| shown < count) {
        tokio::time::sleep(arguments.interval).await;
        let now = looks(arguments).await;
        match arguments.json {
            true => println!("{}", as_json(arguments, &before, &now)),
            false => print(arguments, &before, &now),
        }
        before = now.into_iter().map(Result::ok).collect();
        shown += 1;
    }
    Ok(())
}

async fn looks(arguments: &StatsArguments) -> Vec<Result<Look, String>> {
    let looks = arguments.admin_urls.iter().map(|address| look(address, arguments.channels > 0));
    futures_util::future::join_all(looks).await
}

async fn look(address: &Address, with_channels: bool) -> Result<Look, String> {
    let text = admin::request(address, Method::GET, "/metrics").await?;
    let (at, scrape) = (Instant::now(), Scrape::parse(&text));
    let mut subscribers = BTreeMap::new();
    if with_channels {
        let path = "/channels?subscribed=true&limit=1000";
        let text = admin::request(address, Method::GET, path).await?;
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        let channels = list["channels"].as_array().into_iter().flatten();
        subscribers.extend(channels.filter_map(|channel| {
            Some((channel["name"].as_str()?.to_owned(), channel["subscribers"].as_u64()?))
        }));
    }
    Ok(Look { at, scrape, subscribers })
}

/// The figures of one origin, or `None` if it did not answer both looks.
fn figures(before: Option<&Look>, now: &Result<Look, String>) -> Option<Figures> {
    let (before, now) = (before?, now.as_ref().ok()?);
    let grown = now.scrape.since(&before.scrape);
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    Some(Figures { now: now.scrape.clone(), grown, seconds })
}

/// The channels with the most subscribers at all origins together.
fn busiest(now: &[Result<Look, String>], count: usize) -> Vec<(String, u64)> {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for look in now.iter().flatten() {
        for (name, subscribers) in &look.subscribers {
            *all.entry(name).or_default() += subscribers;
        }
    }
    let mut all: Vec<_> = all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    all.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    all.truncate(count);
    all
}

fn print(arguments: &StatsArguments, before: &[Option<Look>], now: &[Result<Look, String>]) {
    let columns = before.iter().zip(now).map(|(before, now)| figures(before.as_ref(), now));
    let columns: Vec<Option<Figures>> = columns.collect();
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(arguments.admin_urls.iter().map(ToString::to_string));
    for (_, title, of, shown) in ROWS {
        let cell = |figures: &Option<Figures>| match figures.as_ref() {
            None => "no answer".to_owned(),
            Some(figures) => of(figures).map_or_else(|| "none".to_owned(), shown),
        };
        let mut row = vec![title.to_owned()];
        row.extend(columns.iter().map(cell));
        rows.push(row);
    }
    let mut out = aligned(&rows);
    let busiest = busiest(now, arguments.channels);
    if !busiest.is_empty() {
        let mut rows = vec![vec!["CHANNEL".to_owned(), "SUBSCRIBERS".to_owned()]];
        rows.extend(busiest.into_iter().map(|(name, count)| vec![name, grouped(count)]));
        out += &format!("\n\n{}", aligned(&rows));
    }
    for why in now.iter().filter_map(|look| look.as_ref().err()) {
        out += &format!("\n{why}");
    }
    let is_live = stdout().is_terminal() && arguments.count.is_none();
    let (clear, after) = if is_live { (CLEAR, "") } else { ("", "\n") };
    println!("{clear}{out}{after}");
}

fn as_json(
    arguments: &StatsArguments,
    before: &[Option<Look>],
    now: &[Result<Look, String>],
) -> Value {
    let origins = arguments.admin_urls.iter().zip(before.iter().zip(now));
    let origins = origins.map(|(address, (before, now))| {
        let mut origin = json!({ "admin_url": address.to_string() });
        if let Some(figures) = figures(before.as_ref(), now) {
            for (name, _, of, _) in ROWS {
                origin[name] = json!(of(&figures));
            }
        }
        if let Err(why) = now {
            origin["error"] = json!(why);
        }
        origin
    });
    let channels = busiest(now, arguments.channels).into_iter();
    let channels = channels.map(|(name, count)| json!({ "name": name, "subscribers": count }));
    json!({ "origins": origins.collect::<Vec<_>>(), "channels": channels.collect::<Vec<_>>() })
}

fn yes_or_no(value: f64) -> String {
    if value > 0.0 { "yes" } else { "NO" }.to_owned()
}

fn count(value: f64) -> String {
    grouped(value as u64)
}

fn rate(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { grouped(value.round() as u64) }
}

fn bytes(value: f64) -> String {
    ByteSize(value as u64).to_string()
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1_000.0) } else { format!("{seconds:.2} s") }
}
