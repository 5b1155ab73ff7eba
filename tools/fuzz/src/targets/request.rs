//! The path, the query and the headers of a request.

use crate::input::Input;
use headwater::core::cursor::CHANNELS_PER_STREAM_MAX;
use headwater::core::event::ChannelName;
use headwater::core::resume::ResumeFrom;
use headwater::http::fuzzing::{
    Problem, accepts_event_stream, accepts_gzip, accepts_openmetrics, bearer, cookies, page_limit,
    position, start,
};
use headwater::http::route::{Query, Route};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use serde_json::Value;

const KNOWN: [&str; 7] = ["after", "since", "last", "limit", "mode", "lane", "key"];

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (path, raw) = (input.text(), input.text());
    let mut headers = HeaderMap::new();
    let last_event_id = HeaderName::from_static("last-event-id");
    for name in [last_event_id, ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, COOKIE] {
        for _ in 0..input.below(3) {
            if let Ok(value) = HeaderValue::from_bytes(input.bytes()) {
                headers.append(&name, value);
            }
        }
    }
    route(&path);
    let query = Query::parse(&raw);
    parameters(&raw, &query);
    for channels in [1, 3] {
        match start(&headers, &query, channels) {
            Ok(ResumeFrom::After(cursor)) => assert_eq!(cursor.positions.len(), channels),
            Ok(_) => {}
            Err(problem) => refusal(problem, raw.len()),
        }
    }
    match page_limit(&query) {
        Ok(limit) => assert!((1..=1_000).contains(&limit)),
        Err(problem) => refusal(problem, raw.len()),
    }
    if let Err(problem) = position(&path) {
        refusal(problem, 0);
    }
    negotiation(&headers);
}

fn route(path: &str) {
    let names = match Route::parse(path) {
        Ok(Route::Channels(names)) => names,
        Ok(Route::History(name) | Route::State(name)) => vec![name],
        Ok(_) => return,
        Err(problem) => return refusal(problem, path.len()),
    };
    assert!((1..=CHANNELS_PER_STREAM_MAX).contains(&names.len()));
    let mut sorted: Vec<&str> = names.iter().map(ChannelName::as_str).collect();
    let joined = sorted.join(",");
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "{joined}");
    // The same names, plain and with every byte encoded.
    let encoded: String = joined.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for text in [joined, encoded] {
        assert_eq!(
            Route::parse(&format!("/channels/{text}")).ok(),
            Some(Route::Channels(names.clone()))
        );
    }
}

/// A refusal is a problem document that is not much longer than the request.
fn refusal(problem: Problem, length: usize) {
    assert!(problem.status.is_client_error(), "{}", problem.status);
    let json = problem.json();
    assert!(json.len() <= 1_024 + 16 * length, "{} bytes for {length}", json.len());
    let value: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["status"], problem.status.as_u16());
    let response = problem.into_response();
    assert!(response.headers().values().all(|value| value.to_str().is_ok()));
}

fn parameters(raw: &str, query: &Query) {
    let pairs: Vec<(&str, String)> =
        raw.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    for name in KNOWN {
        let first = pairs.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str());
        assert_eq!(query.get(name), first.filter(|value| !value.is_empty()), "{name}");
    }
    match query.only("a request", &KNOWN) {
        Ok(()) => {
            assert!(pairs.iter().all(|(name, _)| KNOWN.contains(name)));
            let is_twice = |at: usize| pairs[..at].iter().any(|(name, _)| *name == pairs[at].0);
            assert!(!(0..pairs.len()).any(is_twice));
            let encoded = |value: &str| -> String {
                value.bytes().map(|byte| format!("%{byte:02X}")).collect()
            };
            let again: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
            assert_eq!(Query::parse(&again.join("&")), *query);
        }
        Err(problem) => refusal(problem, raw.len()),
    }
}

/// Decodes one parameter, byte by byte.
fn pair(pair: &str) -> (&str, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let (mut rest, mut bytes) = (value.as_bytes(), Vec::new());
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (byte, width) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => ((high << 4 | low) as u8, 3),
            (b'+', ..) => (b' ', 1),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[width..];
    }
    (name, String::from_utf8_lossy(&bytes).into_owned())
}

fn negotiation(headers: &HeaderMap) {
    if !headers.contains_key(ACCEPT) {
        assert!(accepts_event_stream(headers) && !accepts_openmetrics(headers));
    }
    assert!(headers.contains_key(ACCEPT_ENCODING) || !accepts_gzip(headers));
    if let Some(token) = bearer(headers) {
        assert_eq!(headers.get_all(AUTHORIZATION).iter().count(), 1);
        assert_eq!(token, token.trim());
    }
    assert!(cookies(headers, "headwater").len() <= 4);
}
