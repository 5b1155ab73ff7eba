//! The bytes of a stream, SSE event by SSE event, as docs/protocol.md specifies them.

use crate::kit::{Origin, get, now_ms, read_until, unchunk, wait_for_phase};
use hyper::Method;
use serde_json::json;
use tokio::net::TcpStream;

const T: u64 = 30_000;

/// Requests a stream, and reads its body until it contains `until`.
async fn body_until(origin: &Origin, path: &str, cursor: Option<&str>, until: &str) -> String {
    let mut stream = origin.raw(&get(path, cursor)).await;
    let answer = read_until(&mut stream, |text| text.contains(until)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    unchunk(&answer).0
}

fn opening(cursor: Option<&str>) -> String {
    let number = now_ms() / T;
    let id = cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    let ends_at = (number + 1) * T;
    format!(
        "retry: 3000\nevent: segment\n{id}data: {{\"segment\":{number},\"ends_at\":{ends_at}}}\n\n"
    )
}

// protocol §6.1
#[tokio::test]
async fn a_fresh_join_gets_the_segment_so_far_and_then_what_comes() {
    let origin = Origin::start();
    wait_for_phase(T, 0, T - 6_000).await;
    let first = origin.publish_with("a", "event=price", r#"{"bid":1.0712}"#).await;
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    let so_far = read_until(&mut stream, |text| text.contains("1.0712}\n\n")).await;
    let second = origin.publish("a", "b\r\nc").await;
    let live = read_until(&mut stream, |text| text.contains("c\n\n")).await;
    let (body, _) = unchunk(&(so_far + &live));
    let expected = opening(Some(&origin.beginning().await))
        + &format!("id: {first}\nevent: price\ndata: {{\"bid\":1.0712}}\n\n")
        + &format!("id: {second}\ndata: b\ndata: c\n\n");
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_cursor_gets_everything_after_it_once_and_in_order() {
    let origin = Origin::start();
    wait_for_phase(T, 0, T - 6_000).await;
    let ids = origin.publish_lines("a", "{\"data\":\"1\"}\n{\"data\":2}\n{\"data\":[3, 4]}").await;
    let last = "data: [3,4]\n\n";
    let body = body_until(&origin, "/channels/a", Some(&ids[0]), last).await;
    let rest = format!("id: {}\ndata: 2\n\nid: {}\ndata: [3,4]\n\n", ids[1], ids[2]);
    assert_eq!(body, opening(Some(&ids[0])) + &rest);
    // The query parameter has the same effect, and the header takes precedence over it.
    let path = format!("/channels/a?after={}", ids[0]);
    assert_eq!(body_until(&origin, &path, None, last).await, body);
    let path = "/channels/a?after=0-0";
    assert_eq!(body_until(&origin, path, Some(&ids[0]), last).await, body);
    // A mark does not change the position of a cursor.
    let marked = format!("{}.1795278420000", ids[0]);
    let marked_body = body_until(&origin, "/channels/a", Some(&marked), last).await;
    assert_eq!(marked_body, opening(Some(&marked)) + &rest);
}

// protocol §2.2
#[tokio::test]
async fn any_data_comes_out_as_the_format_allows() {
    let origin = Origin::start();
    wait_for_phase(T, 0, T - 8_000).await;
    let large = "x".repeat(64 * 1024);
    let mut expected = opening(Some(&origin.beginning().await));
    for (data, lines) in [
        ("", "data:\n".to_owned()),
        ("a\nb", "data: a\ndata: b\n".to_owned()),
        ("a\rb", "data: a\ndata: b\n".to_owned()),
        ("a\r\n\r\nb\n", "data: a\ndata:\ndata: b\ndata:\n".to_owned()),
        (" id: 5", "data:  id: 5\n".to_owned()),
        ("👩‍🚀 ünï", "data: 👩‍🚀 ünï\n".to_owned()),
        (large.as_str(), format!("data: {large}\n")),
    ] {
        let id = origin.publish("a", data).await;
        expected += &format!("id: {id}\n{lines}\n");
    }
    let id = origin.publish("a", "last").await;
    expected += &format!("id: {id}\ndata: last\n\n");
    assert_eq!(body_until(&origin, "/channels/a", None, "data: last\n\n").await, expected);
}

#[tokio::test]
async fn an_emoji_cut_across_reads_of_the_publish_arrives_whole() {
    use tokio::io::AsyncWriteExt;
    let origin = Origin::start();
    let emoji = "👩‍🚀".as_bytes();
    let head = format!(
        "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        emoji.len()
    );
    let mut stream = origin.raw(head.as_bytes()).await;
    for byte in emoji {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_until(&mut stream, |text| text.contains('}')).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let history = origin.get("/channels/a/history").await.json();
    assert_eq!(history["events"][0]["data"], "👩‍🚀");
}

#[tokio::test]
async fn a_channel_with_keys_begins_with_its_state() {
    let origin = Origin::start();
    wait_for_phase(T, 0, T - 6_000).await;
    origin.publish_with("a", "key=x", "old").await;
    origin.publish_with("a", "key=gone&event=e", "y").await;
    origin.publish_with("a", "key=x&event=e", "new").await;
    origin.publish("a", "no key").await;
    let removal = origin.publish_with("a", "key=gone", "").await;
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    let state = read_until(&mut stream, |text| text.contains("\"state\":1}\n\n")).await;
    let live = origin.publish("a", "live").await;
    let rest = read_until(&mut stream, |text| text.contains("live\n\n")).await;
    let number = now_ms() / T;
    let expected = opening(None)
        + "event: e\ndata: new\n\n"
        + &format!(
            "event: segment\nid: {removal}\ndata: {{\"segment\":{number},\"ends_at\":{},\"state\":1}}\n\n",
            (number + 1) * T
        )
        + &format!("id: {live}\ndata: live\n\n");
    assert_eq!(unchunk(&(state + &rest)).0, expected);
    let state = origin.get("/channels/a/state").await;
    let expected = json!({ "event": "e", "key": "x", "data": "new" });
    let event = &state.json()["events"][0];
    for name in ["event", "key", "data"] {
        assert_eq!(event[name], expected[name]);
    }
    assert_eq!(state.json()["cursor"], live);
}

// protocol §4.2
#[tokio::test]
async fn a_stream_ends_with_a_cursor_whose_mark_is_the_boundary() {
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let id = origin.publish("a", "x").await;
    for cursor in [None, Some(id.as_str())] {
        let mut stream = origin.raw(&get("/channels/a", cursor)).await;
        let answer = read_until(&mut stream, |text| text.ends_with("\r\n0\r\n\r\n")).await;
        let (body, is_whole) = unchunk(&answer);
        assert!(is_whole);
        let ends_at: u64 =
            body.split("\"ends_at\":").nth(1).unwrap().split('}').next().unwrap().parse().unwrap();
        let closing = format!(
            "retry: 100\nevent: segment\nid: {id}.{ends_at}\ndata: {{\"segment\":{}}}\n\n",
            ends_at / 1_000
        );
        assert!(body.ends_with(&closing), "{body:?} does not end with {closing:?}");
        assert_eq!(ends_at % 1_000, 0);
    }
}

// protocol §3.5
#[tokio::test]
async fn without_an_event_the_mark_of_the_closing_cursor_is_later_than_that_of_the_request() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10s"]);
    let [quiet, busy] = [origin.publish("quiet", "x").await, origin.publish("busy", "x").await];
    // The clock of another origin is ahead by an hour.
    let ahead = now_ms() + 3_600_000;
    wait_for_phase(10_000, 0, 2_000).await;
    let asked = format!("{quiet}.{ahead}");
    let mut with_mark = origin.raw(&get("/channels/quiet", Some(&asked))).await;
    let mut without_mark = origin.raw(&get("/channels/quiet", Some(&quiet))).await;
    let mut with_event = origin.raw(&get("/channels/busy", Some(&format!("{busy}.{ahead}")))).await;
    read_until(&mut with_event, |text| text.contains("ends_at")).await;
    let newer = origin.publish("busy", "y").await;
    // The fan-out sends both streams. They end at the same time with different cursors.
    let (_, mark) = ends(&mut with_mark, &quiet).await;
    assert_eq!(mark, ahead + 1);
    let (ends_at, mark) = ends(&mut without_mark, &quiet).await;
    assert_eq!(mark, ends_at);
    let (_, mark) = ends(&mut with_event, &newer).await;
    assert_eq!(mark, ends_at);
}

/// Reads a response to its end. Returns its `ends_at`, or 0 if the beginning was read before, and
/// the mark of its last cursor, whose position must be `position`.
async fn ends(stream: &mut TcpStream, position: &str) -> (u64, u64) {
    let answer = read_until(stream, |text| text.ends_with("\r\n0\r\n\r\n")).await;
    let number = |text: &str| {
        let digits = text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse::<u64>().unwrap()
    };
    let ends_at = answer.split_once("\"ends_at\":").map_or(0, |(_, text)| number(text));
    let (_, cursor) = answer.rsplit_once("\nid: ").unwrap();
    let mark = cursor.strip_prefix(&format!("{position}.")).unwrap_or_else(|| panic!("{answer}"));
    (ends_at, number(mark))
}

#[tokio::test]
async fn a_quiet_stream_sends_heartbeats() {
    let origin = Origin::with(&["--store", "memory", "--heartbeat", "500ms"]);
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    let answer = read_until(&mut stream, |text| text.matches("\r\n:\n\r\n").count() >= 3).await;
    assert!(answer.contains("2\r\n:\n\r\n"));
}

// protocol §5.4
#[tokio::test]
async fn a_cursor_that_cannot_be_honoured_opens_with_a_gap_event() {
    let origin = Origin::with(&["--store", "memory", "--retain-events", "2"]);
    wait_for_phase(T, 0, T - 8_000).await;
    let ids = origin.publish_lines("a", &"{\"data\":0}\n".repeat(5)).await;
    let kept = format!("id: {}\ndata: 0\n\nid: {}\ndata: 0\n\n", ids[3], ids[4]);
    let gap_in = |channel: &str, id: Option<&str>, reason: &str, requested: &str, oldest: &str| {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        format!(
            "event: gap\n{id}data: {{\"type\":\"gap\",\"channel\":\"{channel}\",\"reason\":\"{reason}\",\"requested\":\"{requested}\",\"oldest\":{oldest}}}\n\n"
        )
    };
    // The cursor comes with the gap, so that a client that is cut off before has its old one.
    let gap = |id: &str, reason, requested, oldest| {
        opening(None) + &gap_in("a", Some(id), reason, requested, oldest)
    };
    let oldest = format!("\"{}\"", ids[3]);
    // The cursor is older than the retained events; they follow the gap event.
    let body =
        body_until(&origin, "/channels/a", Some(&ids[0]), &format!("{}\ndata: 0\n\n", ids[4]))
            .await;
    assert_eq!(body, gap(&ids[0], "trimmed", &ids[0], &oldest) + &kept);
    // The cursor is foreign, as after a migration; the stream starts as a fresh join.
    let foreign = "urn:uuid:5e94c686";
    let body =
        body_until(&origin, "/channels/a", Some(foreign), &format!("{}\ndata: 0\n\n", ids[4]))
            .await;
    assert_eq!(body, gap(&ids[2], "unknown", foreign, &oldest) + &kept);
    // The cursor is ahead of the log; the stream starts as a fresh join.
    let ahead = "99999999999999-0";
    let body =
        body_until(&origin, "/channels/a", Some(ahead), &format!("{}\ndata: 0\n\n", ids[4])).await;
    assert_eq!(body, gap(&ids[2], "ahead", ahead, &oldest) + &kept);
    let body = body_until(&origin, "/channels/empty", Some(ahead), "gap").await;
    let beginning = origin.beginning().await;
    let empty = gap_in("empty", Some(&beginning), "ahead", ahead, "null");
    assert_eq!(body, opening(None) + &empty);
    // In a channel with keys, the state replaces the trimmed events.
    let keyed = origin.publish_with("a", "key=k", "s").await;
    let body = body_until(&origin, "/channels/a", Some(&ids[0]), "state\":1}\n\n").await;
    let oldest = format!("\"{}\"", ids[4]);
    assert!(
        body.starts_with(
            &(opening(None) + &gap_in("a", None, "trimmed", &ids[0], &oldest) + "data: s\n\n")
        ),
        "{body}"
    );
    assert!(body.contains(&format!("event: segment\nid: {keyed}\n")));
    // Two gap events with the reason `trimmed` were sent.
    assert_eq!(origin.metric("headwater_gaps_total{reason=\"trimmed\"}").await, 2.0);
}

// protocol §3.2
#[tokio::test]
async fn several_channels_make_one_stream_with_one_cursor() {
    let origin = Origin::start();
    wait_for_phase(T, 0, T - 8_000).await;
    let a1 = origin.publish("a", "a1").await;
    let b1 = origin.publish("b", "b1").await;
    let a2 = origin.publish("a", "a2").await;
    let mut stream = origin.raw(&get("/channels/b,a", None)).await;
    let so_far = read_until(&mut stream, |text| text.contains("a2\n\n")).await;
    let b2 = origin.publish("b", "b2").await;
    let live = read_until(&mut stream, |text| text.contains("b2\n\n")).await;
    let beginning = origin.beginning().await;
    let expected = opening(Some(&format!("{beginning}_{beginning}")))
        + &format!("id: {beginning}_{a1}\ndata: a1\n\n")
        + &format!("id: {b1}_{a1}\ndata: b1\n\n")
        + &format!("id: {b1}_{a2}\ndata: a2\n\n")
        + &format!("id: {b2}_{a2}\ndata: b2\n\n");
    assert_eq!(unchunk(&(so_far + &live)).0, expected);
    let cursor = format!("{b1}_{a1}");
    let body = body_until(&origin, "/channels/b,a", Some(&cursor), "b2\n\n").await;
    let expected =
        opening(Some(&cursor)) + &format!("id: {b1}_{a2}\ndata: a2\n\nid: {b2}_{a2}\ndata: b2\n\n");
    assert_eq!(body, expected);
    let eight = "/channels/1,2,3,4,5,6,7,8";
    assert_eq!(origin.request(Method::HEAD, eight, &[], "").await.status, 200);
    assert_eq!(origin.get("/channels/1,2,3,4,5,6,7,8,9").await.status, 400);
}

// protocol §5.9
#[tokio::test]
async fn an_ended_channel_gives_what_is_left_then_its_end_and_then_nothing() {
    let origin = Origin::start();
    wait_for_phase(T, 0, T - 8_000).await;
    let first = origin.publish("a", "x").await;
    let mut live = origin.raw(&get("/channels/a", None)).await;
    read_until(&mut live, |text| text.contains("data: x")).await;
    let ended = origin.request(Method::DELETE, "/channels/a", &[], "").await;
    assert_eq!(ended.status, 200);
    let end = ended.json()["id"].as_str().unwrap().to_owned();
    let rest = read_until(&mut live, |text| text.ends_with("0\r\n\r\n")).await;
    let data = format!("{{\"type\":\"end\",\"channel\":\"a\",\"id\":\"{end}\"}}");
    let block = format!("id: {end}\nevent: end\ndata: {data}\n\n");
    assert!(rest.contains(&block), "{rest}");
    // Ending the channel again returns the first end.
    let again = origin.request(Method::DELETE, "/channels/a", &[], "").await;
    assert_eq!(again.json()["id"], end.as_str());
    let mut stream = origin.raw(&get("/channels/a", Some(&first))).await;
    let answer = read_until(&mut stream, |text| text.ends_with("0\r\n\r\n")).await;
    assert_eq!(unchunk(&answer), (opening(Some(&first)) + &block, true));
    let request = [("last-event-id", end.as_str())];
    let nothing = origin.request(Method::GET, "/channels/a", &request, "").await;
    assert_eq!((nothing.status.as_u16(), nothing.body.as_str()), (204, ""));
    origin.post("/channels/a", &[], "y").await.assert_problem(409, "channel-closed");
    // After it is reopened, the channel continues after its end.
    let opened = origin.request(Method::DELETE, "/channels/a?reopen=1", &[], "").await;
    assert_eq!(opened.status, 200);
    let mut stream = origin.raw(&get("/channels/a", Some(&end))).await;
    read_until(&mut stream, |text| text.contains("ends_at")).await;
    let later = origin.publish("a", "later").await;
    let text = read_until(&mut stream, |text| text.contains("later\n\n")).await;
    assert!(text.contains(&format!("id: {later}\ndata: later\n\n")), "{text}");
}

#[tokio::test]
async fn a_response_that_is_full_ends_early_and_its_cursor_goes_on() {
    let origin =
        Origin::with(&["--store", "memory", "--segment-bytes", "1MiB", "--max-event", "64KiB"]);
    let lines = format!("{{\"data\":\"{}\"}}\n", "x".repeat(1_000)).repeat(2_500);
    let ids = origin.publish_lines("a", &lines).await;
    let (mut cursor, mut seen) = ("0-0".to_owned(), Vec::new());
    for _ in 0..2 {
        let mut stream = origin.raw(&get("/channels/a", Some(&cursor))).await;
        let answer = read_until(&mut stream, |text| text.ends_with("\r\n0\r\n\r\n")).await;
        let (body, is_whole) = unchunk(&answer);
        assert!(is_whole && body.len() < 1_200_000);
        let mut events: Vec<_> =
            body.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        cursor = events.pop().unwrap().to_owned();
        assert!(cursor.starts_with(events[events.len() - 1]) && cursor.contains('.'));
        // The next response may reach the boundary without an event, and needs another mark then.
        let ends_at = body.split_once("\"ends_at\":").unwrap().1.split('}').next().unwrap();
        assert!(!cursor.ends_with(&format!(".{ends_at}")), "{cursor}");
        seen.extend(events[1..].iter().map(|id| id.to_string()));
    }
    assert_eq!(seen, ids[..seen.len()]);
    assert!(seen.len() > 1_800, "{}", seen.len());
}

// protocol §2.1
#[tokio::test]
async fn reading_channels_without_events_leaves_no_channel_in_memory() {
    let origin = Origin::start();
    for number in 0..50 {
        let mut stream = origin.raw(&get(&format!("/channels/empty{number}"), None)).await;
        let answer = read_until(&mut stream, |text| text.contains("ends_at")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(origin.metric("headwater_channels_live").await >= 1.0);
    }
    let forgotten = async { while origin.metric("headwater_channels_live").await > 0.0 {} };
    tokio::time::timeout(crate::kit::PATIENCE, forgotten).await.expect("all are forgotten");
}
