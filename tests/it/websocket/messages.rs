//! WebSockets: subscribing to the same log as streams, publishing, rights, and use through caches
//! and with Redis.

use crate::kit::edge::{Cache, Certificate};
use crate::kit::redis::RedisServer;
use crate::kit::socket::Socket;
use crate::kit::{Origin, now_ms, wait_for_phase};
use crate::protocol::access::{SECRET, minted};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

fn event(channel: &str, id: &str, data: &str) -> Value {
    json!({ "type": "event", "channel": channel, "id": id, "data": data })
}

fn ack(channel: &str, cursor: &str) -> Value {
    json!({ "type": "ack", "channel": channel, "cursor": cursor })
}

/// Returns the last part of the problem type of an error frame.
fn problem(frame: &Value) -> &str {
    assert_eq!(frame["type"], "error", "{frame}");
    let kind = frame["problem"]["type"].as_str().expect("a type");
    kind.strip_prefix("urn:headwater:problem:").expect("one of ours")
}

#[tokio::test]
async fn a_socket_reads_what_a_stream_reads_from_any_place() {
    let origin = Origin::start();
    let first = origin.publish("a", "1\n2").await;
    let second = origin.publish_with("a", "event=e", "3").await;
    let mut socket = Socket::connect(origin.listen).await;
    let heard = socket.subscribe("a", Some(&first)).await;
    assert_eq!(heard, [ack("a", &first)]);
    let with_type =
        json!({ "type": "event", "channel": "a", "id": second, "event": "e", "data": "3" });
    assert_eq!(socket.hear().await, with_type);
    let third = origin.publish("a", "4").await;
    assert_eq!(socket.hear().await, event("a", &third, "4"));
    socket.say(json!({ "type": "unsubscribe", "channels": ["a"], "ref": "u" })).await;
    let gone =
        json!({ "type": "ack", "ref": "u", "channel": "a", "cursor": third, "unsubscribed": true });
    assert_eq!(socket.hear().await, gone);
    let fourth = origin.publish("a", "5").await;
    // The closing cursor of a stream is valid for a socket, and so is a cursor for two channels.
    socket.subscribe("a", Some(&format!("{first}.1795278420000"))).await;
    let heard = socket.hear_all(3).await;
    assert_eq!(heard[2], event("a", &fourth, "5"));
    let after = format!("{third}_0-0");
    let other = origin.publish("b", "6").await;
    let mut both = Socket::connect(origin.listen).await;
    both.say(json!({ "type": "subscribe", "channels": ["a", "b"], "after": after })).await;
    let heard = both.hear_all(4).await;
    let beginning = ack("b", &origin.beginning().await);
    for expected in [ack("a", &third), beginning, event("a", &fourth, "5"), event("b", &other, "6")]
    {
        assert!(heard.contains(&expected), "{expected} is not in {heard:?}");
    }
    // A cursor from a socket is also valid over HTTP.
    let history = origin.get(&format!("/channels/a/history?after={second}")).await.json();
    let ids: Vec<_> =
        history["events"].as_array().unwrap().iter().map(|e| e["id"].clone()).collect();
    assert_eq!(ids, [json!(third), json!(fourth)]);
}

#[tokio::test]
async fn a_fresh_socket_begins_where_a_fresh_stream_does() {
    let origin = Origin::with(&["--store", "memory", "--segment", "8s"]);
    origin.publish("a", "in an earlier segment").await;
    let earlier = now_ms() / 8_000;
    while now_ms() / 8_000 == earlier {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_for_phase(8_000, 0, 4_000).await;
    let now = origin.publish("a", "in this one").await;
    origin.publish_with("k", "key=x", "1").await;
    origin.publish_with("k", "key=y&event=e", "2").await;
    let newest = origin.publish_with("k", "key=x", "3").await;
    let mut socket = Socket::connect(origin.listen).await;
    let heard = socket.subscribe("a", None).await;
    assert_eq!(heard.len(), 1);
    assert_eq!(socket.hear().await, event("a", &now, "in this one"));
    // The events of a state have no ids: a client that disconnects during the state receives all of
    // it again.
    let heard = socket.subscribe("k", None).await;
    assert_eq!(
        heard,
        [
            json!({ "type": "event", "channel": "k", "event": "e", "key": "y", "data": "2" }),
            json!({ "type": "event", "channel": "k", "key": "x", "data": "3" }),
            ack("k", &newest),
        ]
    );
}

#[tokio::test]
async fn what_is_missing_is_told_and_the_end_of_a_channel_too() {
    let origin = Origin::with(&["--store", "memory", "--retain-events", "2"]);
    let ids = origin.publish_lines("a", "{\"data\":1}\n{\"data\":2}\n{\"data\":3}").await;
    let mut socket = Socket::connect(origin.listen).await;
    let heard = socket.subscribe("a", Some("1-0")).await;
    let gap = json!({ "type": "gap", "channel": "a", "reason": "trimmed", "requested": "1-0", "oldest": ids[1] });
    assert_eq!(heard[0], gap);
    assert_eq!(socket.hear_all(2).await, [event("a", &ids[1], "2"), event("a", &ids[2], "3")]);
    for (after, reason) in [("9999999999999-0", "ahead"), ("urn:uuid:1", "unknown")] {
        let heard = socket.subscribe("b", Some(after)).await;
        let gap = json!({ "type": "gap", "channel": "b", "reason": reason, "requested": after, "oldest": null });
        assert_eq!(heard, [gap, ack("b", &origin.beginning().await)]);
        socket.say(json!({ "type": "unsubscribe", "channels": ["b"] })).await;
        socket.hear().await;
    }
    let answer = origin.request(hyper::Method::DELETE, "/channels/a", &[], "").await;
    let end = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(socket.hear().await, json!({ "type": "end", "channel": "a", "id": end }));
    let refused = socket.publish("a", "late").await;
    assert_eq!(problem(&refused), "channel-closed");
    // For a stream, the origin answers this case, an ended channel with no further events, with a
    // 204.
    assert_eq!(socket.subscribe("a", Some(&end)).await, [ack("a", &end)]);
    assert_eq!(socket.hear().await, json!({ "type": "end", "channel": "a" }));
    // The subscription has ended with the channel, so the client may subscribe again after the
    // channel is reopened.
    origin.request(hyper::Method::DELETE, "/channels/a?reopen=1", &[], "").await;
    assert_eq!(socket.subscribe("a", Some(&end)).await, [ack("a", &end)]);
    let next = origin.publish("a", "again").await;
    assert_eq!(socket.hear().await, event("a", &next, "again"));
}

#[tokio::test]
async fn a_publish_is_acknowledged_once_stored_and_echoed_unless_unwanted() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store]);
    let (mut one, mut other) =
        (Socket::connect(origin.listen).await, Socket::connect(origin.listen).await);
    for socket in [&mut one, &mut other] {
        socket.subscribe("a", None).await;
    }
    let say = |echo: bool, data: &str| json!({ "type": "publish", "channel": "a", "data": data, "echo": echo, "ref": data });
    let mut ids = Vec::new();
    for number in 0..20 {
        one.say(say(number % 2 == 0, &number.to_string())).await;
        let mut acknowledged = None;
        let mut own = number % 2 == 1;
        while acknowledged.is_none() || !own {
            let frame = one.hear().await;
            match frame["type"].as_str() {
                Some("ack") => acknowledged = Some(frame["id"].as_str().unwrap().to_owned()),
                _ => own = frame["data"] == json!(number.to_string()),
            }
        }
        ids.push(acknowledged.unwrap());
    }
    let heard = other.hear_all(20).await;
    let expected: Vec<_> =
        ids.iter().enumerate().map(|(n, id)| event("a", id, &n.to_string())).collect();
    assert_eq!(heard, expected);
    // Events of another client arrive, also between two of the client's own publishes.
    one.say(say(false, "mine")).await;
    assert_eq!(one.hear().await["ref"], "mine");
    other.publish("a", "yours").await;
    assert_eq!(one.hear().await["data"], "yours");
    // The same idempotency key over HTTP and over a WebSocket is one event.
    one.say(json!({ "type": "publish", "channel": "b", "data": "x", "idempotency_key": "i" }))
        .await;
    let id = one.hear().await["id"].clone();
    let answer = origin.post("/channels/b", &[("idempotency-key", "i")], "x").await;
    assert_eq!((answer.status.as_u16(), answer.json()["id"].clone()), (200, id));
    let answer = origin.post("/channels/b", &[("idempotency-key", "i")], "y").await;
    assert_eq!(answer.status, 422);
    origin.kill();
    origin.start_again();
    let kept: Vec<String> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept[..20], ids);
}

#[tokio::test]
async fn rights_are_looked_at_for_each_frame() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*"];
    let origin = Origin::with(&[&flags[..], &["--edge-auth", "0123456789abcdef"]].concat());
    let token = minted(&["--subscribe", "desk.a", "--publish", "b"]);
    let say = async |socket: &mut Socket, kind: &str, channel: &str| {
        let frame = match kind {
            "publish" => json!({ "type": kind, "channel": channel, "data": "x" }),
            _ => json!({ "type": kind, "channels": [channel] }),
        };
        socket.say(frame).await;
        let answer = socket.hear().await;
        if answer["type"] == "ack" { "ack".to_owned() } else { problem(&answer).to_owned() }
    };
    let check = async |socket: &mut Socket, expected: [&str; 5]| {
        for ((kind, channel), expected) in [
            ("subscribe", "open"),
            ("subscribe", "desk.a"),
            ("subscribe", "desk.b"),
            ("publish", "b"),
            ("publish", "c"),
        ]
        .into_iter()
        .zip(expected)
        {
            assert_eq!(say(socket, kind, channel).await, expected, "{kind} {channel}");
        }
    };
    let mut stranger = Socket::connect(origin.listen).await;
    check(&mut stranger, ["ack", "token", "token", "token", "token"]).await;
    let cookie = format!("a=b; headwater={token}");
    let (bearer, offered) = (format!("Bearer {token}"), format!("headwater, bearer.{token}"));
    let query = format!("/ws?access_token={token}");
    let own_page = format!("http://{}", origin.listen);
    for (path, headers) in [
        ("/ws", vec![("authorization", bearer.as_str())]),
        ("/ws", vec![("sec-websocket-protocol", offered.as_str())]),
        (query.as_str(), vec![]),
        ("/ws", vec![("cookie", cookie.as_str())]),
        ("/ws", vec![("cookie", cookie.as_str()), ("origin", own_page.as_str())]),
    ] {
        let mut socket = Socket::connect_with(origin.listen, path, &headers).await.unwrap();
        check(&mut socket, ["ack", "ack", "scope", "ack", "scope"]).await;
    }
    let vouched = [("headwater-edge-auth", "0123456789abcdef")];
    let mut socket = Socket::connect_with(origin.listen, "/ws", &vouched).await.unwrap();
    check(&mut socket, ["ack", "ack", "ack", "token", "token"]).await;
    // A frame is carried out completely or not at all.
    let mut socket = Socket::connect_as(origin.listen, &token).await;
    socket.say(json!({ "type": "subscribe", "channels": ["open", "desk.b"], "ref": 1 })).await;
    assert_eq!(problem(&socket.hear().await), "scope");
    assert_eq!(say(&mut socket, "unsubscribe", "open").await, "bad-field");
}

#[tokio::test]
async fn the_cookie_of_a_page_of_another_site_gives_no_right_to_a_websocket() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*"];
    let cookie = format!("headwater={}", minted(&["--subscribe", "*"]));
    let connect = async |origin: &Origin, site: &str| {
        let headers = [("cookie", cookie.as_str()), ("origin", site)];
        let mut socket = Socket::connect_with(origin.listen, "/ws", &headers).await?;
        let heard = socket.subscribe("desk.a", None).await;
        Ok::<_, u16>(heard[0]["type"] == "ack")
    };
    let all = Origin::with(&flags);
    let own = format!("http://{}", all.listen);
    assert_eq!(connect(&all, &own).await, Ok(true));
    for site in ["https://elsewhere.example", "null", &format!("{own}.example"), "", "//"] {
        assert_eq!(connect(&all, site).await, Ok(false), "{site:?}");
    }
    let named = ["--cors-origin", "https://a.example"];
    let some = Origin::with(&[&flags[..], &named].concat());
    assert_eq!(connect(&some, "https://a.example").await, Ok(true));
    for site in ["https://b.example", "https://a.example.evil", "http://a.example", "null"] {
        assert_eq!(connect(&some, site).await, Err(403), "{site}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_said_over_the_socket() {
    let origin = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
    let mut socket = Socket::connect_as(origin.listen, "a.b.c").await;
    let (code, reason) = socket.closed().await.expect("a close");
    // A page cannot remove an invalid cookie, and public channels need none, so this socket stays
    // open.
    let cookie = [("cookie", "headwater=a.b.c")];
    let mut page = Socket::connect_with(origin.listen, "/ws", &cookie).await.unwrap();
    assert_eq!(page.subscribe("open", None).await[0]["type"], "ack");
    assert_eq!(problem(&page.publish("open", "x").await), "token");
    assert!(code == 1008 && reason.contains("not signed by a key of this origin"), "{reason}");
}

#[tokio::test]
async fn through_varnish_and_nginx_a_socket_is_a_socket() {
    let origin = Origin::start();
    let (port, certificate) = (origin.listen.port(), Certificate::new());
    let varnish = Cache::varnish(port);
    let front = Cache::nginx_tls(varnish.port, &certificate);
    let (collapse, stream) = (Cache::nginx("collapse", port), Cache::nginx("stream", port));
    let at = |cache: &Cache| SocketAddr::from(([127, 0, 0, 1], cache.port));
    let mut sockets = vec![Socket::connect_over_tls(at(&front), &certificate).await];
    for cache in [&varnish, &collapse, &stream] {
        // The page's origin is the cache's address, whatever `Host` the cache sends to the origin.
        let page = format!("http://{}", at(cache));
        let headers = [("origin", page.as_str()), ("cookie", "a=b")];
        sockets.push(Socket::connect_with(at(cache), "/ws", &headers).await.expect("a handshake"));
    }
    for socket in &mut sockets {
        socket.subscribe("a", Some("0-0")).await;
    }
    for publisher in 0..sockets.len() {
        let data = publisher.to_string();
        let frame = json!({ "type": "publish", "channel": "a", "data": data, "echo": false });
        sockets[publisher].say(frame).await;
        let id = sockets[publisher].hear().await["id"].as_str().expect("an id").to_owned();
        for (listener, socket) in sockets.iter_mut().enumerate() {
            if listener != publisher {
                assert_eq!(socket.hear().await, event("a", &id, &data));
            }
        }
    }
}

#[tokio::test]
async fn behind_a_cache_a_page_of_the_same_host_has_its_cookie() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*"];
    let origin = Origin::with(&flags);
    let cookie = format!("headwater={}", minted(&["--subscribe", "*"]));
    let port = origin.listen.port();
    for cache in [Cache::varnish(port), Cache::nginx("stream", port)] {
        let server = SocketAddr::from(([127, 0, 0, 1], cache.port));
        let own = format!("http://{server}");
        for (page, expected) in [(own.as_str(), "ack"), ("http://127.0.0.1:1", "error")] {
            let headers = [("origin", page), ("cookie", cookie.as_str())];
            let mut socket = Socket::connect_with(server, "/ws", &headers).await.unwrap();
            assert_eq!(socket.subscribe("desk.a", None).await[0]["type"], expected, "{page}");
        }
    }
}

#[tokio::test]
async fn sockets_at_two_origins_on_one_redis_hear_the_same() {
    let redis = RedisServer::start();
    let url = redis.url();
    let origins = [(); 2].map(|()| Origin::with(&["--store", &url]));
    let mut sockets = Vec::new();
    for origin in &origins {
        let mut socket = Socket::connect(origin.listen).await;
        socket.subscribe("a", Some("0-0")).await;
        sockets.push(socket);
    }
    let mut expected = Vec::new();
    for number in 0..20 {
        let data = number.to_string();
        let frame = json!({ "type": "publish", "channel": "a", "data": data, "echo": false });
        sockets[number % 2].say(frame).await;
        let id = sockets[number % 2].hear().await["id"].as_str().expect("an id").to_owned();
        assert_eq!(sockets[(number + 1) % 2].hear().await, event("a", &id, &data));
        expected.push(event("a", &id, &data));
    }
    let mut late = Socket::connect(origins[1].listen).await;
    late.subscribe("a", Some("0-0")).await;
    assert_eq!(late.hear_all(20).await, expected);
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_what_it_missed_and_goes_on() {
    let limits = ["--retain-events", "100", "--live-bytes", "32KiB"];
    let origin = Origin::with(&[&["--store", "memory"], &limits[..]].concat());
    let mut socket = Socket::connect(origin.listen).await;
    socket.subscribe("a", Some("0-0")).await;
    // The data is many times larger than the buffers of the connection, which the client does not
    // read.
    let padding = "x".repeat(4_000);
    let last = 10_000;
    for batch in 0..last / 50 {
        let line = |number: usize| format!("{{\"data\":\"{number} {padding}\"}}\n");
        let lines: String = (batch * 50..batch * 50 + 50).map(line).collect();
        origin.publish_lines("a", &lines).await;
    }
    let (mut next, mut gaps) = (0, 0);
    while next < last {
        let frame = socket.hear().await;
        if frame["type"] == "gap" {
            assert_eq!((&frame["reason"], &frame["channel"]), (&json!("trimmed"), &json!("a")));
            gaps += 1;
            assert_eq!(socket.hear().await["type"], "ack");
            let data = socket.hear().await["data"].as_str().expect("data").to_owned();
            let number: usize = data.split(' ').next().expect("one").parse().expect("a number");
            assert!(number > next, "a gap that misses nothing");
            next = number + 1;
            continue;
        }
        let data = frame["data"].as_str().expect("data");
        assert!(data.starts_with(&format!("{next} ")), "{next} is missing, and nobody said so");
        next += 1;
    }
    assert!(gaps > 0, "it was not slow enough");
}

#[tokio::test]
async fn a_restart_is_announced_and_nothing_is_lost_by_it() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "2s"]);
    let mut socket = Socket::connect(origin.listen).await;
    socket.subscribe("a", None).await;
    let first = socket.publish("a", "1").await["id"].clone();
    assert_eq!(socket.hear().await["id"], first);
    origin.signal("TERM");
    let (code, reason) = socket.closed().await.expect("a close");
    assert!(code == 1012 && reason.contains("connect again"), "{code} {reason}");
    assert!(origin.ended().await.success());
    origin.start_again();
    let mut socket = Socket::connect(origin.listen).await;
    let second = origin.publish("a", "2").await;
    socket.subscribe("a", first.as_str()).await;
    assert_eq!(socket.hear().await, event("a", &second, "2"));
    let third = origin.publish("a", "3").await;
    assert_eq!(socket.hear().await, event("a", &third, "3"));
}
