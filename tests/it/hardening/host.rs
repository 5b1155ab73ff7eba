//! The host that a request names, in `Host` or in what replaces it (RFC 9112, section 3.2, and RFC
//! 9113, section 8.3.1).

use super::http11::{NEXT, ask, bytes, data, start, statuses};
use super::{assert_calm, assert_sane, attack};
use crate::kit::{Origin, PATIENCE};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Field lines with no host, with several hosts, or with an invalid host. `ORIGIN` is the origin's
/// address.
const BAD: [&str; 27] = [
    "",
    "Host: ORIGIN\r\nHost: ORIGIN\r\n",
    "Host: ORIGIN\r\nHost: other.example\r\n",
    "Host: other.example\r\nHost: ORIGIN\r\n",
    "Host:\r\n",
    "Host: \t\r\n",
    "Host: user@ORIGIN\r\n",
    "Host: user:secret@ORIGIN\r\n",
    "Host: ORIGIN/channels\r\n",
    "Host: ORIGIN?x\r\n",
    "Host: ORIGIN#x\r\n",
    "Host: http://ORIGIN\r\n",
    "Host: ORIGIN, other.example\r\n",
    "Host: ORIGIN other.example\r\n",
    "Host: :8080\r\n",
    "Host: localhost:http\r\n",
    "Host: localhost:-1\r\n",
    "Host: localhost:+1\r\n",
    "Host: localhost:80:80\r\n",
    "Host: ::1\r\n",
    "Host: [::1\r\n",
    "Host: [localhost]\r\n",
    "Host: local\\host\r\n",
    "Host: \"localhost\"\r\n",
    "Host: {localhost}\r\n",
    "Host: localhost%\r\n",
    "Host: h\u{f6}st.example\r\n",
];
/// Values that an origin with a key must accept, because it does not check its own name.
const GOOD: [&str; 9] = [
    "live.example.com",
    "LIVE.example.com:443",
    "live.example.com.",
    "live.example.com:",
    "a_b.example",
    "xn--bcher-kva.example",
    "192.0.2.1:8080",
    "[2001:db8::1]",
    "[2001:db8::1]:8080",
];
const SECRET: [&str; 4] =
    ["--store", "memory", "--token-secret", "0123456789abcdef0123456789abcdef"];

/// Returns the problem document in the body of the first of these answers.
fn problem(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").expect("a head").1;
    let mut values = serde_json::Deserializer::from_str(body).into_iter();
    values.next().and_then(Result::ok).unwrap_or_default()
}

/// Describes what is wrong with the answer to a request that must be refused for this field. The
/// next request may be answered, because the origin can tell where it begins.
async fn complaint(origin: &Origin, request: &str, field: &str) -> Option<String> {
    let before = data(origin, "c").await;
    let answer = attack(origin, &bytes(origin, &format!("{request}{NEXT}"))).await;
    let (got, problem) = (statuses(&answer), problem(&answer));
    let is_refused = (got == [400] || got == [400, 201])
        && problem["type"] == "urn:headwater:problem:bad-field"
        && problem["field"] == field;
    let is_stored = data(origin, "c").await != before;
    (!is_refused || is_stored).then(|| format!("{request:?} is answered {got:?} {problem}"))
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The beginnings of a request for a stream that ends at once, and of a publish.
const STREAM: &str = "GET /channels/ended HTTP/1.1\r\n";
const PUBLISH: &str = "POST /channels/c HTTP/1.1\r\nContent-Length: 3\r\n";

#[tokio::test]
async fn a_request_without_one_good_host_is_refused() {
    let origin = start().await;
    let mut complaints = Vec::new();
    for lines in BAD {
        complaints.extend(complaint(&origin, &format!("{STREAM}{lines}\r\n"), "Host").await);
        complaints.extend(complaint(&origin, &format!("{PUBLISH}{lines}\r\nabc"), "Host").await);
    }
    assert_none(&complaints);
    for host in ["ORIGIN", "localhost:PORT", "127.0.0.1:PORT", "[::1]:PORT"] {
        let host = host.replace("PORT", &origin.listen.port().to_string());
        let got = ask(&origin, &format!("{STREAM}Host: {host}\r\n\r\n{NEXT}")).await;
        assert_eq!(got, [200, 201], "{host}");
        let got = ask(&origin, &format!("{PUBLISH}Host: {host}\r\n\r\nabc{NEXT}")).await;
        assert_eq!(got, [201, 201], "{host}");
    }
    let origin = Origin::with(&SECRET);
    for host in GOOD {
        let head = "GET /channels/c/history HTTP/1.1\r\nConnection: close\r\n";
        assert_eq!(ask(&origin, &format!("{head}Host: {host}\r\n\r\n")).await, [200], "{host}");
    }
    assert_calm(&origin).await;
}

#[tokio::test]
async fn http_1_0_may_leave_host_out() {
    let origin = start().await;
    let old = STREAM.replace("HTTP/1.1", "HTTP/1.0");
    for lines in ["", "Host: ORIGIN\r\n"] {
        assert_eq!(ask(&origin, &format!("{old}{lines}\r\n")).await, [200], "{lines:?}");
    }
    let mut complaints = Vec::new();
    // HTTP/1.0 does not need the header, but a host that is present must be valid. An empty value
    // counts as no host.
    for lines in BAD.into_iter().filter(|lines| lines.len() > "Host: \t\r\n".len()) {
        complaints.extend(complaint(&origin, &format!("{old}{lines}\r\n"), "Host").await);
    }
    assert_none(&complaints);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_target_with_a_host_goes_before_the_header() {
    let origin = start().await;
    let line = |host: &str| format!("GET http://{host}/channels/ended HTTP/1.1\r\n");
    for lines in ["Host: ORIGIN\r\n", "Host: other.example\r\n"] {
        let got = ask(&origin, &format!("{}{lines}\r\n{NEXT}", line("ORIGIN"))).await;
        assert_eq!(got, [200, 201], "{lines:?}");
    }
    // The header is still required, and must be valid.
    let requests = BAD.map(|lines| format!("{}{lines}\r\n", line("ORIGIN"))).into_iter();
    let targets = ["user@ORIGIN", "localhost:http", ":8080"];
    let mut complaints = Vec::new();
    for request in requests.chain(targets.map(|host| line(host) + "Host: ORIGIN\r\n\r\n")) {
        complaints.extend(complaint(&origin, &request, "Host").await);
    }
    assert_none(&complaints);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn options_of_the_whole_server_say_what_it_takes() {
    let origin = start().await;
    let whole = "OPTIONS * HTTP/1.1\r\n";
    let text = format!("{whole}Host: ORIGIN\r\n\r\n{NEXT}");
    let answer = attack(&origin, &bytes(&origin, &text)).await;
    assert_eq!(statuses(&answer), [204, 201], "{answer}");
    let head = answer.split_once("\r\n\r\n").expect("a head").0.to_lowercase();
    let allow = head.lines().find_map(|line| line.strip_prefix("allow: ")).expect("Allow");
    for method in ["get", "head", "post", "delete", "options"] {
        assert!(allow.split(", ").any(|allowed| allowed == method), "{allow}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(complaint(&origin, &format!("{whole}\r\n"), "Host").await, None);
    // The other methods are for one resource (RFC 9112, section 3.2.4).
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let got = ask(&origin, &format!("{method} * HTTP/1.1\r\nHost: ORIGIN\r\n\r\n{NEXT}")).await;
        assert!([400, 404].contains(&got[0]) && data(&origin, "c").await.is_empty(), "{got:?}");
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_websocket_with_a_bad_key_is_refused() {
    let origin = start().await;
    let head = "GET /ws HTTP/1.1\r\nHost: ORIGIN\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\n";
    const KEY: &str = "Sec-WebSocket-Key";
    let mut complaints = Vec::new();
    let good = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for lines in [
        "",
        "Sec-WebSocket-Key:\r\n",
        "Sec-WebSocket-Key: x\r\n",
        // 15 bytes, 17 bytes, no padding, invalid base64, and two keys.
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE=\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBs!!Bub25jZQ==\r\n",
        &good.repeat(2),
    ] {
        complaints.extend(complaint(&origin, &format!("{head}{lines}\r\n"), KEY).await);
    }
    assert_none(&complaints);
    assert_calm(&origin).await;
}

/// The outcome of one request over HTTP/2, sent frame by frame: its status as an index of the
/// header table, or the code of its reset.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Status(u8),
    Reset(u32),
}

/// `:status: 200`, `204` and `400` in the static table (RFC 7541, appendix A), as one byte.
const OK: Outcome = Outcome::Status(0x88);
const NO_CONTENT: Outcome = Outcome::Status(0x89);
const BAD_REQUEST: Outcome = Outcome::Status(0x8c);
const PROTOCOL_ERROR: Outcome = Outcome::Reset(1);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a field line with a new name, without indexing (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

async fn ask_h2(origin: &Origin, line: [&str; 2], hosts: &[(&str, &str)]) -> Outcome {
    let own = origin.listen.to_string();
    let mut fields = [(":method", line[0]), (":scheme", "http"), (":path", line[1])].to_vec();
    fields.extend(hosts);
    let block = fields.iter().flat_map(|(name, value)| field(name, &value.replace("ORIGIN", &own)));
    let block: Vec<u8> = block.collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS, and HEADERS that are the whole request.
    let request = [preface, frame(4, 0, 0, &[]), frame(1, 5, 1, &block)].concat();
    let mut stream = origin.raw(&request).await;
    let answer = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.expect("a payload");
            match (head[3], head[8]) {
                (1, 1) => return Outcome::Status(payload[0]),
                (3, 1) => {
                    return Outcome::Reset(u32::from_be_bytes(payload.try_into().expect("4")));
                }
                _ => {}
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, answer).await.expect("it is answered");
    stream.shutdown().await.ok();
    outcome
}

#[tokio::test]
async fn http_2_names_one_good_host_too() {
    let origin = start().await;
    let get = ["GET", "/channels/c/history"];
    for hosts in [
        &[(":authority", "ORIGIN")][..],
        &[("host", "ORIGIN")],
        &[(":authority", "ORIGIN"), ("host", "ORIGIN")],
    ] {
        assert_eq!(ask_h2(&origin, get, hosts).await, OK, "{hosts:?}");
    }
    let whole = ask_h2(&origin, ["OPTIONS", "*"], &[(":authority", "ORIGIN")]).await;
    assert_eq!(whole, NO_CONTENT);
    let mut complaints = Vec::new();
    for hosts in [
        &[][..],
        &[(":authority", "")],
        &[(":authority", "user@ORIGIN")],
        &[(":authority", "ORIGIN/channels")],
        &[(":authority", "ORIGIN?x")],
        &[(":authority", "ORIGIN other.example")],
        &[(":authority", ":8080")],
        &[(":authority", "localhost:http")],
        &[(":authority", "[::1")],
        &[(":authority", "ORIGIN"), (":authority", "ORIGIN")],
        &[(":authority", "ORIGIN"), ("host", "other.example")],
        &[(":authority", "ORIGIN"), ("host", "ORIGIN"), ("host", "ORIGIN")],
        &[("host", "")],
        &[("host", "ORIGIN/channels")],
        &[("host", "user@ORIGIN")],
        &[("host", "ORIGIN"), ("host", "ORIGIN")],
    ] {
        // The HTTP library resets a stream that it refuses by itself (RFC 9113, section 8.1.1).
        let outcome = ask_h2(&origin, get, hosts).await;
        let is_refused = [BAD_REQUEST, PROTOCOL_ERROR].contains(&outcome);
        complaints.extend((!is_refused).then(|| format!("{hosts:?}: {outcome:?}")));
    }
    assert_none(&complaints);
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}
