//! The fan-out: many subscribers at one place, slow ones among fast ones, connections that leave
//! hyper and come back, and ends in the middle of a pass.

use crate::hardening::memory;
use crate::kit::{Origin, PATIENCE, get, next_message, read_until, unchunk, wait_for_phase};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Neither a boundary nor a heartbeat hides that a subscriber waits in vain.
const LONG: [&str; 6] = ["--store", "memory", "--segment", "10m", "--heartbeat", "10m"];

/// Starts an origin with these flags and those of `LONG`, when no boundary is near.
async fn long(more: &[&str]) -> Origin {
    wait_for_phase(600_000, 0, 560_000).await;
    Origin::with(&[&LONG[..], more].concat())
}

/// Opens a stream, and reads it until its first SSE event has come.
async fn subscribe(origin: &Origin, path: &str) -> TcpStream {
    let mut stream = origin.raw(&get(path, None)).await;
    read_until(&mut stream, |text| text.contains("event: segment")).await;
    stream
}

/// Reads a stream until its last event has the data `last`, and returns the data of all its events.
async fn data_until(stream: &mut TcpStream, last: &str) -> Vec<String> {
    let end = format!("\ndata: {last}\n\n\r\n");
    let (mut all, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while !all.ends_with(end.as_bytes()) {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("more comes");
        let count = read.expect("it goes on");
        assert!(count > 0, "the stream goes on");
        all.extend_from_slice(&buffer[..count]);
    }
    data_of(&String::from_utf8(all).expect("text"))
}

/// The data of the events of chunks without a head.
fn data_of(chunks: &str) -> Vec<String> {
    let (text, _) = unchunk(&format!("\r\n\r\n{chunks}"));
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Publishes numbers, one by one.
async fn publish(origin: &Origin, channel: &str, count: usize) {
    for number in numbers(count) {
        origin.publish(channel, &number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_reads_one_byte_a_second_delays_none_of_a_thousand() {
    let _alone = crate::kit::alone().await;
    let origin = long(&[]).await;
    let slow = subscribe(&origin, "/channels/a").await;
    SockRef::from(&slow).set_recv_buffer_size(4_096).expect("a small buffer");
    let (mut slow_read, _slow_write) = slow.into_split();
    let dripping = tokio::spawn(async move {
        let mut count = 0;
        while slow_read.read_exact(&mut [0]).await.is_ok() {
            count += 1;
            sleep(Duration::from_secs(1)).await;
        }
        count
    });
    let mut readers = JoinSet::new();
    for _ in 0..1_000 {
        let mut stream = subscribe(&origin, "/channels/a").await;
        readers.spawn(async move { data_until(&mut stream, "last").await });
    }
    // 300 KB are more than the sockets of the slow one take.
    let filling = "x".repeat(1_000);
    for number in 0..300 {
        origin.publish("a", &format!("{number} {filling}")).await;
    }
    let last = origin.publish("a", "last").await;
    let all = timeout(PATIENCE, readers.join_all()).await.expect("nobody waits for the slow one");
    for data in all {
        assert_eq!(data.len(), 301);
        let in_order = (0..300).all(|number| data[number].starts_with(&format!("{number} ")));
        assert!(in_order, "the events come once and in order");
    }
    assert!(!dripping.is_finished(), "the slow one is still there");
    let mut late = origin.source("/channels/a", Some(&last));
    origin.publish("a", "after").await;
    assert_eq!(next_message(&mut late).await.data, "after");
    dripping.abort();
}

/// With so many subscribers a pass has several slices, and events come while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_during_a_pass_follow_in_the_next_one() {
    let _alone = crate::kit::alone().await;
    let origin = long(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..1_500 {
        streams.push(subscribe(&origin, "/channels/a").await);
    }
    for round in 0..40 {
        for number in 0..4 {
            origin.publish("a", &format!("{round}-{number}")).await;
        }
        let last = format!("{round}-3");
        for stream in &mut streams {
            assert_eq!(data_until(stream, &last).await.len(), 4);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_spread_over_all_pumps_and_each_has_its_own_events() {
    let origin = long(&[]).await;
    let mut subscribers = Vec::new();
    for channel in 0..200 {
        for _ in 0..3 {
            subscribers.push((channel, subscribe(&origin, &format!("/channels/{channel}")).await));
        }
    }
    for round in 0..3 {
        for channel in 0..200 {
            origin.publish(&channel.to_string(), &format!("{channel}-{round}")).await;
        }
    }
    for (channel, mut stream) in subscribers {
        let expected: Vec<_> = (0..3).map(|round| format!("{channel}-{round}")).collect();
        assert_eq!(data_until(&mut stream, &expected[2]).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_request_that_was_sent_early_is_answered_after_the_stream() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Both requests in one packet; the second one during the stream; two streams and a request.
    let stream_request = String::from_utf8(get("/channels/a", None)).expect("text");
    let mut together = origin.raw(format!("{stream_request}{health}").as_bytes()).await;
    let mut during = origin.raw(stream_request.as_bytes()).await;
    let mut twice =
        origin.raw(format!("{stream_request}{stream_request}{health}").as_bytes()).await;
    read_until(&mut during, |text| text.contains("event: segment")).await;
    during.write_all(health.as_bytes()).await.expect("it is open");
    for (stream, streams) in [(&mut together, 1), (&mut during, 0), (&mut twice, 2)] {
        let text = read_until(stream, |text| text.ends_with("ok\n")).await;
        assert_eq!(text.matches("event-stream").count(), streams, "{text}");
        assert!(text.contains("0\r\n\r\nHTTP/1.1 200 OK"), "{text}");
    }
}

/// `nc -N` closes its sending side after what it has sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_sending_side_is_gone_once_its_requests_are_read() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let mut early = subscribe(&origin, "/channels/a").await;
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    early.write_all(health.as_bytes()).await.expect("it is open");
    early.shutdown().await.expect("it is open");
    let text = read_until(&mut early, |_| false).await;
    assert!(text.ends_with("ok\n"), "{text}");
    let mut silent = subscribe(&origin, "/channels/a").await;
    silent.shutdown().await.expect("it is open");
    let text = read_until(&mut silent, |_| false).await;
    assert!(!text.ends_with("0\r\n\r\n"), "the stream is not complete: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_one_stream_after_another() {
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let mut stream = origin.raw(b"").await;
    let mut cursor: Option<String> = None;
    for round in 0..4 {
        stream.write_all(&get("/channels/a", cursor.as_deref())).await.expect("it is open");
        origin.publish("a", &round.to_string()).await;
        let text = read_until(&mut stream, |text| text.ends_with("\r\n0\r\n\r\n")).await;
        let (body, is_whole) = unchunk(&text);
        assert!(is_whole);
        assert!(body.contains(&format!("data: {round}\n")), "{body}");
        let last = body.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
        cursor = last.map(str::to_owned);
    }
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("it is open");
    read_until(&mut stream, |text| text.ends_with("ok\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_wants_the_connection_to_close_gets_that_after_the_stream() {
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let request = "GET /channels/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut stream = origin.raw(request.as_bytes()).await;
    let text = read_until(&mut stream, |_| false).await;
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reset_in_the_middle_of_a_pass_disturb_no_other() {
    let origin = long(&[]).await;
    let mut stay = Vec::new();
    let mut leave = Vec::new();
    for number in 0..300 {
        let stream = subscribe(&origin, "/channels/a").await;
        if number % 3 == 0 { stay.push(stream) } else { leave.push(stream) }
    }
    let publishing = publish(&origin, "a", 400);
    let leaving = async {
        for stream in leave {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset");
            drop(stream);
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(publishing, leaving);
    for stream in &mut stay {
        assert_eq!(data_until(stream, "399").await, numbers(400));
    }
    let open = async {
        while origin.metric("headwater_streams_open").await != 100.0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, open).await.expect("every reset is noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_in_the_middle_of_a_pass_cuts_no_event() {
    wait_for_phase(10_000, 0, 2_000).await;
    let mut origin = Origin::with(&["--store", "memory", "--segment", "10s"]);
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(origin.raw(&get("/channels/a", None)).await);
    }
    for stream in &mut streams {
        read_until(stream, |text| text.contains("event: segment")).await;
    }
    publish(&origin, "a", 50).await;
    origin.signal("TERM");
    for stream in &mut streams {
        let text = read_until(stream, |_| false).await;
        assert!(text.ends_with("\r\n0\r\n\r\n"), "the stream is whole: {text}");
        let data = data_of(&text);
        // The last one is the closing event of the segment.
        assert_eq!(data[..data.len() - 1], numbers(50));
    }
    assert!(origin.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_in_the_middle_of_a_pass_each_client_goes_on_where_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = format!("disk:{}", directory.path().display());
    let flags = ["--store", &store, "--segment", "10m", "--store-timeout", "20s"];
    let mut origin = Origin::with(&flags);
    let mut sources = Vec::new();
    for _ in 0..100 {
        let mut source = origin.source("/channels/a?after=0-0", None);
        origin.publish("warm", "up").await;
        sources.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|data| data != "last") {
                let message = next_message(&mut source).await;
                assert_eq!(message.kind, "message", "{}", message.data);
                seen.push(message.data);
            }
            seen
        }));
    }
    let mut published = numbers(200);
    publish(&origin, "a", 200).await;
    origin.kill();
    origin.start_again();
    origin.publish("a", "last").await;
    published.push("last".to_owned());
    for source in sources {
        let seen = timeout(PATIENCE, source).await.expect("it goes on").expect("no gap");
        assert_eq!(seen, published, "once and in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_with_a_byte_limit_end_early_and_go_on() {
    let limits = ["--segment-bytes", "100KB", "--max-event", "50KB"];
    let origin = long(&limits).await;
    let mut early = subscribe(&origin, "/channels/a").await;
    let filling = "x".repeat(5_000);
    let mut last = String::new();
    for number in 0..10 {
        last = origin.publish("a", &format!("{number} {filling}")).await;
    }
    let mut later = subscribe(&origin, &format!("/channels/a?after={last}")).await;
    for number in 10..40 {
        origin.publish("a", &format!("{number} {filling}")).await;
    }
    for (stream, first) in [(&mut early, 0), (&mut later, 10)] {
        let text = read_until(stream, |text| text.ends_with("\r\n0\r\n\r\n")).await;
        let (body, _) = unchunk(&format!("\r\n\r\n{text}"));
        let events: BTreeSet<usize> = body
            .lines()
            .filter_map(|line| line.strip_prefix("data: ")?.split_once(' ')?.0.parse().ok())
            .collect();
        assert_eq!(events.first(), Some(&first));
        let count = events.len();
        assert!((18..=20).contains(&count), "{count} events of 5 KB are about 100 KB");
        assert!(body.contains("event: segment"), "the end has a cursor");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_subscribers_cost_little_memory() {
    let _alone = crate::kit::alone().await;
    const SUBSCRIBERS: usize = 4_000;
    let origin = long(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(subscribe(&origin, "/channels/a").await);
    }
    let before = memory(&origin).await;
    let begun = Instant::now();
    while streams.len() < SUBSCRIBERS {
        streams.push(subscribe(&origin, "/channels/a").await);
    }
    let grown = (memory(&origin).await - before) * 1024.0 / (SUBSCRIBERS - 100) as f64;
    assert!(grown < 1.5, "{grown:.2} KiB for each subscriber ({:?})", begun.elapsed());
    origin.publish("a", "x").await;
    for stream in &mut streams {
        data_until(stream, "x").await;
    }
}

/// Each subscriber has a group of its own, because each reads another second channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_subscribers_in_many_groups_have_a_bounded_memory() {
    let _alone = crate::kit::alone().await;
    let origin = long(&["--retain-bytes", "2MiB"]).await;
    let mut slow = Vec::new();
    for number in 0..400 {
        let stream = subscribe(&origin, &format!("/channels/hot,other{number}")).await;
        SockRef::from(&stream).set_recv_buffer_size(4_096).expect("a small buffer");
        slow.push(stream);
    }
    let before = memory(&origin).await;
    let filling = "x".repeat(10_000);
    for _ in 0..90 {
        origin.publish("hot", &filling).await;
    }
    sleep(Duration::from_secs(1)).await;
    // 400 windows of 900 KB would be 360 MB. Each subscriber holds at most a page and a chunk.
    let grown = memory(&origin).await - before;
    assert!(grown < 130.0, "{grown} MiB more");
}
