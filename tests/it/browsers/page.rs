//! The overview of `serve --demo`, in a real browser: it receives each event once, over boundaries and
//! restarts.

use crate::browsers::browser::Browser;
use crate::kit::{Origin, PATIENCE};
use serde_json::Value;
use tempfile::TempDir;

/// True when every cell of the board has text and every price is a number above 0.
const IS_FILLED: &str = r##"
    document.querySelectorAll("#board tr:not([hidden])").length === 8
    && [...document.querySelectorAll("#board .spoken")].every((cell) => cell.textContent)
    && document.querySelectorAll("#prices b").length === 4
    && [...document.querySelectorAll("#prices b")].every((price) => Number(price.textContent) > 0)
"##;
const CHANNELS: [&str; 2] = ["departures", "ticker"];

/// A browser that shows the overview of an origin.
struct Shown {
    browser: Browser,
    origin: Origin,
    _directory: TempDir,
}

impl Shown {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the store");
        let store = format!("disk:{}", directory.path().display());
        let origin = Origin::with(&["--demo", "--segment", "2s", "--store", &store]);
        let browser = Browser::start().await;
        browser.open(&format!("http://{}/", origin.listen)).await;
        Self { browser, origin, _directory: directory }
    }

    /// Returns the counters of the page.
    async fn counts(&self) -> Value {
        self.browser.run("return window.headwater").await
    }

    /// Returns the times, cities and stages that the board shows.
    async fn board(&self) -> Vec<String> {
        let spoken = "document.querySelectorAll('#board .spoken')";
        let texts = format!("return [...{spoken}].map((cell) => cell.textContent)");
        strings(&self.browser.run(&texts).await)
    }

    /// Returns what the board of the origin's state should show.
    async fn first_flights(&self) -> Vec<String> {
        let state = self.origin.get("/channels/departures/state").await.json();
        let data = |event: &Value| serde_json::from_str(event["data"].as_str().expect("data"));
        let events = state["events"].as_array().expect("events").iter();
        let mut flights: Vec<Value> = events.map(|event| data(event).expect("JSON")).collect();
        flights.sort_by_key(|flight| flight["minute"].as_u64());
        let cells = |flight: &Value| ["time", "to", "status"].map(|name| string(&flight[name]));
        flights.iter().take(8).flat_map(cells).collect()
    }

    /// Checks that the page received every event between its first and its last once and in order.
    async fn assert_whole(&self) {
        // The page is read first, so that every event that it has is certainly in the log.
        let counts = self.counts().await;
        assert_eq!((number(&counts["missing"]), number(&counts["repeated"])), (0, 0));
        for channel in CHANNELS {
            let counts = &counts["channels"][channel];
            assert_eq!(counts["gaps"], 0, "{channel}");
            let ids = strings(&counts["ids"]);
            assert!(ids.len() > 1, "{channel}: {ids:?}");
            assert_eq!(ids.len() as u64, number(&counts["events"]), "{channel}");
            let logged = self.logged(channel, &ids[0], &ids[ids.len() - 1]).await;
            assert_eq!(ids, logged, "{channel}");
        }
    }

    /// Reads the ids from `first` to `last` from the origin's own log.
    async fn logged(&self, channel: &str, first: &str, last: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut after = "0-0".to_owned();
        while !ids.iter().any(|id| id == last) {
            let path = format!("/channels/{channel}/history?after={after}&limit=1000");
            let page = self.origin.get(&path).await.json();
            let events = page["events"].as_array().expect("events");
            assert!(!events.is_empty(), "{last} is not in the log of {channel}");
            ids.extend(events.iter().map(|event| string(&event["id"])));
            after = string(&page["next"]);
        }
        let place = |id| ids.iter().position(|one| one == id).expect("the id is in the log");
        ids[place(first)..=place(last)].to_vec()
    }
}

#[tokio::test]
async fn the_page_gets_each_event_once_over_segment_boundaries() {
    let shown = Shown::start().await;
    shown.browser.wait_for(IS_FILLED).await;
    // Each boundary counts two `segment` events, a closing and an opening one. One of a pair may
    // have been counted before.
    let segments = number(&shown.counts().await["segments"]) + 2 * 3 + 1;
    shown.browser.wait_for(&format!("headwater.segments >= {segments}")).await;
    shown.browser.wait_for(IS_FILLED).await;
    shown.assert_whole().await;
}

#[tokio::test]
async fn the_page_goes_on_by_itself_when_its_origin_was_killed_and_comes_back() {
    let mut shown = Shown::start().await;
    for channel in CHANNELS {
        shown.browser.wait_for(&format!("headwater.channels.{channel}.events > 1")).await;
    }
    let before = shown.counts().await;
    shown.origin.kill();
    // The broken stream counts as one error, and the failed reconnect as another.
    let errors = number(&before["reconnects"]) + 2;
    shown.browser.wait_for(&format!("headwater.reconnects >= {errors}")).await;
    let during = shown.counts().await;
    shown.origin.start_again();
    // The page continues over a segment boundary too, and does not only catch up.
    let segments = number(&during["segments"]) + 3;
    shown.browser.wait_for(&format!("headwater.segments >= {segments}")).await;
    for channel in CHANNELS {
        let events = number(&during["channels"][channel]["events"]) + 3;
        shown.browser.wait_for(&format!("headwater.channels.{channel}.events >= {events}")).await;
    }
    shown.browser.wait_for(IS_FILLED).await;
    // The board has the flights of the state in their order, and none that is gone.
    let same = async { while shown.board().await != shown.first_flights().await {} };
    tokio::time::timeout(PATIENCE, same).await.expect("the board shows the state");
    shown.assert_whole().await;
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn string(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().expect("texts").iter().map(string).collect()
}
