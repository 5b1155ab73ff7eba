//! Line breaks and quotes in values that could become headers, fields, frames or files.

use super::{QUIET, assert_calm, assert_sane, attack};
use crate::kit::{Origin, get, read_until};
use crate::websocket::raw::Peer;
use serde_json::{Value, json};

/// Texts that would begin a header, a field, an event or a request if they were copied unescaped.
const BREAKS: [&str; 6] =
    ["a\r\nX-Evil: 1", "a\nid: 9-9", "a\rdata: evil", "a\0", "a\n\nevent: end\ndata: {}", "\n"];

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Checks that a request is refused with a problem, and that the answer repeats no part of it
/// unescaped.
async fn assert_refused(origin: &Origin, request: &str, status: &str) {
    let answer = attack(origin, request.as_bytes()).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(!head.to_lowercase().contains("evil") && !head.contains('\0'), "{answer}");
    assert!(!body.contains(['\r', '\n', '\0']), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

fn post(target: &str, headers: &str) -> String {
    let head =
        format!("POST /channels/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    format!("{head}{headers}Content-Length: 1\r\n\r\nx")
}

/// Checks that a frame is refused because of this member.
async fn assert_frame_refused(peer: &mut Peer, member: &str, text: &str) {
    let mut frame = json!({ "type": "publish", "channel": "a", "data": "x", "ref": 7 });
    frame[member] = text.into();
    let answer = peer.ask(&frame.to_string()).await;
    assert_eq!(answer["type"], "error", "{member} {text:?}: {answer}");
    assert_eq!(answer["problem"]["field"], member, "{text:?}: {answer}");
    assert_eq!(answer["ref"], 7, "{answer}");
}

async fn stored(origin: &Origin) -> Vec<(String, String)> {
    origin.log("a").await
}

#[tokio::test]
async fn header_injection_through_a_channel_name() {
    let origin = Origin::with(&[&QUIET[..], &["--surrogate-keys"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    for text in BREAKS {
        assert_refused(&origin, &post(&percent(text), ""), "400").await;
        let read = format!(
            "GET /channels/a,{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            percent(text)
        );
        assert_refused(&origin, &read, "400").await;
        assert_frame_refused(&mut peer, "channel", text).await;
        let subscribe = json!({ "type": "subscribe", "channels": ["a", text] }).to_string();
        assert_eq!(peer.ask(&subscribe).await["problem"]["field"], "channels");
    }
    for text in ["a,b", "../a", "a/../b", "", "é", "a b", "a\"b", "{a}", "a\u{2028}"] {
        assert_frame_refused(&mut peer, "channel", text).await;
    }
    assert_eq!(stored(&origin).await.len(), 1);
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn header_injection_through_an_event_name() {
    fields(&["event"]).await;
    let origin = Origin::with(&QUIET);
    let mut peer = Peer::connect(&origin).await;
    // A publisher may not use the event types of the origin either.
    for reserved in ["segment", "gap", "end", "open", "error"] {
        assert_refused(&origin, &post(&format!("a?event={reserved}"), ""), "400").await;
        assert_frame_refused(&mut peer, "event", reserved).await;
    }
    assert_eq!(stored(&origin).await, []);
}

#[tokio::test]
async fn header_injection_through_a_key() {
    fields(&["key"]).await;
}

async fn fields(names: &[&str]) {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    let long = "x".repeat(257);
    for text in BREAKS.into_iter().chain([long.as_str()]) {
        for name in names {
            let target = format!("a?{name}={}", percent(text));
            assert_refused(&origin, &post(&target, ""), "400").await;
            assert_frame_refused(&mut peer, name, text).await;
            let line = json!({ "data": "x", *name: text }).to_string();
            let kind = [("content-type", "application/x-ndjson")];
            assert_eq!(origin.post("/channels/a", &kind, &line).await.status, 400, "{line}");
        }
    }
    assert_eq!(stored(&origin).await.len(), 1);
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn header_injection_through_an_id() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    for text in BREAKS {
        let path = format!("/channels/a?after={}", percent(text));
        let mut stream = origin.raw(&get(&path, None)).await;
        let begun = read_until(&mut stream, |text| text.contains("ends_at")).await;
        assert!(!begun.split_once("\r\n\r\n").expect("a head").0.contains("Evil"), "{begun}");
        let text_of = read_until_gap(&mut stream, begun).await;
        let data = text_of.lines().find(|line| line.contains("unknown")).expect("a gap");
        let gap: Value = serde_json::from_str(data.trim_start_matches("data: ")).expect("JSON");
        assert_eq!(gap["requested"], text);
    }
    // An invalid cursor is repeated in the gap event, as one line of data and in quotes.
    for (said, repeated) in [
        ("9-9\tdata: evil", Some("9-9\tdata: evil")),
        ("\"}\"},evil{", Some("\"}\"},evil{")),
        ("1-1_2-2", None),
    ] {
        let mut stream = origin.raw(&get("/channels/a", Some(said))).await;
        let text = read_until(&mut stream, |text| text.contains("ends_at")).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(!head.contains("evil"), "{text}");
        let forged = |line: &str| line.starts_with("data: evil") || line.starts_with("id: 9-9");
        assert!(!body.lines().any(forged), "{text}");
        let text = read_until_gap(&mut stream, text).await;
        let data = text.lines().find(|line| line.contains("unknown")).expect("a gap");
        let gap: Value = serde_json::from_str(data.trim_start_matches("data: ")).expect("JSON");
        if let Some(repeated) = repeated {
            assert!(gap.to_string().contains(&json!(repeated).to_string()), "{gap}");
        }
    }
    let mut peer = Peer::connect(&origin).await;
    for text in BREAKS {
        let wants = json!({ "type": "subscribe", "channels": ["a"], "after": text });
        let gap = peer.ask(&wants.to_string()).await;
        assert_eq!(gap["type"], "gap", "{gap}");
        // The ack and the stored event follow.
        peer.say(r#"{"type":"unsubscribe","channels":["a"]}"#).await;
        while peer.message().await["unsubscribed"] != true {}
    }
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

async fn read_until_gap(stream: &mut tokio::net::TcpStream, so_far: String) -> String {
    if so_far.contains("unknown") {
        return so_far;
    }
    so_far + &read_until(stream, |text| text.contains("unknown")).await
}

#[tokio::test]
async fn header_injection_through_an_idempotency_key() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    for text in BREAKS.into_iter().chain(["", "é", "\u{7f}", "a\tb", &"x".repeat(257)]) {
        assert_frame_refused(&mut peer, "idempotency_key", text).await;
    }
    for raw in ["", "\u{e9}", "a\tb"] {
        assert_refused(&origin, &post("a", &format!("Idempotency-Key: {raw}\r\n")), "400").await;
    }
    assert_eq!(stored(&origin).await.len(), 1);
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn header_injection_through_a_reference() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    let quotes = [r#""},{"type":"event"#, "\u{2028}\u{2029}</script>", "\\", "é\u{10ffff}"];
    for text in BREAKS.into_iter().chain(quotes) {
        let answer = peer.ask(&json!({ "type": "ping", "ref": text }).to_string()).await;
        assert_eq!(answer, json!({ "type": "pong", "ref": text }));
        let wrong = json!({ "type": "publish", "channel": "", "data": 1, "ref": text });
        let answer = peer.ask(&wrong.to_string()).await;
        assert_eq!((&answer["type"], &answer["ref"]), (&json!("error"), &json!(text)));
    }
    let answer = peer.ask(&json!({ "type": "ping", "ref": "x".repeat(129) }).to_string()).await;
    assert_eq!((&answer["problem"]["limit"], &answer["ref"]), (&json!(128), &Value::Null));
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn events_inside_the_data_of_an_event() {
    let origin = Origin::with(&QUIET);
    let forged = "x\n\nid: 9-9\nevent: end\ndata: evil\r\n\r\nretry: 1\r:\rdata: evil\u{2028}x\0";
    let id = origin.publish("a", forged).await;
    let mut peer = Peer::connect(&origin).await;
    peer.say(r#"{"type":"subscribe","channels":["a"],"after":"0-0"}"#).await;
    let publish = json!({ "type": "publish", "channel": "a", "data": forged });
    let mut messages = vec![peer.message().await, peer.message().await];
    peer.say(&publish.to_string()).await;
    messages.extend([peer.message().await, peer.message().await]);
    let events: Vec<_> = messages.iter().filter(|message| message["type"] == "event").collect();
    assert_eq!(events.len(), 2, "{messages:?}");
    assert!(events.iter().all(|event| event["data"] == *forged), "{events:?}");
    let last = events[1]["id"].as_str().expect("an id").to_owned();
    let mut stream = origin.raw(&get("/channels/a?after=0-0", None)).await;
    let until = format!("id: {last}\n");
    let text = read_until(&mut stream, |text| {
        text.split_once(&until).is_some_and(|(_, rest)| rest.contains("\n\n"))
    })
    .await;
    let fields: Vec<_> = text.lines().filter(|line| !line.starts_with("data: ")).collect();
    for field in ["id: 9-9", "event: end", "retry: 1"] {
        assert!(!fields.contains(&field), "{text}");
    }
    assert_eq!(text.matches("data: data: evil").count(), 4, "{text}");
    drop((peer, stream));
    assert_sane(&origin, "a", &[id, last]).await;
    assert_calm(&origin).await;
}
