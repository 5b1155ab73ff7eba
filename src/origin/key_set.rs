//! Reads a JWKS (RFC 7517), which has the keys of tokens, from a file or over HTTP.

use crate::access::Fetch;
use crate::client::http::{self, Address, Connection};
use bytes::Bytes;
use hyper::{Method, Uri};

/// Returns a function that reads the text of the JWKS at a URL or in a file.
pub fn fetch_from(source: String) -> Fetch {
    Box::new(move || {
        let source = source.clone();
        Box::pin(async move {
            if source.starts_with("http://") || source.starts_with("https://") {
                return fetch_url(&source).await;
            }
            tokio::fs::read_to_string(&source).await.map_err(|error| format!("{source}: {error}"))
        })
    })
}

async fn fetch_url(url: &str) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let base = url.strip_suffix(path).unwrap_or(url);
    let address: Address = base.parse().map_err(|error| format!("{url}: {error}"))?;
    let failed = |error: http::HttpError| format!("{url}: {error}");
    let mut connection = Connection::open(&address).await.map_err(failed)?;
    let request = connection.request(Method::GET, path);
    let answer = connection.send(request, Bytes::new()).await.map_err(failed)?;
    let status = answer.status();
    let text = http::text(answer).await.map_err(failed)?;
    if status.is_success() { Ok(text) } else { Err(format!("{url} answers {status}")) }
}
