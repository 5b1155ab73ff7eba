//! The limits and the life of one WebSocket: its channels, its rates, its silence, its token, its
//! end.

use super::{QUIET, assert_calm, assert_sane, memory, wait_for};
use crate::kit::{Origin, now_ms};
use crate::protocol::access::{SECRET, signed};
use crate::websocket::raw::{CLOSE, PING, PONG, Peer, TEXT, connect_from, frame, handshake};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

fn subscribe(channels: impl Iterator<Item = usize>) -> String {
    let names: Vec<String> = channels.map(|number| format!("c{number}")).collect();
    json!({ "type": "subscribe", "channels": names }).to_string()
}

/// Makes a token with these claims and a scope for everything.
fn token(claims: Value) -> String {
    let mut all = json!({ "exp": now_ms() / 1_000 + 3_600, "scope": "publish:* subscribe:*" });
    all.as_object_mut().expect("claims").extend(claims.as_object().expect("claims").clone());
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &all)
}

async fn peer_with(origin: &Origin, token: &str) -> Peer {
    Peer::with(origin, &format!("/ws?access_token={token}"), &[]).await
}

#[tokio::test]
async fn more_channels_than_a_socket_may_have() {
    let origin = Origin::with(&[&QUIET[..], &["--max-ws-channels", "2"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    let too_many = async |peer: &mut Peer, wants: String| {
        let answer = peer.ask(&wants).await;
        assert_eq!(answer["problem"]["limit"], 2, "{answer}");
        assert_eq!(answer["problem"]["field"], "channels", "{answer}");
        let detail = answer["problem"]["detail"].as_str().expect("what to do");
        assert!(detail.contains("--max-ws-channels"), "{detail}");
    };
    // A request subscribes to all of its channels or to none.
    too_many(&mut peer, subscribe(0..3)).await;
    assert_eq!(peer.ask(&subscribe(0..1)).await["type"], "ack");
    assert_eq!(peer.ask(&subscribe(1..2)).await["type"], "ack");
    too_many(&mut peer, subscribe(2..3)).await;
    let given_up = peer.ask(r#"{"type":"unsubscribe","channels":["c0"]}"#).await;
    assert_eq!(given_up["unsubscribed"], true, "{given_up}");
    assert_eq!(peer.ask(&subscribe(2..3)).await["type"], "ack");
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_hundred_channels_that_are_flooded() {
    let origin = Origin::with(&[&QUIET[..], &["--ws-frame-rate", "10000"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    peer.say(&subscribe(0..100)).await;
    for _ in 0..100 {
        assert_eq!(peer.message().await["type"], "ack");
    }
    // The events that the socket publishes come back between the acks, and none is lost.
    let publish = |number: usize| {
        let data = number.to_string();
        json!({ "type": "publish", "channel": format!("c{}", number % 100), "data": data })
    };
    let frames: Vec<u8> =
        (0..2_000).flat_map(|number| frame(TEXT, publish(number).to_string().as_bytes())).collect();
    peer.send(&frames).await;
    let (mut acks, mut last) = (0, vec![None; 100]);
    let mut events = 0;
    while acks < 2_000 || events < 2_000 {
        let message = peer.message().await;
        if message["type"] == "ack" {
            acks += 1;
            continue;
        }
        events += 1;
        let number: usize = message["data"].as_str().expect("data").parse().expect("a number");
        let before = last[number % 100].replace(number);
        assert!(before.is_none_or(|before| before == number - 100), "{message} after {before:?}");
    }
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn publishes_without_echo_do_not_block_a_websocket() {
    let rates = ["--ws-frame-rate", "100000", "--ws-byte-rate", "100MiB", "--retain-events", "50"];
    let origin = Origin::with(&[&QUIET[..], &rates].concat());
    let mut peer = Peer::connect(&origin).await;
    assert_eq!(peer.ask(r#"{"type":"subscribe","channels":["a"]}"#).await["type"], "ack");
    let publish = frame(TEXT, br#"{"type":"publish","channel":"a","data":"x","echo":false}"#);
    peer.send(&publish.repeat(5_000)).await;
    for _ in 0..5_000 {
        let message = peer.message().await;
        assert!(["ack", "gap"].iter().any(|kind| message["type"] == *kind), "{message}");
    }
    peer.assert_open().await;
    let id = origin.publish("a", "another's").await;
    assert_eq!(peer.message().await["id"], id);
    drop(peer);
    assert_sane(&origin, "a", &[id]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn channels_that_nobody_publishes_to_are_forgotten() {
    const SOCKETS: usize = 50;
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let before = memory(&origin).await;
    let mut peers = Vec::new();
    for number in 0..SOCKETS {
        let mut peer = Peer::connect(&origin).await;
        peer.say(&subscribe(number * 100..(number + 1) * 100)).await;
        for _ in 0..100 {
            assert_eq!(peer.message().await["type"], "ack");
        }
        peers.push(peer);
    }
    assert_eq!(origin.metric("headwater_channels_live").await, 5_000.0);
    let grown = memory(&origin).await - before;
    assert!(grown < 32.0, "{grown} MiB more");
    // The socket subscribes and unsubscribes immediately, repeatedly.
    for peer in &mut peers[..5] {
        let again: Vec<u8> = (0..30)
            .flat_map(|_| {
                let words = [r#"{"type":"subscribe","channels":["y"]}"#];
                let back = [r#"{"type":"unsubscribe","channels":["y"]}"#];
                words.into_iter().chain(back).flat_map(|text| frame(TEXT, text.as_bytes()))
            })
            .collect();
        peer.send(&again).await;
    }
    drop(peers);
    assert_calm(&origin).await;
    let none = async || origin.metric("headwater_channels_live").await == 0.0;
    wait_for("channels without readers and events stay", none).await;
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn messages_faster_than_their_rate() {
    let rates = ["--ws-frame-rate", "5", "--ws-byte-rate", "10KiB", "--max-ws-message", "1KiB"];
    let origin = Origin::with(&[&QUIET[..], &rates].concat());
    let kept = origin.publish("a", "x").await;
    let ping = frame(TEXT, br#"{"type":"ping"}"#);
    // Fragments of an unfinished message do not count as frames, but their bytes count.
    let pieces = [frame(0x01, b"{"), frame(0x00, b"").repeat(3_000)].concat();
    for (bytes, code, limit) in [
        (ping.repeat(6), 1013, "at most 5 frames a second (--ws-frame-rate); try again in 1 s"),
        (pieces, 1013, "at most 10240 bytes a second (--ws-byte-rate); try again in 1 s"),
        (frame(TEXT, &[b'x'; 1_025]), 1009, "at most 1024 bytes (--max-ws-message)"),
    ] {
        let mut peer = Peer::connect(&origin).await;
        peer.send(&bytes).await;
        let (closed, reason) = peer.goodbye().await.expect("a close frame comes");
        assert_eq!(closed, code, "{reason}");
        assert!(reason.contains(limit) && reason.len() <= 123, "{reason}");
    }
    // All frames within the rate are answered.
    let mut peer = Peer::connect(&origin).await;
    peer.send(&ping.repeat(4)).await;
    for _ in 0..4 {
        assert_eq!(peer.message().await["type"], "pong");
    }
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_peer_that_answers_no_ping() {
    let origin = Origin::with(&[&QUIET[..], &["--ws-ping", "2s"]].concat());
    let kept = origin.publish("a", "x").await;
    let (mut silent, mut alive) = (Peer::connect(&origin).await, Peer::connect(&origin).await);
    let begun = Instant::now();
    // The loop takes longer than a silent socket may stay open.
    let mut pings = 0;
    while pings < 5 {
        let (first, payload) = alive.frame().await.expect("it goes on");
        assert_eq!(first, PING);
        alive.send(&frame(PONG, &payload)).await;
        pings += 1;
    }
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
    let mut asked = 0;
    let (code, reason) = loop {
        match silent.frame().await.expect("a close frame comes") {
            (PING, _) if asked < 2 => asked += 1,
            (CLOSE, payload) => break (payload[..2].to_vec(), payload[2..].to_vec()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((asked, code), (2, 1008u16.to_be_bytes().to_vec()));
    assert!(String::from_utf8_lossy(&reason).contains("--ws-ping"));
    alive.assert_open().await;
    drop((silent, alive));
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_token_that_expires_while_its_socket_is_open() {
    let origin =
        Origin::with(&[&QUIET[..], &["--token-secret", SECRET, "--private", "*"]].concat());
    // A token is accepted for 30 s after its expiry, because clocks differ.
    let soon = token(json!({ "exp": now_ms() / 1_000 - 20 }));
    let mut peer = peer_with(&origin, &soon).await;
    assert_eq!(peer.ask(r#"{"type":"subscribe","channels":["a"]}"#).await["type"], "ack");
    let (code, reason) = peer.goodbye().await.expect("a close frame comes");
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("expired"), "{reason}");
    // A socket that is opened later with the same token is closed as well.
    let (code, reason) =
        peer_with(&origin, &soon).await.goodbye().await.expect("a close frame comes");
    assert_eq!((code, reason.contains("expired")), (1008, true), "{reason}");
    // None of these values makes a clock overflow.
    for exp in [json!(u64::MAX), json!(1e300), json!(i64::MAX), json!(9_007_199_254_740_993u64)] {
        let mut peer = peer_with(&origin, &token(json!({ "exp": exp }))).await;
        peer.assert_open().await;
        let ack = peer.ask(r#"{"type":"publish","channel":"a","data":"x"}"#).await;
        assert_eq!(ack["type"], "ack", "{exp}: {ack}");
    }
    for exp in [json!(-1), json!(-1e300), json!(0), json!(null), json!("9999999999")] {
        let mut peer = peer_with(&origin, &token(json!({ "exp": exp }))).await;
        assert_eq!(peer.goodbye().await.expect("a close frame comes").0, 1008, "{exp}");
    }
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_drain_while_sockets_are_open_and_stuck() {
    let mut origin = Origin::with(&[&QUIET[..], &["--write-timeout", "10m"]].concat());
    let mut open = Peer::connect(&origin).await;
    assert_eq!(open.ask(r#"{"type":"subscribe","channels":["a"]}"#).await["type"], "ack");
    let narrow = connect_from(&origin, "127.0.0.2", true).await;
    let mut stuck = Peer::on(narrow, &handshake("/ws", &[])).await.expect("it shakes hands");
    assert_eq!(stuck.ask(r#"{"type":"subscribe","channels":["b"]}"#).await["type"], "ack");
    for _ in 0..5 {
        origin.publish("b", &"x".repeat(1_000_000)).await;
    }
    origin.signal("TERM");
    let (code, reason) = open.goodbye().await.expect("a close frame comes");
    assert_eq!(code, 1012, "{reason}");
    // A peer that does not read does not delay the shutdown.
    let begun = Instant::now();
    assert!(origin.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(stuck);
}
