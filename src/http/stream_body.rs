//! The bodies of HTTP responses, above all the body of a stream.
//!
//! Over HTTP/2, HTTP/1.0 and TLS, hyper polls the body of a stream when it can send, and the body
//! then polls the stream. An error makes hyper abort the transfer. Over plain HTTP/1.1 the server
//! takes the stream out of the body and sends it without hyper (see `server::takeover`).

use crate::hub::event_stream::{CountedStream, StreamAborted};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of any response.
pub enum ResponseBody {
    /// A complete body.
    Full(Bytes),
    /// No body, in the response to a HEAD request for a stream.
    Head,
    /// The body of a stream.
    Stream(Box<CountedStream>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamAborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamAborted>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Head => Poll::Ready(None),
            Self::Stream(stream) => {
                stream.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Head | Self::Stream(_) => SizeHint::default(),
        }
    }
}
