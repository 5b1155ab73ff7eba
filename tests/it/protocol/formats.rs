//! `?format=json` and removals: a live reader and a client that joins later reach the same state,
//! whichever way they read.

use crate::kit::socket::Socket;
use crate::kit::{BINARY, Origin, get, next_message, read_until, unchunk};
use headwater::client::EventSource;
use headwater::client::Signal;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// The state that a page builds from the events of a stream in JSON: the data of each key of each
/// channel.
#[derive(Debug, Default, PartialEq)]
struct Board(BTreeMap<(String, String), String>);

impl Board {
    fn take(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().expect("a text").to_owned();
        let place = (text("channel"), text("key"));
        match event["removed"] == true {
            true => drop(self.0.remove(&place)),
            false => drop(self.0.insert(place, text("data"))),
        }
    }

    /// Reads events until one has the data `last`.
    async fn read(source: &mut EventSource) -> Self {
        let mut board = Self::default();
        loop {
            let message = next_message(source).await;
            assert_eq!(message.kind, "message", "one onmessage gets all: {}", message.data);
            let event: Value = serde_json::from_str(&message.data).expect("a JSON object");
            if event["data"] == "last" {
                return board;
            }
            board.take(&event);
        }
    }
}

// protocol §9.2
#[tokio::test]
async fn a_live_reader_and_a_fresh_join_end_with_the_same_state() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    origin.publish_with("fx", "key=EURUSD", r#"{"bid":1}"#).await;
    let path = "/channels/fx,metals?format=json";
    let mut live = origin.source(path, None);
    let first = next_message(&mut live).await;
    let first: Value = serde_json::from_str(&first.data).expect("a JSON object");
    let expected = json!({
        "type": "event", "channel": "fx", "key": "EURUSD", "data": r#"{"bid":1}"#,
    });
    assert_eq!(first, expected);
    origin.publish_with("fx", "key=EURUSD&event=price", r#"{"bid":2}"#).await;
    origin.publish_with("fx", "key=GBPUSD", "a\r\n\n\"b\"").await;
    origin.publish_with("metals", "key=GOLD", "2391").await;
    origin.publish_with("metals", "key=TIN", "7").await;
    origin.publish_with("metals", "key=TIN", "").await;
    origin.publish_with("fx", "key=USDJPY", "151").await;
    origin.publish_with("fx", "key=USDJPY&remove=true", "delisted").await;
    origin.publish_with("fx", "event=note", "last").await;
    let mut seen = Board::default();
    seen.take(&first);
    let after = Board::read(&mut live).await;
    for (place, data) in after.0 {
        seen.0.insert(place, data);
    }
    // A client that joins now, and a client that reads the state as a document, have the same
    // state.
    let mut fresh = origin.source(path, None);
    origin.publish_with("fx", "key=GBPUSD", "a\r\n\n\"b\"").await;
    origin.publish_with("fx", "event=note", "last").await;
    let joined = Board::read(&mut fresh).await;
    assert_eq!(joined, seen);
    let mut document = Board::default();
    for channel in ["fx", "metals"] {
        let state = origin.get(&format!("/channels/{channel}/state")).await.json();
        state["events"].as_array().expect("events").iter().for_each(|event| document.take(event));
    }
    assert_eq!(document, seen);
    assert_eq!(seen.0.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn a_removal_with_data_reaches_live_readers_and_leaves_the_state() {
    for store in ["memory", "disk"] {
        let directory = tempfile::tempdir().unwrap();
        let store = match store {
            "disk" => format!("disk:{}", directory.path().display()),
            memory => memory.to_owned(),
        };
        let mut origin = Origin::with(&["--store", &store]);
        let mut socket = Socket::connect(origin.listen).await;
        socket.subscribe("a", Some("0-0")).await;
        origin.publish_with("a", "key=k&event=e", "1").await;
        let id = origin.publish_with("a", "key=k&event=e&remove=true", "gone").await;
        let expected = json!({
            "type": "event", "channel": "a", "id": id, "event": "e", "key": "k", "data": "gone",
            "removed": true,
        });
        socket.hear().await;
        assert_eq!(socket.hear().await, expected);
        // A stream and the history have the same object, also after a restart of the origin.
        if store != "memory" {
            origin.kill();
            origin.start_again();
        }
        let mut source = origin.source("/channels/a?format=json", Some("0-0"));
        next_message(&mut source).await;
        let message = next_message(&mut source).await;
        assert_eq!(serde_json::from_str::<Value>(&message.data).unwrap(), expected);
        assert_eq!((message.kind.as_str(), message.last_event_id), ("message", id.clone()));
        let history = origin.get("/channels/a/history").await.json();
        assert_eq!(history["events"][1], expected);
        let state = origin.get("/channels/a/state").await.json();
        assert_eq!(state["events"], json!([]), "{store}");
        // A reader of the raw format gets the data as published.
        let mut raw = origin.source("/channels/a?after=0-0", None);
        next_message(&mut raw).await;
        let message = next_message(&mut raw).await;
        assert_eq!((message.kind.as_str(), message.data.as_str()), ("e", "gone"));
    }
}

#[tokio::test]
async fn a_removal_is_published_in_a_batch_and_over_a_socket_too() {
    let origin = Origin::start();
    let lines = "{\"key\":\"k\",\"data\":1}\n{\"key\":\"k\",\"data\":2,\"remove\":true}\n\
                 {\"key\":\"l\",\"data\":3}\n";
    origin.publish_lines("a", lines).await;
    let keys = async || {
        let state = origin.get("/channels/a/state").await.json();
        let events = state["events"].as_array().expect("events").clone();
        events.iter().map(|event| event["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys().await, ["l"]);
    let mut socket = Socket::connect(origin.listen).await;
    let removal = json!({
        "type": "publish", "channel": "a", "key": "l", "data": "x", "remove": true,
    });
    socket.say(removal).await;
    let answer = socket.hear().await;
    assert_eq!(answer["type"], "ack", "{answer}");
    assert!(keys().await.is_empty());
    let refused = origin.post("/channels/a?remove=true", &[], "x").await;
    assert_eq!(refused.assert_problem(400, "bad-field")["field"], "remove");
    let refused = origin.post("/channels/a?remove=yes&key=k", &[], "x").await;
    assert_eq!(refused.assert_problem(400, "bad-field")["field"], "remove");
}

#[tokio::test]
async fn one_idempotency_key_does_not_stand_for_an_event_and_a_removal() {
    let origin = Origin::start();
    let headers = [("idempotency-key", "i")];
    let publish = async |query: &str| {
        origin.post(&format!("/channels/a?{query}"), &headers, "x").await.status.as_u16()
    };
    assert_eq!(publish("key=k").await, 201);
    assert_eq!(publish("key=k").await, 200);
    assert_eq!(publish("key=k&remove=true").await, 422);
}

#[tokio::test]
async fn the_end_and_a_gap_name_their_channel() {
    let origin = Origin::start();
    origin.publish("a", "1").await;
    origin.publish("b", "2").await;
    let mut source = origin.source("/channels/a,b?after=nonsense", None);
    for channel in ["a", "b"] {
        let gap = next_message(&mut source).await;
        assert_eq!(gap.kind, "gap");
        let gap: Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!((&gap["channel"], &gap["reason"]), (&channel.into(), &"unknown".into()));
        assert_eq!(gap["requested"], "nonsense");
    }
    for _ in 0..2 {
        assert_eq!(next_message(&mut source).await.kind, "message");
    }
    let ended = origin.request(Method::DELETE, "/channels/b", &[], "").await.json();
    let end = next_message(&mut source).await;
    let data: Value = serde_json::from_str(&end.data).unwrap();
    assert_eq!(end.kind, "end");
    assert_eq!(data, json!({ "type": "end", "channel": "b", "id": ended["id"] }));
    let history = origin.get("/channels/b/history?last=1").await.json();
    assert_eq!(history["events"], json!([data]), "one object, wherever it is read");
}

#[tokio::test]
async fn tail_in_json_says_channel_and_key_and_what_was_removed() {
    let origin = Origin::start();
    origin.publish_with("a", "key=k&event=e", "1").await;
    origin.publish_with("b", "key=k", "").await;
    let mut tail = Command::new(BINARY);
    tail.args(["tail", "a,b", "--after", "0-0", "--count", "2", "--json"]);
    let output = tail.env("HEADWATER_URL", origin.address().to_string()).output().unwrap();
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    let without_id = |event: &Value| {
        let mut event = event.clone();
        // The id is the cursor of both channels, from which another `tail` can continue.
        let id = event["id"].take().as_str().expect("a cursor").to_owned();
        assert_eq!(id.split('_').count(), 2, "{id}");
        event
    };
    assert_eq!(
        without_id(&lines[0]),
        json!({ "channel": "a", "id": null, "event": "e", "key": "k", "data": "1" })
    );
    assert_eq!(
        without_id(&lines[1]),
        json!({
            "channel": "b", "id": null, "event": "message", "key": "k", "data": "",
            "removed": true,
        })
    );
}

#[tokio::test]
async fn raw_and_json_readers_of_one_channel_do_not_disturb_each_other() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let mut raw = origin.source("/channels/a", None);
    let mut json = origin.source("/channels/a?format=json", None);
    for source in [&mut raw, &mut json] {
        assert!(matches!(source.next().await, Signal::Opened));
    }
    for number in 0..200 {
        origin.publish("a", &number.to_string()).await;
        let text = next_message(&mut raw).await.data;
        let object = next_message(&mut json).await.data;
        let object: Value = serde_json::from_str(&object).expect("a JSON object");
        assert_eq!((text, &object["data"]), (number.to_string(), &number.to_string().into()));
    }
}

#[tokio::test]
async fn a_heartbeat_is_one_line_and_stands_between_blocks() {
    let origin = Origin::with(&["--store", "memory", "--heartbeat", "300ms"]);
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    let text = read_until(&mut stream, |text| text.matches("\r\n:\n\r\n").count() >= 2).await;
    let (body, _) = unchunk(&text);
    let after_opening = body.split_once("\n\n").expect("an opening block").1;
    assert!(after_opening.chars().all(|c| c == ':' || c == '\n'), "{after_opening:?}");
    assert!(!after_opening.contains("\n\n"), "{after_opening:?}");
}
