//! The boards of `serve --demo` at 100 events a second behind Varnish, in each engine: when
//! their channels have ended, they show the state, and no event is missing or has arrived twice.

use crate::kit::edge::Cache;
use crate::kit::engine::Engine;
use crate::kit::visitor::{Report, Visitor};
use crate::kit::{Origin, alone, now_ms};
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::interval;

/// The columns of the departures board, with the numbers of their flaps.
const COLUMNS: [(&str, usize); 5] =
    [("time", 5), ("flight", 5), ("to", 10), ("gate", 3), ("status", 10)];
const ROWS: usize = 14;
/// The flights of the test. The other rows are flights of the demo.
const OWN_FLIGHTS: u64 = 9;
const CITIES: [&str; 4] = ["Oslo", "Bogotá", "Zürich", "Wellington"];
const STATUSES: [&str; 5] = ["Scheduled", "Check-in", "Delayed", "Boarding", "Final call"];
/// 100 events a second.
const PAUSE: Duration = Duration::from_millis(10);
/// The events that a page receives at least while there are 100 a second.
const EVENTS: usize = 500;
/// The ticker publishes 100 prices a second in the last third of each period.
const PERIOD_MS: u64 = 30_000;
const BUSY_FROM_MS: u64 = 20_000;
/// The time of the period at which the demo starts: the first board is done when the market is busy.
const START_MS: u64 = 8_000;

/// A demo whose clock is at `START_MS` of a period.
fn demo() -> Origin {
    let off = (PERIOD_MS + START_MS - now_ms() % PERIOD_MS) % PERIOD_MS;
    let off = format!("+{}.{:03}s", off / 1_000, off % 1_000);
    Origin::with_clock(&off, &["--demo", "--segment", "2s", "--store", "memory"])
}

/// The event with this number: it moves a flight to another row, and one of twelve removes one.
fn flight(number: u64) -> String {
    let key = format!("TF{}", number % OWN_FLIGHTS);
    if number % 12 == 11 {
        return json!({ "key": key, "remove": true }).to_string() + "\n";
    }
    let pick = |names: &[&'static str]| names[number as usize % names.len()];
    // The flights of the demo leave later, so they are below these.
    let data = json!({
        "flight": key,
        "minute": number,
        "time": format!("{:02}:{:02}", number / 60 % 24, number % 60),
        "clock": "00:00",
        "to": pick(&CITIES),
        "gate": format!("A{}", number % 24),
        "status": pick(&STATUSES),
    });
    json!({ "key": key, "data": data.to_string() }).to_string() + "\n"
}

/// Publishes 100 changes of the board a second until the future is dropped.
async fn fly(origin: &Origin) {
    let mut ticks = interval(PAUSE);
    for number in 0.. {
        ticks.tick().await;
        origin.publish_lines("departures", &flight(number)).await;
    }
}

/// The data of the events of a state.
async fn state(origin: &Origin, channel: &str) -> Vec<Value> {
    let state = origin.get(&format!("/channels/{channel}/state")).await.json();
    let data = |event: &Value| event["data"].as_str().expect("data").to_owned();
    let events = state["events"].as_array().expect("events").iter();
    events.map(|event| serde_json::from_str(&data(event)).expect("JSON")).collect()
}

/// The texts of the departures board for this state, as in a report.
fn board(mut flights: Vec<Value>) -> Vec<Vec<String>> {
    flights.sort_by_key(|flight| flight["minute"].as_u64());
    let row = |flight: &Value| {
        let text = |name: &str| flight[name].as_str().expect("a text").to_owned();
        let spoken = COLUMNS.iter().map(|(name, _)| text(name));
        let flaps = COLUMNS.iter().map(|&(name, length)| {
            let padded = format!("{:length$}", text(name).to_uppercase());
            padded.chars().take(length).collect()
        });
        spoken.chain(flaps).collect()
    };
    flights.iter().take(ROWS).map(row).collect()
}

/// The tiles of the ticker for this state, as in a report.
fn tiles(prices: Vec<Value>) -> Vec<[String; 2]> {
    let tile = |price: &Value| {
        let (symbol, price) = (price["symbol"].as_str(), price["price"].as_f64());
        let price = price.expect("a price");
        // Five digits.
        let decimals = (4 - price.log10().floor() as i32).max(0) as usize;
        [symbol.expect("a symbol").to_owned(), format!("{price:.decimals$}")]
    };
    let mut tiles: Vec<_> = prices.iter().map(tile).collect();
    tiles.sort();
    tiles
}

/// Ends a channel. Its state does not change any more.
async fn end(origin: &Origin, channel: &str) {
    let path = format!("/channels/{channel}");
    let answer = origin.request(Method::DELETE, &path, &[], "").await;
    assert!(answer.status.is_success(), "{}", answer.body);
}

/// Checks that the page has received each event of the log once and in order, from its first event
/// to the last of the channel.
async fn assert_whole(shown: &Report, origin: &Origin, channel: &str) {
    let logged: Vec<_> = origin.log(channel).await.into_iter().map(|(id, _)| id).collect();
    let first = logged.iter().position(|id| *id == shown.ids[0]).expect("it is logged");
    assert_eq!(shown.ids, logged[first..]);
    assert_eq!((shown.missing, shown.repeated), (0, 0));
    assert!(shown.faults.is_empty(), "{:?}", shown.faults);
}

fn has_ended(shown: &Report) -> bool {
    shown.status == "Ended: the channels are closed"
}

async fn the_boards_are_right(engine: Engine) {
    let origin = demo();
    let cache = Cache::varnish(origin.listen.port());
    let mut visitor = Visitor::open_at(engine, cache.port, "/demo/departures").await;
    visitor.until("the board is live", |shown| shown.status == "Live").await;
    let received = visitor.until("it receives the flights", |shown| shown.ids.len() >= EVENTS);
    tokio::select! {
        _ = received => {}
        () = fly(&origin) => unreachable!("it publishes without end"),
    }
    end(&origin, "departures").await;
    let flights = board(state(&origin, "departures").await);
    assert_eq!(flights.len(), ROWS);
    let is_right = |shown: &Report| has_ended(shown) && shown.board == flights;
    let shown = visitor.until(&format!("it shows {flights:#?}"), is_right).await;
    assert_whole(&shown, &origin, "departures").await;

    visitor.go("/demo/ticker");
    let is_busy = |id: &&String| {
        let (time, _) = id.split_once('-').expect("an id");
        time.parse::<u64>().expect("a time") % PERIOD_MS >= BUSY_FROM_MS
    };
    let is_enough = |shown: &Report| shown.ids.iter().filter(is_busy).count() >= EVENTS;
    visitor.until("it receives the prices", is_enough).await;
    end(&origin, "ticker").await;
    let prices = tiles(state(&origin, "ticker").await);
    assert_eq!(prices.len(), 12);
    let is_right = |shown: &Report| has_ended(shown) && shown.prices == prices;
    let shown = visitor.until(&format!("it shows {prices:#?}"), is_right).await;
    assert_whole(&shown, &origin, "ticker").await;
}

#[tokio::test]
async fn the_boards_are_right_at_100_events_a_second_in_chromium() {
    let _alone = alone().await;
    the_boards_are_right(Engine::Chromium).await;
}

#[tokio::test]
async fn the_boards_are_right_at_100_events_a_second_in_firefox() {
    let _alone = alone().await;
    the_boards_are_right(Engine::Firefox).await;
}

#[tokio::test]
async fn the_boards_are_right_at_100_events_a_second_in_webkit() {
    let _alone = alone().await;
    the_boards_are_right(Engine::WebKit).await;
}
