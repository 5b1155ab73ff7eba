//! Sends the streams of plain HTTP/1.1 connections without hyper.
//!
//! hyper reads the request, and a handler decides the response. If that is a stream,
//! `server::http1` takes the connection out of hyper. This module writes the head, and sends the
//! events from the start of the stream up to the newest one. When the stream has caught up, the
//! connection goes to a pump. After the end of the response the connection goes back to hyper for
//! the next request. hyper would keep two buffers of 8 KiB for each stream, and wake a task for
//! each event of each subscriber.

use crate::core::tail_buffer::CHUNK_BYTES;
use crate::fanout::group::{Leaver, Outcome};
use crate::hub::event_stream::CountedStream;
use crate::server::listener::Stream;
use crate::server::unsent::Unsent;
use bytes::{Bytes, BytesMut};
use hyper::header::{CONNECTION, HeaderMap};
use hyper::http::response::Parts;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::AsyncWrite;

/// A stream that was taken out of hyper.
pub struct Taken {
    /// The head of the response.
    pub head: Parts,
    /// The stream.
    pub body: Box<CountedStream>,
    /// Whether the client wants the connection to close after the response.
    pub closes: bool,
}

impl Taken {
    /// Returns the head of the response as bytes, the stream, and whether the connection closes
    /// after it. It drops everything else, which the future of a connection would keep.
    pub fn into_parts(self, now: u64) -> (Bytes, Box<CountedStream>, bool) {
        let closes = self.closes || wants_close(&self.head.headers);
        (response_head(&self.head, closes, now), self.body, closes)
    }
}

/// How far a task has sent a stream.
enum Progress {
    /// The stream has caught up, and everything is sent.
    CaughtUp,
    /// The response is complete.
    Complete,
    /// The client has disconnected, or the stream was aborted.
    Gone,
}

/// A connection, with its stream if that has caught up, or without if it has ended.
pub type Sent = (Stream, Option<Box<CountedStream>>);

/// Sends `first`, and then what the client has not received yet of a stream. Returns `None` if the
/// connection has ended.
pub async fn send(mut stream: Stream, first: Bytes, mut body: Box<CountedStream>) -> Option<Sent> {
    let mut unsent = Unsent::default();
    unsent.push(first);
    match send_behind(&mut stream, &mut body, &mut unsent).await {
        Progress::Gone => None,
        Progress::Complete => Some((stream, None)),
        Progress::CaughtUp => Some((stream, Some(body))),
    }
}

/// Continues with a connection after a pump. The client may read nothing for `unread_time`. Returns
/// `None` if the connection has ended.
pub async fn resume(outcome: Outcome, unread_time: Duration) -> Option<Sent> {
    match outcome {
        Outcome::Gone => None,
        Outcome::Complete(socket) => Some((Stream::from_socket(socket, unread_time).ok()?, None)),
        Outcome::Leave(leaver) => go_on(*leaver, unread_time).await,
    }
}

/// Continues with a subscriber that has left a pump.
async fn go_on(leaver: Leaver, unread_time: Duration) -> Option<Sent> {
    let Leaver { socket, rest, stream: events, account } = leaver;
    let mut stream = Stream::from_socket(socket, unread_time).ok()?;
    // Nothing more is read for a slow client before it has read the rest.
    let mut unsent = Unsent::default();
    unsent.push(rest);
    send_rest(&mut stream, &mut unsent).await?;
    match events {
        None => Some((stream, None)),
        Some(events) => {
            let body = Box::new(CountedStream { stream: events, account });
            send(stream, Bytes::new(), body).await
        }
    }
}

/// Sends what the client has not received yet, until the stream has caught up or ends.
async fn send_behind(
    stream: &mut Stream,
    body: &mut CountedStream,
    unsent: &mut Unsent,
) -> Progress {
    let (mut is_complete, mut is_blocked) = (false, false);
    poll_fn(|context| {
        loop {
            let mut is_live = false;
            // Nothing is read for a client that has not read what it was sent.
            while !is_blocked && !is_complete && !is_live && unsent.len() < CHUNK_BYTES {
                match body.poll_chunk(context) {
                    Poll::Ready(Some(Ok(chunk))) => unsent.push_chunk(chunk),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Progress::Gone),
                    Poll::Ready(None) => {
                        unsent.push_last_chunk();
                        is_complete = true;
                    }
                    Poll::Pending if body.stream.is_live() => is_live = true,
                    Poll::Pending => break,
                }
            }
            let is_waiting = unsent.is_empty();
            match (is_waiting, is_complete, is_live) {
                (true, true, _) => return Poll::Ready(Progress::Complete),
                (true, _, true) => return Poll::Ready(Progress::CaughtUp),
                (true, ..) => return is_gone(stream, context),
                (false, ..) => {}
            }
            match Pin::new(&mut *stream).poll_write_vectored(context, &unsent.slices()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    unsent.advance(count);
                    is_blocked = false;
                }
                Poll::Ready(_) => return Poll::Ready(Progress::Gone),
                Poll::Pending => {
                    is_blocked = true;
                    return is_gone(stream, context);
                }
            }
        }
    })
    .await
}

/// Sends the end of a response.
async fn send_rest(stream: &mut Stream, unsent: &mut Unsent) -> Option<()> {
    poll_fn(|context| {
        while !unsent.is_empty() {
            match Pin::new(&mut *stream).poll_write_vectored(context, &unsent.slices()) {
                Poll::Ready(Ok(count)) if count > 0 => unsent.advance(count),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return is_gone(stream, context).map(|_| None),
            }
        }
        Poll::Ready(Some(()))
    })
    .await
}

/// Checks whether the client has disconnected. A client that closes its sending side during a
/// stream counts as disconnected, because otherwise the stream would keep its permit until a write
/// fails.
fn is_gone(stream: &Stream, context: &mut Context<'_>) -> Poll<Progress> {
    match stream.poll_peek(context, &mut [0]) {
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Progress::Gone),
        // The beginning of the next request has arrived.
        Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
    }
}

/// Whether the headers of a message ask for the connection to close after it (RFC 9112, section
/// 9.6).
pub fn wants_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("close"))
}

/// Returns the head of a chunked response.
fn response_head(head: &Parts, closes: bool, now: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(1_024);
    let mut line = |parts: [&[u8]; 4]| parts.into_iter().for_each(|p| out.extend_from_slice(p));
    let reason = head.status.canonical_reason().unwrap_or_default();
    line([b"HTTP/1.1 ", head.status.as_str().as_bytes(), b" ", reason.as_bytes()]);
    for (name, value) in &head.headers {
        line([b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()]);
    }
    if closes && !wants_close(&head.headers) {
        line([b"\r\n", b"connection: close", b"", b""]);
    }
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(now));
    line([b"\r\ntransfer-encoding: chunked\r\ndate: ", date.as_bytes(), b"\r\n", b"\r\n"]);
    out.freeze()
}
