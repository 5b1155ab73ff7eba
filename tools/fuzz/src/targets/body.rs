//! A single event: the headers, the query and the body of its publish, also compressed.

use crate::input::Input;
use flate2::bufread::MultiGzDecoder;
use headwater::core::event::Field;
use headwater::http::fuzzing::{
    Shape, gunzip, idempotency_key, is_gzip, removes_key, shape, single_event,
};
use headwater::http::route::Query;
use headwater::store::Idempotency;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use std::io::Read;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const INFLATED_BYTES_MAX: usize = 16 * 1024;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.flag() {
        return inflated(input.rest());
    }
    let mut headers = HeaderMap::new();
    let key = HeaderName::from_static("idempotency-key");
    for name in [CONTENT_TYPE, CONTENT_ENCODING, key] {
        for _ in 0..input.below(3) {
            if let Ok(value) = HeaderValue::from_bytes(input.bytes()) {
                headers.append(&name, value);
            }
        }
    }
    let one = Publish { query: input.text(), body: input.bytes() };
    let other = Publish { query: input.text(), body: input.bytes() };
    let _either = is_gzip(&headers);
    let shape = shape(&headers);
    for publish in [&one, &other] {
        single(publish, shape);
    }
    if let Ok(Some(key)) = idempotency_key(&headers) {
        assert!(Idempotency::is_key(key));
        digests(key, &one, &other);
    }
}

struct Publish<'a> {
    query: String,
    body: &'a [u8],
}

fn single(publish: &Publish<'_>, shape: Shape) {
    let query = Query::parse(&publish.query);
    let Ok(removes) = removes_key(&query, shape) else { return };
    assert!(!removes || shape == Shape::Single && query.get("key").is_some());
    let Ok(event) = single_event(&query, removes, publish.body) else { return };
    assert_eq!(event.data.as_bytes(), publish.body);
    assert_eq!(event.key.as_ref().map(Field::as_str), query.get("key"));
    assert_eq!(event.kind.as_ref().map(Field::as_str), query.get("event"));
    assert_eq!(event.removes_key(), event.key.is_some() && (removes || event.data.is_empty()));
}

/// Two publishes with the same key are the same publish only if they are equal.
fn digests(key: &str, one: &Publish<'_>, other: &Publish<'_>) {
    let of = |publish: &Publish<'_>| {
        let query = Query::parse(&publish.query);
        let parts = [query.get("event"), query.get("key")].map(|part| part.map(str::to_owned));
        let removes = removes_key(&query, Shape::Single).unwrap_or_default();
        let [kind, of_key] = &parts;
        let (kind, of_key) = (kind.as_deref(), of_key.as_deref());
        let made = Idempotency::of(key.to_owned(), false, kind, of_key, removes, publish.body);
        ((parts, removes, publish.body.to_vec()), made)
    };
    let ((one, first), (other, second)) = (of(one), of(other));
    assert_eq!(one == other, first == second);
}

/// The decoded body is that of another decoder, and never longer than the limit.
fn inflated(bytes: &[u8]) {
    let decoded = ready(gunzip(bytes, INFLATED_BYTES_MAX));
    let mut expected = Vec::new();
    let reference = MultiGzDecoder::new(bytes).take(INFLATED_BYTES_MAX as u64 + 1);
    let reference = { reference }.read_to_end(&mut expected).map(|_| expected);
    match (decoded, reference) {
        (Ok(Some(decoded)), reference) => {
            assert!(decoded.len() <= INFLATED_BYTES_MAX);
            assert_eq!(reference.ok().as_deref(), Some(&decoded[..]));
        }
        (Ok(None), reference) => {
            assert!(reference.is_ok_and(|expected| expected.len() > INFLATED_BYTES_MAX));
        }
        (Err(problem), reference) => {
            let is_right = problem.json().contains("members") || reference.is_err();
            // The reference stops at the limit, before it reaches what is wrong.
            let is_cut = reference.is_ok_and(|expected| expected.len() > INFLATED_BYTES_MAX);
            assert!(is_right || is_cut || bytes.is_empty(), "{}", problem.json());
        }
    }
}

/// Polls a future that only yields, until it is complete.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}
