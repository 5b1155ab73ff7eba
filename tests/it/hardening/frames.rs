//! Frames that no client library sends: too many, too small, too large, or invalid.

use super::{QUIET, assert_calm, assert_sane, memory, wait_for};
use crate::kit::{Origin, Random};
use crate::websocket::raw::{CLOSE, PING, PONG, Peer, TEXT, frame, handshake, head};
use tokio::io::AsyncWriteExt;

const COUNT: usize = 100_000;
/// The first bytes of a first and of a middle fragment of a text message.
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;

/// Sends bytes on a new socket, and returns the code and the reason with which the origin closes
/// it.
async fn closed_by(origin: &Origin, bytes: &[u8]) -> (u16, String) {
    let mut peer = Peer::connect(origin).await;
    peer.send(bytes).await;
    peer.goodbye().await.expect("a close frame comes")
}

#[tokio::test]
async fn a_hundred_thousand_tiny_frames() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let before = memory(&origin).await;
    for tiny in [frame(TEXT, b"x"), frame(TEXT, b""), frame(PING, b""), frame(PONG, b"x")] {
        let (code, reason) = closed_by(&origin, &tiny.repeat(COUNT)).await;
        assert_eq!(code, 1013, "{reason}");
        assert!(reason.contains("--ws-frame-rate") && reason.contains("try again in"), "{reason}");
    }
    // Empty fragments of an unfinished message do not count as frames; their bytes are counted.
    let mut peer = Peer::connect(&origin).await;
    let pieces = [frame(TEXT_BEGINS, b""), frame(GOES_ON, b"").repeat(COUNT)].concat();
    peer.send(&pieces).await;
    peer.send(&frame(0x80, br#"{"type":"ping"}"#)).await;
    assert_eq!(peer.message().await["type"], "pong");
    peer.send(&[frame(TEXT_BEGINS, b""), frame(GOES_ON, b"").repeat(5 * COUNT)].concat()).await;
    let (code, reason) = peer.goodbye().await.expect("a close frame comes");
    assert_eq!(code, 1013, "{reason}");
    assert!(reason.contains("--ws-byte-rate"), "{reason}");
    let read = origin.metric("headwater_websocket_frames_in_total").await;
    assert!(read < 2_000.0, "{read} of the frames were looked at");
    let grown = memory(&origin).await - before;
    assert!(grown < 16.0, "{grown} MiB more");
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_hundred_thousand_tiny_frames_that_are_allowed() {
    let _alone = crate::kit::alone().await;
    let rates = ["--ws-frame-rate", "1000000", "--ws-byte-rate", "1GiB"];
    let origin = Origin::with(&[&QUIET[..], &rates].concat());
    let kept = origin.publish("a", "x").await;
    let before = memory(&origin).await;
    let mut peer = Peer::connect(&origin).await;
    // Sent in parts, so that the answers are read meanwhile: the origin does not read from a peer
    // that does not read its answers.
    for _ in 0..100 {
        peer.send(&frame(TEXT, b"x").repeat(COUNT / 100)).await;
        for _ in 0..COUNT / 100 {
            assert_eq!(peer.message().await["problem"]["status"], 400);
        }
    }
    let grown = memory(&origin).await - before;
    assert!(grown < 16.0, "{grown} MiB more");
    peer.assert_open().await;
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_frame_bomb() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let before = memory(&origin).await;
    let mask = [0; 4];
    for bomb in [
        [head(TEXT, 1 << 62), mask.to_vec()].concat(),
        [head(TEXT, 1 << 40), mask.to_vec(), vec![b'x'; 100_000]].concat(),
        frame(TEXT, &[b'x'; 65_537]),
        // No single fragment is too large.
        [frame(TEXT_BEGINS, &[b'x'; 60_000]), frame(GOES_ON, &[b'x'; 60_000])].concat(),
        [frame(TEXT_BEGINS, b""), frame(GOES_ON, b"x").repeat(65_537)].concat(),
    ] {
        let (code, reason) = closed_by(&origin, &bomb).await;
        assert_eq!(code, 1009, "{reason}");
        assert!(reason.contains("65536") && reason.contains("--max-ws-message"), "{reason}");
    }
    // The highest bit of the length is forbidden; either reason for the refusal is correct.
    let (code, _) = closed_by(&origin, &[head(TEXT, 1 << 63), mask.to_vec()].concat()).await;
    assert!([1002, 1009].contains(&code), "{code}");
    // The origin reserves no memory for a payload that is only announced.
    let mut many = Vec::new();
    for _ in 0..200 {
        let mut peer = Peer::connect(&origin).await;
        peer.send(&[head(TEXT, 65_536), mask.to_vec()].concat()).await;
        many.push(peer);
    }
    let open = async || origin.metric("headwater_websockets_open").await == 200.0;
    wait_for("not all sockets are served", open).await;
    let grown = memory(&origin).await - before;
    // The bound covers the sockets themselves, and what the allocator keeps after the large frames.
    assert!(grown < 24.0, "{grown} MiB more");
    assert_sane(&origin, "a", &[kept]).await;
    drop(many);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn frames_that_break_the_protocol() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let unmasked = [&[TEXT, 2], &b"{}"[..]].concat();
    let long = "x".repeat(123);
    let long_reason = [&1000u16.to_be_bytes(), long.as_bytes()].concat();
    for (bytes, codes) in [
        (unmasked, &[1002][..]),
        // Compression is not supported, so no frame can be a decompression bomb.
        (frame(TEXT | 0x40, b"{}"), &[1002]),
        (frame(TEXT | 0x20, b"{}"), &[1002]),
        (frame(0x83, b"{}"), &[1002]),
        (frame(0x8b, b""), &[1002]),
        (frame(0x80, b"a piece of nothing"), &[1002]),
        ([frame(TEXT_BEGINS, b"{"), frame(TEXT, b"}")].concat(), &[1002]),
        (frame(0x09, b"a ping in pieces"), &[1002]),
        (frame(PING, &[b'x'; 126]), &[1002]),
        (frame(TEXT, b"\xff"), &[1007]),
        ([frame(TEXT_BEGINS, b"\xf0\x9f"), frame(0x80, b"x")].concat(), &[1007]),
        (frame(0x82, b"{}"), &[1003]),
        (frame(CLOSE, b"\x03"), &[1002]),
        (frame(CLOSE, &999u16.to_be_bytes()), &[1002]),
        (frame(CLOSE, b"\x03\xe8\xff\xff"), &[1002, 1007]),
        // These close frames are valid: the origin answers with the same code, and sends nothing
        // after it.
        (frame(CLOSE, b""), &[1000, 1005]),
        (frame(CLOSE, &4_999u16.to_be_bytes()), &[4_999]),
        (frame(CLOSE, &long_reason), &[1000]),
        (frame(CLOSE, &1000u16.to_be_bytes()).repeat(1_000), &[1000]),
    ] {
        let (code, reason) = closed_by(&origin, &bytes).await;
        let begin = &bytes[..bytes.len().min(12)];
        assert!(codes.contains(&code), "{begin:?} is closed with {code} {reason:?}");
        assert!(reason.len() <= 123, "{reason:?}");
    }
    // A message may come in fragments, with a ping between them, or together with the handshake.
    let all = [
        handshake("/ws", &[]),
        frame(TEXT_BEGINS, br#"{"type":"#),
        frame(PING, b"now"),
        frame(0x80, br#""ping"}"#),
    ];
    let stream = origin.raw(b"").await;
    let mut peer = Peer::on(stream, &all.concat()).await.expect("it shakes hands");
    assert_eq!(peer.frame().await, Some((PONG, b"now".to_vec())));
    assert_eq!(peer.message().await["type"], "pong");
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn frames_with_one_byte_changed_leave_the_origin_whole() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let said = br#"{"type":"publish","channel":"fuzz","data":{"a":[1]},"key":"k","ref":1}"#;
    let seed = [frame(TEXT, said), frame(CLOSE, &1000u16.to_be_bytes())].concat();
    let mut random = Random::new(11);
    for place in 0..seed.len() {
        let mut bytes = seed.clone();
        bytes[place] ^= 1 << random.below(8);
        let mut peer = Peer::connect(&origin).await;
        peer.send(&bytes).await;
        // The end of the connection must end the exchange, whatever the changed bit did.
        peer.stream.shutdown().await.ok();
        let _either_way = peer.goodbye().await;
    }
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

// protocol §14.1
#[tokio::test]
async fn json_that_is_deep_or_odd() {
    let origin = Origin::with(&[&QUIET[..], &["--ws-frame-rate", "1000"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    let deep = "[".repeat(30_000);
    let balanced = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
    for text in [
        deep.clone(),
        format!(r#"{{"type":"publish","channel":"deep","data":{deep}}}"#),
        format!(r#"{{"type":"subscribe","channels":["a"],"after":{deep}}}"#),
        format!(r#"{{"type":"subscribe","channels":["a"],"after":{balanced}}}"#),
        format!(r#"{{"type":"ping","ref":{balanced}}}"#),
        r#"{"type":"ping","ref":1e400}"#.to_owned(),
        r#"{"type":"ping","ref":18446744073709551616}"#.to_owned(),
        r#"{"type":"ping","type":"publish"}"#.to_owned(),
        r#"{"type":"ping","\u0000":1}"#.to_owned(),
        r#"{"type":null}"#.to_owned(),
        r#"{"type":"subscribe","channels":[]}"#.to_owned(),
        r#"{"type":"subscribe","channels":["a","a"]}"#.to_owned(),
        r#"{"type":"subscribe","channels":"a"}"#.to_owned(),
        r#"{"type":"unsubscribe","channels":["a"]}"#.to_owned(),
        r#"{"type":"publish","channel":"deep","data":"\ud800"}"#.to_owned(),
        "null".to_owned(),
        String::new(),
    ] {
        let answer = peer.ask(&text).await;
        let begin = &text[..text.len().min(60)];
        assert_eq!(answer["type"], "error", "{begin:?} is answered {answer}");
        assert_eq!(answer["problem"]["status"], 400, "{begin:?} is answered {answer}");
    }
    // JSON of any depth is data like any other, and is only scanned.
    let published = peer
        .ask(&format!(
            r#"{{"type":"publish","channel":"a","data":{}1{}}}"#,
            "[".repeat(9_000),
            "]".repeat(9_000)
        ))
        .await;
    assert_eq!(published["type"], "ack", "{published}");
    assert_eq!(origin.get("/channels/deep/history").await.json()["next"], "0-0");
    drop(peer);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}
