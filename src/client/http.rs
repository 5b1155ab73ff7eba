//! As much of an HTTP/1.1 client as the commands and the tests need, on hyper.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Longest wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of an answer that is read whole.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a server is: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    authority: String,
}

/// A request could not be made or answered. The text says why.
#[derive(Clone, Debug)]
pub struct HttpError(pub String);

/// One connection, closed when dropped.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    driver: AbortHandle,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" {
            return Err("write it as http://host:port (put TLS in front)".to_owned());
        }
        let host = uri.host().ok_or("the host is missing")?;
        Ok(Self { authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there, or does not answer in time.
    pub async fn open(address: &Address) -> Result<Self, HttpError> {
        let authority = address.authority.clone();
        let why = |error: &dyn fmt::Display| HttpError(format!("cannot reach {address}: {error}"));
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(&authority)).await;
        let stream = stream.map_err(|error| why(&error))?.map_err(|error| why(&error))?;
        stream.set_nodelay(true).map_err(|error| why(&error))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| why(&error))?;
        // It ends with its sender, or here; what goes wrong on it the sender reports.
        let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self { sender, authority, driver: driver.abort_handle() })
    }

    /// Whether another request may go over it.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// A request to this server.
    pub fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path).header(HOST, &self.authority)
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// When the connection breaks first, or the request cannot be written.
    pub async fn send(
        &mut self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, HttpError> {
        let why = |error: &dyn fmt::Display| HttpError(error.to_string());
        let request = request.body(Full::new(body)).map_err(|error| why(&error))?;
        self.sender.ready().await.map_err(|error| why(&error))?;
        self.sender.send_request(request).await.map_err(|error| why(&error))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The whole body as text.
///
/// # Errors
/// When it does not arrive whole, is too large, or is not UTF-8.
pub async fn text(response: Response<Incoming>) -> Result<String, HttpError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| HttpError(error.to_string()))?.to_bytes();
    String::from_utf8(body.into()).map_err(|error| HttpError(error.to_string()))
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HttpError {}
