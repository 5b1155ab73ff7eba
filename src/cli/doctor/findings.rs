//! The findings of `headwater doctor` as text: what was observed, and what to change.

use crate::client::http::Address;
use serde_json::{Map, Value, json};

/// A fault of the deployment, or a note about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of the finding.
    pub fault: Fault,
    /// The text that says what was observed.
    pub seen: String,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The response is not a `200` event stream.
    NotAStream,
    /// The edge gets no response from the origin.
    OriginUnreachable,
    /// The origin shed the request, and gave a reason.
    Shed,
    /// The publish of a probe was refused.
    ProbeRefused,
    /// Anyone can publish without a token.
    OpenPublish,
    /// A header of the origin is missing or changed, or the edge sets a cookie.
    Rewritten,
    /// The body is compressed.
    Compression,
    /// The body is buffered: its first block arrives late or not at all.
    Buffering,
    /// The edge uses HTTP/1.0 for its requests to the origin.
    Http10,
    /// Cookies reach the origin, or are part of the cache key.
    Cookies,
    /// Clients with the same cursor do not share a response.
    NotShared,
    /// Clients with different cursors share a response.
    KeyWithoutCursor,
    /// The parameter `?after=` does not reach the origin.
    QueryDropped,
    /// A finished response is handed out once more.
    Grace,
    /// A response is kept longer or shorter than its `max-age`.
    Ttl,
    /// A failure of the origin ends `EventSource` permanently.
    DeadOnError,
    /// The response for a failing origin has no `retry:`, or one that is too short.
    NoRetry,
    /// The CORS preflight of a browser is not answered as it should be.
    Preflight,
    /// Pages of other origins may not read the stream.
    Cors,
    /// Events arrive late.
    Late,
    /// Events arrive twice, out of order, or not at all.
    NotOnce,
    /// Responses are cut before their segment ends.
    Premature,
    /// Clients reconnect again and again.
    Loop,
    /// Browsers get HTTP/1.1 instead of HTTP/2.
    Http11,
}

/// The code of each kind of finding, and what to change.
const WORDS: [(Fault, &str, &str); 24] = [
    (
        Fault::OriginUnreachable,
        "origin-unreachable",
        "Check that the origin runs, and the address and port that the edge has for it.",
    ),
    (
        Fault::Shed,
        "shed",
        "The reason is in the answer: store = the log cannot be read, look at the origin's \
         /readyz and log; connections or client = raise --max-connections or \
         --max-connections-per-client; token-expired = the reader needs a new token.",
    ),
    (
        Fault::ProbeRefused,
        "probe-refused",
        "Give --token with a scope that publishes to --channel, or a --publish-url that takes \
         publishes; until then delays and the order of events are not looked at.",
    ),
    (
        Fault::OpenPublish,
        "open-publish",
        "Name a key at the origin (--token-secret), so that publishing needs a token, or let the \
         edge refuse POST and DELETE.",
    ),
    (
        Fault::NotAStream,
        "not-a-stream",
        "Check the URL and the channel; the edge must pass GET /channels/{name} to the \
         origin and its answer back.",
    ),
    (
        Fault::Rewritten,
        "rewritten-headers",
        "Let the origin's Content-Type, Cache-Control and Headwater-Response through as \
         they are, and add no Set-Cookie.",
    ),
    (
        Fault::Compression,
        "compression",
        "Switch compression off for text/event-stream (nginx: gzip off; Varnish: no \
         beresp.do_gzip; Fastly: beresp.gzip and brotli false): a compressed stream is \
         held back until there is enough to compress.",
    ),
    (
        Fault::Buffering,
        "buffering",
        "Pass the body on as it comes: Varnish and Fastly beresp.do_stream = true, nginx \
         proxy_buffering off (or nginx/collapse.conf, which asks for finished bodies).",
    ),
    (
        Fault::Http10,
        "http-1.0-upstream",
        "Speak HTTP/1.1 to the origin (nginx: proxy_http_version 1.1 and an empty \
         Connection header): without chunks an interrupted body looks complete.",
    ),
    (
        Fault::Cookies,
        "cookies",
        "Drop Cookie before the look-up on /channels/: it does not change the answer, and \
         most caches pass each request that has one.",
    ),
    (
        Fault::NotShared,
        "not-shared",
        "Let the cache keep answers for as long as Cache-Control says, stream them to all \
         who wait (nginx: mode=hold with proxy_cache_lock), and drop Cookie and the \
         request's Cache-Control. If nothing is to be shared here, say --direct.",
    ),
    (
        Fault::KeyWithoutCursor,
        "key-without-cursor",
        "Put Last-Event-ID into the cache key (VCL: hash_data or req.hash; nginx: \
         proxy_cache_key), or respect Vary: clients receive events that they have, or lose \
         some that they lack.",
    ),
    (
        Fault::QueryDropped,
        "query-dropped",
        "Pass the query on and keep it in the cache key: after, lane and mode change the \
         answer.",
    ),
    (
        Fault::Grace,
        "grace",
        "Hand out nothing stale on /channels/ (Varnish: beresp.grace = 0s; Fastly: \
         stale_while_revalidate and stale_if_error 0s; nginx: proxy_cache_use_stale off).",
    ),
    (
        Fault::Ttl,
        "ttl",
        "Do not set a time to live by hand on /channels/: take it from Cache-Control, \
         less Age.",
    ),
    (
        Fault::DeadOnError,
        "dead-on-error",
        "Answer every failure of the origin on /channels/ with 200, text/event-stream and \
         a retry: line, as the shipped files do: EventSource never comes back after any \
         other status.",
    ),
    (
        Fault::NoRetry,
        "no-retry",
        "Let the edge's own answer for a failing origin begin with a line retry: of 1000 or more \
         (ms), as the shipped files do: without one every client comes back after the few \
         seconds or milliseconds that it had before.",
    ),
    (Fault::Preflight, "preflight", "Pass OPTIONS on /channels/ to the origin, which answers it."),
    (
        Fault::Cors,
        "cors",
        "If pages of other sites are to read, let Access-Control-Allow-Origin through, and \
         see --cors-origin.",
    ),
    (
        Fault::Late,
        "late",
        "Look for buffering on the way, and for an overloaded cache or origin. With \
         mode=hold behind nginx half a second is the price of its polling.",
    ),
    (
        Fault::NotOnce,
        "not-once",
        "Check that the key holds the cursor and that nothing stale is handed out; if \
         both are right, please report it.",
    ),
    (
        Fault::Premature,
        "premature-end",
        "Raise the time-outs between two bytes and of whole responses above the heartbeat \
         (5 s) and the segment length, at every hop.",
    ),
    (
        Fault::Loop,
        "loop",
        "Something hands out finished answers again and again: check the key (it needs the \
         whole cursor, mark included) and how long answers are kept.",
    ),
    (
        Fault::Http11,
        "http-1.1",
        "Offer HTTP/2 to browsers: over HTTP/1.1 they open six connections to a host, for \
         all tabs together.",
    ),
];

impl Fault {
    /// The code of the finding in `--json`. A code never changes its meaning.
    pub fn code(self) -> &'static str {
        self.words().0
    }

    /// Whether the finding is a problem for clients; otherwise it is a note.
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::Cors | Self::Http11 | Self::OpenPublish)
    }

    /// What to change in the deployment.
    pub fn change(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        let row = WORDS.iter().find(|(fault, ..)| *fault == self);
        row.map_or(("", ""), |(_, code, change)| (code, change))
    }
}

impl Finding {
    /// The finding as an object for `--json`.
    pub fn json(&self) -> Value {
        json!({
            "code": self.fault.code(),
            "problem": self.fault.is_problem(),
            "seen": self.seen,
            "change": self.fault.change(),
        })
    }
}

/// The result of an examination.
#[derive(Debug, Default)]
pub struct Report {
    /// The problems and notes.
    pub findings: Vec<Finding>,
    /// The names and values that were measured, in order.
    pub measured: Vec<(&'static str, Value)>,
    /// The checks that did not run, and why.
    pub skipped: Vec<String>,
}

impl Report {
    /// The report as an object for `--json`.
    pub fn json(&self, url: &Address) -> Value {
        let measured: Map<String, Value> =
            self.measured.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        json!({
            "url": url.to_string(),
            "measured": measured,
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "not_looked_at": self.skipped,
        })
    }
}
