//! The demo page of `serve --demo`, tested with the `EventSource` of a real browser.

use crate::browsers::browser::Browser;
use crate::kit::Origin;
use serde_json::Value;
use tempfile::TempDir;

/// True when every cell of the board has text and every price is a number above 0.
const IS_FILLED: &str = r##"
    document.querySelectorAll("#board tr").length > 1
    && [...document.querySelectorAll("#board td")].every((cell) => cell.textContent)
    && document.querySelectorAll("#ticker b").length === 6
    && [...document.querySelectorAll("#ticker b")].every((price) => Number(price.textContent) > 0)
"##;

/// A browser that shows the demo page of an origin.
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

    /// Checks that the page received every event between its first and its last once and in order.
    async fn assert_whole(&self) {
        // The page is read first, so that every event that it has is certainly in the log.
        let counts = self.counts().await;
        assert_eq!((number(&counts["missing"]), number(&counts["repeated"])), (0, 0));
        for channel in ["departures", "ticker"] {
            assert_eq!(counts[channel]["gaps"], 0, "{channel}");
            let ids = strings(&counts[channel]["ids"]);
            assert!(ids.len() > 1, "{channel}: {ids:?}");
            assert_eq!(ids.len() as u64, number(&counts[channel]["events"]), "{channel}");
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
    let before = shown.counts().await;
    // Each boundary counts two `segment` events, a closing and an opening one. One of a pair may
    // have been counted before.
    for channel in ["departures", "ticker"] {
        let segments = number(&before[channel]["segments"]) + 2 * 3 + 1;
        shown.browser.wait_for(&format!("headwater.{channel}.segments >= {segments}")).await;
    }
    shown.browser.wait_for(IS_FILLED).await;
    shown.assert_whole().await;
}

#[tokio::test]
async fn the_page_goes_on_by_itself_when_its_origin_was_killed_and_comes_back() {
    let mut shown = Shown::start().await;
    for channel in ["departures", "ticker"] {
        shown.browser.wait_for(&format!("headwater.{channel}.events > 1")).await;
    }
    let before = shown.counts().await;
    shown.origin.kill();
    // The broken stream counts as one error, and the failed reconnect as another.
    for channel in ["departures", "ticker"] {
        let errors = number(&before[channel]["reconnects"]) + 2;
        shown.browser.wait_for(&format!("headwater.{channel}.reconnects >= {errors}")).await;
    }
    let during = shown.counts().await;
    shown.origin.start_again();
    for channel in ["departures", "ticker"] {
        let (events, segments) = (&during[channel]["events"], &during[channel]["segments"]);
        // The page continues over a segment boundary too, and does not only catch up.
        let (events, segments) = (number(events) + 3, number(segments) + 3);
        let seen = format!("headwater.{channel}");
        let goes_on = format!("{seen}.events >= {events} && {seen}.segments >= {segments}");
        shown.browser.wait_for(&goes_on).await;
    }
    shown.browser.wait_for(IS_FILLED).await;
    // The flights from before the restart are no longer on the board.
    shown.browser.wait_for("document.querySelectorAll('#board tr').length <= 12").await;
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
