//! Requests to the admin listener of an origin.

use super::readable;
use crate::client::http::{self, Address, Connection};
use bytes::Bytes;
use hyper::{Method, StatusCode};

/// Sends a request without a body, and returns the body of the answer.
///
/// # Errors
/// Fails when the origin cannot be reached, or refuses the request.
pub async fn request(address: &Address, method: Method, path: &str) -> Result<String, String> {
    send(address, method, path, Bytes::new()).await
}

/// Sends a request, and returns the body of the answer.
///
/// # Errors
/// Fails when the origin cannot be reached, or refuses the request.
pub async fn send(
    address: &Address,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<String, String> {
    let failed = |error: http::HttpError| format!("{address}: {error}");
    let mut connection = Connection::open(address).await.map_err(failed)?;
    let request = connection.request(method, path);
    let answer = connection.send(request, body).await.map_err(failed)?;
    let status = answer.status();
    let text = http::text(answer).await.map_err(failed)?;
    match status {
        StatusCode::OK => Ok(text),
        _ => Err(format!("{address} answers {status}: {}", readable(&text))),
    }
}
