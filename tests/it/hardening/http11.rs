//! Where an HTTP/1.1 request begins and ends: the request line, field lines, lengths and chunks.
//!
//! The cases are those of Http11Probe, each as a publish and as a request for a stream. A second
//! request follows each of them on the same connection. It is answered if the origin agrees with
//! the client about the end of the first one, and only then. `requests.rs` hides requests in
//! bodies, `host.rs` has the cases about `Host`.

use super::{assert_calm, assert_sane, attack};
use crate::kit::{Origin, read_until};
use hyper::Method;
use tokio::io::AsyncWriteExt;

/// The expected outcome of a publish with a part of its head and a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    /// These data are stored, and the second request is answered.
    Stored(&'static str),
    /// These data are stored, and the connection is closed.
    StoredAndClosed(&'static str),
    /// Nothing is stored, the answer has this status, and the connection is closed.
    Refused(u16),
}

use Publish::{Refused, Stored, StoredAndClosed};

/// Field lines about the length of a body, the bytes that follow them, and the outcome of a
/// publish.
const LENGTHS: [(&str, &str, Publish); 38] = [
    ("Content-Length: 3", "abc", Stored("abc")),
    ("CONTENT-LENGTH: 3", "abc", Stored("abc")),
    ("Content-Length:\t3", "abc", Stored("abc")),
    ("Content-Length:   3 ", "abc", Stored("abc")),
    ("Content-Length: 003", "abc", Stored("abc")),
    ("Content-Length: 0", "", Stored("")),
    ("Content-Length: 00", "", Stored("")),
    ("X: y", "", Stored("")),
    // A recipient may accept the same length twice as one (RFC 9112, section 6.3).
    ("Content-Length: 3\r\nContent-Length: 3", "abc", Stored("abc")),
    ("Content-Length: 3, 3", "abc", Refused(400)),
    ("Content-Length: 3, 4", "abc", Refused(400)),
    ("Content-Length: 3\r\nContent-Length: 4", "abc", Refused(400)),
    ("Content-Length: 4\r\nContent-Length: 3", "abc", Refused(400)),
    ("Content-Length:", "abc", Refused(400)),
    ("Content-Length: -0", "abc", Refused(400)),
    ("Content-Length: -3", "abc", Refused(400)),
    ("Content-Length: +3", "abc", Refused(400)),
    ("Content-Length: 3.0", "abc", Refused(400)),
    ("Content-Length: 3_0", "abc", Refused(400)),
    ("Content-Length: 0x3", "abc", Refused(400)),
    ("Content-Length: 0o3", "abc", Refused(400)),
    ("Content-Length: 3 0", "abc", Refused(400)),
    ("Content-Length: 3;a", "abc", Refused(400)),
    ("Content-Length: \"3\"", "abc", Refused(400)),
    ("Content-Length: three", "abc", Refused(400)),
    ("Content-Length: 18446744073709551619", "abc", Refused(400)),
    // The HTTP library does not accept the two largest 64-bit values as a length.
    ("Content-Length: 18446744073709551615", "abc", Refused(431)),
    ("Content-Length: 9223372036854775807", "abc", Refused(413)),
    ("Content-Length : 3", "abc", Refused(400)),
    ("Content-Length\t: 3", "abc", Refused(400)),
    ("Content-Length: 3\r\n 0", "abc", Refused(400)),
    // A request with both is an attack or an accident: the chunks count, and the connection is
    // closed.
    ("Content-Length: 3\r\nTransfer-Encoding: chunked", CHUNKED, StoredAndClosed("abc")),
    ("Transfer-Encoding: chunked\r\nContent-Length: 3", CHUNKED, StoredAndClosed("abc")),
    ("Transfer-Encoding: chunked\r\nContent-Length: +3", CHUNKED, StoredAndClosed("abc")),
    ("Content-Length: 3x\r\nTransfer-Encoding: chunked", CHUNKED, Refused(400)),
    ("Transfer-Encoding: identity\r\nContent-Length: 3", "abc", Refused(400)),
    ("Transfer-Encoding: xchunked\r\nContent-Length: 3", "abc", Refused(400)),
    // A name with an underscore is another name, so this request has no body.
    ("Content_Length: 3\r\nTransfer_Encoding: chunked", "", Stored("")),
];

const CHUNKED_LINE: &str = "Transfer-Encoding: chunked";
const CHUNKED: &str = "3\r\nabc\r\n0\r\n\r\n";
/// Values of `Transfer-Encoding` in front of [`CHUNKED`], and the outcome of a publish.
const CODINGS: [(&str, Publish); 21] = [
    ("chunked", Stored("abc")),
    ("Chunked", Stored("abc")),
    ("\tchunked ", Stored("abc")),
    // A recipient ignores empty elements of a list (RFC 9110, section 5.6.1).
    (", chunked", Stored("abc")),
    ("", Refused(400)),
    ("gzip", Refused(400)),
    ("chunked, gzip", Refused(400)),
    ("chunked, identity", Refused(400)),
    ("chunked\r\nTransfer-Encoding: identity", Refused(400)),
    ("chunked identity", Refused(400)),
    ("chunked;a=b", Refused(400)),
    ("\"chunked\"", Refused(400)),
    ("'chunked'", Refused(400)),
    ("xchunked", Refused(400)),
    ("chunkedx", Refused(400)),
    ("chunked\u{b}", Refused(400)),
    ("\u{c}chunked", Refused(400)),
    ("chunked\0", Refused(400)),
    ("chun\rked", Refused(400)),
    ("\r\n chunked", Refused(400)),
    ("\u{e9}chunked", Refused(400)),
];

/// Chunked bodies, and the outcome of a publish.
const CHUNKS: [(&str, Publish); 49] = [
    ("3\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", Stored("abc")),
    ("0\r\n\r\n", Stored("")),
    ("A\r\n0123456789\r\n0\r\n\r\n", Stored("0123456789")),
    ("a\r\n0123456789\r\n0\r\n\r\n", Stored("0123456789")),
    ("0003\r\nabc\r\n0000\r\n\r\n", Stored("abc")),
    ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", Stored("0\r\n\r\n")),
    ("3;a\r\nabc\r\n0;b\r\n\r\n", Stored("abc")),
    ("3;a=b;c=\"d;\\\"e\"\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3 ; a = b\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3\r\nabc\r\n0\r\nX: y\r\nZ: \r\n\r\n", Stored("abc")),
    // Trailers are not headers, so none of these affects this request or the next.
    ("3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", Stored("abc")),
    ("3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", Stored("abc")),
    ("3\r\nabc\r\n0\r\nHost: x/y\r\n\r\n", Stored("abc")),
    ("3\r\nabc\r\n0\r\nContent-Type: application/x-ndjson\r\n\r\n", Stored("abc")),
    ("", Refused(400)),
    ("\r\n", Refused(400)),
    ("-3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("+3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("+0\r\n\r\n", Refused(400)),
    ("0x3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3_0\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3.0\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("g\r\nabc\r\n0\r\n\r\n", Refused(400)),
    (" 3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("\t3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3 3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3 x\r\nabc\r\n0\r\n\r\n", Refused(400)),
    (";a\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("10000000000000003\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("fffffffffffffffffffffffffffff\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3\rabc\r\n0\r\n\r\n", Refused(400)),
    ("3\r\rabc\r\n0\r\n\r\n", Refused(400)),
    ("3\r\nabc\n0\r\n\r\n", Refused(400)),
    ("3\r\nabc\r0\r\n\r\n", Refused(400)),
    ("3\r\nabc0\r\n\r\n", Refused(400)),
    ("3\r\nabcde\r\n0\r\n\r\n", Refused(400)),
    ("5\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3\r\nabc\r\n", Refused(400)),
    ("3\r\nabc\r\n0\n\r\n", Refused(400)),
    ("3\r\nabc\r\n0\r\n\r", Refused(400)),
    ("3;a\n\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3;a\rb\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("3;a\r\rabc\r\n0\r\n\r\n", Refused(400)),
    ("3\r\nabc\r\n0\r\nX : y\r\n\r\n", Refused(400)),
    ("3\r\nabc\r\n0\r\nX\r\n\r\n", Refused(400)),
    ("3\r\nabc\r\n0\r\nX: a\0\r\n\r\n", Refused(400)),
    ("3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n", Refused(400)),
];

/// Chunked bodies that break the grammar of RFC 9112, section 7.1, but that the HTTP library
/// accepts; docs/security.md documents it. The event is stored and the connection stays in step. If
/// a version of the library refuses one of them, this test fails: the body then belongs into
/// [`CHUNKS`], and must be removed from the document.
const LENIENT_CHUNKS: [(&str, Publish); 10] = [
    ("3;\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;;a\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;=b\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;a=\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;a=\"b\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;[\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;a b\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;a\0\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3;a\u{1}\r\nabc\r\n0\r\n\r\n", Stored("abc")),
    ("3 \r\nabc\r\n0\r\n\r\n", Stored("abc")),
];

/// The head of a request for a stream that ends at once, and the statuses of the answers to it and
/// to the second request. `ORIGIN` is the origin's address.
const HEADS: [(&str, &[u16]); 44] = [
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[200, 201]),
    ("\r\n\r\nGET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[200, 201]),
    ("GET /channels/ended HTTP/1.1\r\nhOST:\tORIGIN \r\n\r\n", &[200, 201]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX:\r\nY: \u{e9}\r\n\r\n", &[200, 201]),
    // A recipient may accept a single line feed as the end of a line (RFC 9112, section 2.2).
    ("GET /channels/ended HTTP/1.1\nHost: ORIGIN\n\n", &[200, 201]),
    // The HTTP library drops a fragment, which a request may not have.
    ("GET /channels/ended#x HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[200, 201]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nExpect: 200-ok\r\n\r\n", &[200, 201]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nConnection: close\r\n\r\n", &[200]),
    ("GET /channels/ended HTTP/1.0\r\nHost: ORIGIN\r\n\r\n", &[200]),
    ("HEAD /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[200, 201]),
    ("OPTIONS /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[204, 201]),
    ("get /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[405, 201]),
    ("TRACE /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\r\n\r\n", &[405, 201]),
    ("PATCH /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[405, 201]),
    ("GET /channels/ended\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.2\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/2.0\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/01.01\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1 .1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended http/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1 \r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET  /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET\t/channels/ended\tHTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\rHost: ORIGIN\r\r", &[400]),
    (" GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/en ded HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/end\0ed HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("G[T /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\n Host: ORIGIN\r\nX: y\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n: y\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX[: y\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX\t: y\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX : y\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX\u{e9}: y\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\r\n z\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\r\n\tz\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\rz\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\0z\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\u{1}z\r\n\r\n", &[400]),
    ("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\nX: y\u{7f}z\r\n\r\n", &[400]),
    ("GET http://ORIGIN/channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", &[200, 201]),
];

/// The second request, which publishes to `next`.
pub const NEXT: &str = "POST /channels/next HTTP/1.1\r\nHost: ORIGIN\r\nConnection: close\r\n\
                    Content-Length: 4\r\n\r\nnext";

/// Starts an origin with a channel that has ended, so that its streams end at once.
pub async fn start() -> Origin {
    let origin = Origin::start();
    origin.publish("ended", "x").await;
    let ended = origin.request(Method::DELETE, "/channels/ended", &[], "").await;
    assert_eq!(ended.status, 200);
    origin
}

/// Converts a text to bytes, one for each character, so that a test can send any byte.
pub fn bytes(origin: &Origin, text: &str) -> Vec<u8> {
    let text = text.replace("ORIGIN", &origin.listen.to_string());
    text.chars().map(|character| u8::try_from(character).expect("a byte")).collect()
}

/// Returns the statuses of all answers.
pub fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.split("HTTP/1.").skip(1);
    // Other mentions of the protocol in a text are not followed by a number.
    heads.filter_map(|head| head.get(2..5)?.parse().ok()).collect()
}

pub async fn ask(origin: &Origin, text: &str) -> Vec<u16> {
    statuses(&attack(origin, &bytes(origin, text)).await)
}

pub async fn data(origin: &Origin, channel: &str) -> Vec<String> {
    origin.log(channel).await.into_iter().map(|(_, data)| data).collect()
}

/// Checks the outcome of a publish with these field lines and this body.
async fn assert_publish(origin: &Origin, lines: &str, body: &str, expected: Publish) {
    let before = (data(origin, "c").await.len(), data(origin, "next").await.len());
    let post = format!("POST /channels/c HTTP/1.1\r\nHost: ORIGIN\r\n{lines}\r\n\r\n{body}{NEXT}");
    let got = ask(origin, &post).await;
    let (wanted, stored, next) = match expected {
        Stored(data) => (&[201, 201][..], Some(data), Some("next")),
        StoredAndClosed(data) => (&[201][..], Some(data), None),
        Refused(ref status) => (std::slice::from_ref(status), None, None),
    };
    assert_eq!(got, wanted, "{post:?}");
    assert_eq!(data(origin, "c").await[before.0..], Vec::from_iter(stored), "{post:?}");
    assert_eq!(data(origin, "next").await[before.1..], Vec::from_iter(next), "{post:?}");
}

/// Checks the same as a request for a stream, which needs no body. The connection stays open only
/// after a body that was read to its end, and the origin does not wait for one.
async fn assert_stream(origin: &Origin, lines: &str, body: &str, expected: Publish) {
    let head = format!("GET /channels/ended HTTP/1.1\r\nHost: ORIGIN\r\n{lines}\r\n\r\n");
    let before = data(origin, "next").await.len();
    let got = ask(origin, &format!("{head}{body}{NEXT}")).await;
    let is_framed = lines == CHUNKED_LINE;
    match expected {
        Stored(_) => assert!(got == [200, 201] || got == [200], "{head:?} {body:?}: {got:?}"),
        // An error in the head is answered first, and the rest of the body is not read.
        Refused(status) if status != 413 && !is_framed => assert_eq!(got, [status], "{head:?}"),
        StoredAndClosed(_) | Refused(_) => assert_eq!(got, [200], "{head:?} {body:?}"),
    }
    assert_eq!(
        data(origin, "next").await.len() - before,
        usize::from(got.len() == 2),
        "{head:?} {body:?}"
    );
}

async fn assert_both(origin: &Origin, lines: &str, body: &str, expected: Publish) {
    assert_publish(origin, lines, body, expected).await;
    assert_stream(origin, lines, body, expected).await;
}

#[tokio::test]
async fn a_body_ends_where_its_length_says() {
    let origin = start().await;
    for (lines, body, expected) in LENGTHS {
        assert_both(&origin, lines, body, expected).await;
    }
    for (coding, expected) in CODINGS {
        let lines = format!("Transfer-Encoding: {coding}");
        assert_both(&origin, &lines, CHUNKED, expected).await;
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_body_in_chunks_ends_with_its_last_one() {
    let origin = start().await;
    for (body, expected) in CHUNKS.into_iter().chain(LENIENT_CHUNKS) {
        assert_both(&origin, CHUNKED_LINE, body, expected).await;
    }
    // The bytes that carry no data are limited: in one extension, in many extensions, and in
    // trailers.
    let long = "a".repeat(20_000);
    let many = format!("1;{}\r\nx\r\n", &long[..100]).repeat(170) + "0\r\n\r\n";
    let trailers = "X: y\r\n".repeat(200);
    for body in [
        format!("3;{long}\r\nabc\r\n0\r\n\r\n"),
        many,
        format!("3\r\nabc\r\n0\r\nX: {long}\r\n\r\n"),
        format!("3\r\nabc\r\n0\r\n{trailers}\r\n"),
    ] {
        assert_both(&origin, CHUNKED_LINE, &body, Refused(400)).await;
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

/// The HTTP library searches for the end of the trailers by CRLF alone, but parses them up to an
/// empty line with any line ending. So the bytes after such a line count as trailers, and never as
/// a request.
#[tokio::test]
async fn trailers_that_end_in_a_line_feed_hide_no_request() {
    let origin = start().await;
    for end in ["0\r\n\n", "0\r\nX: y\n\r\n", "0\r\nX: y\n\n"] {
        let head = format!("POST /channels/c HTTP/1.1\r\nHost: ORIGIN\r\n{CHUNKED_LINE}\r\n\r\n");
        let text = format!("{head}3\r\nabc\r\n{end}{NEXT}");
        let mut stream = origin.raw(&bytes(&origin, &text)).await;
        stream.shutdown().await.expect("it is open");
        let answer = read_until(&mut stream, |_| false).await;
        let got = statuses(&answer);
        assert!(got == [201] || got == [400], "{end:?}: {answer}");
        assert_eq!(data(&origin, "next").await, [""; 0], "{end:?}");
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

/// The HTTP library decodes only the chunks of these bodies, and delivers the rest as it came. RFC
/// 9112, section 6.1, requires `501` for a coding that the origin does not support, and no sender
/// may use `chunked` twice.
#[tokio::test]
async fn a_body_in_another_coding_than_chunks_is_refused() {
    let origin = start().await;
    for coding in [
        "gzip, chunked",
        "gzip,chunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "identity, chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
    ] {
        let head = "POST /channels/c HTTP/1.1\r\nHost: ORIGIN\r\nConnection: close\r\n";
        let text = format!("{head}Transfer-Encoding: {coding}\r\n\r\n{CHUNKED}");
        let got = ask(&origin, &text).await;
        assert!(got == [501] || got == [400], "{coding:?} is answered {got:?}");
        assert_eq!(data(&origin, "c").await, [""; 0], "{coding:?}");
    }
}

#[tokio::test]
async fn a_head_that_breaks_the_grammar_is_refused_and_the_connection_is_closed() {
    let origin = start().await;
    for (count, (head, expected)) in (1..).zip(HEADS) {
        assert_eq!(ask(&origin, &format!("{head}{NEXT}")).await, expected, "{head:?}");
        let answered = HEADS[..count].iter().filter(|(_, expected)| expected.len() == 2).count();
        assert_eq!(data(&origin, "next").await.len(), answered, "{head:?}");
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn an_unexpected_body_is_not_parsed_as_a_request() {
    let origin = start().await;
    let hidden = "POST /channels/hidden HTTP/1.1\r\nHost: ORIGIN\r\nContent-Length: 1\r\n\r\nx";
    let length = bytes(&origin, hidden).len();
    for (line, status) in [
        ("GET /channels/ended", 200),
        ("GET /channels/c/history", 200),
        ("HEAD /channels/c/history", 200),
        ("OPTIONS /channels/c", 204),
        ("PUT /channels/c", 405),
        ("TRACE /", 405),
        ("GET /ws", 426),
        ("GET /nothing", 404),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: ORIGIN\r\n");
        for text in [
            format!("{head}Content-Length: {length}\r\n\r\n{hidden}{NEXT}"),
            format!("{head}{CHUNKED_LINE}\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n{NEXT}"),
            format!("{head}Content-Length: 1000000\r\n\r\n{hidden}{NEXT}"),
            format!("{head}{CHUNKED_LINE}\r\n\r\nf4240\r\n{hidden}{NEXT}"),
            format!("{head}{CHUNKED_LINE}\r\n\r\nx\r\n{hidden}{NEXT}"),
        ] {
            let got = ask(&origin, &text).await;
            assert!(got == [status] || got == [status, 201], "{text:?}: {got:?}");
            assert_eq!(data(&origin, "hidden").await, [""; 0], "{text:?}");
        }
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn expect_100_continue_is_answered_with_100_only_if_the_body_is_read() {
    let origin = start().await;
    let expects = "Host: ORIGIN\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    let got = ask(&origin, &format!("POST /channels/c HTTP/1.1\r\n{expects}{NEXT}")).await;
    assert_eq!(got, [100, 201, 201]);
    // HTTP/1.0 has no such answer (RFC 9110, section 15.2).
    let got = ask(&origin, &format!("POST /channels/c HTTP/1.0\r\n{expects}{NEXT}")).await;
    assert_eq!(got, [201]);
    let got = ask(&origin, &format!("GET /channels/ended HTTP/1.1\r\n{expects}{NEXT}")).await;
    assert!(got == [200, 201] || got == [200], "{got:?}");
    assert_eq!(data(&origin, "c").await, ["abc", "abc"]);
}
