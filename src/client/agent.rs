//! A user agent for one server: it opens its connection when a request needs one, and follows
//! redirects, as browsers do for an `EventSource`.

use super::http::{Address, Connection, HttpError};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderName, LOCATION};
use hyper::{Method, Response, StatusCode, Uri};

/// Most redirects that one request follows; browsers follow 20.
const REDIRECTS_MAX: usize = 5;

/// A user agent for one server, with the connection that is open.
pub struct Agent {
    address: Address,
    connection: Option<Connection>,
}

impl Agent {
    /// Creates an agent, which is not yet connected.
    pub fn new(address: Address) -> Self {
        Self { address, connection: None }
    }

    /// Closes the connection, and with it the body of a response that is still arriving.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Sends a request, follows redirects, and waits for the head of the response. The body of the
    /// response arrives as long as the agent sends no other request.
    ///
    /// # Errors
    /// Fails when there is no connection, the connection breaks, or a redirect cannot be followed.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, HttpError> {
        let (mut address, mut path) = (self.address.clone(), path.to_owned());
        for _ in 0..=REDIRECTS_MAX {
            let is_usable = |one: &Connection| one.is_open() && *one.address() == address;
            let mut connection = match self.connection.take().filter(is_usable) {
                Some(connection) => connection,
                None => Connection::open(&address).await?,
            };
            let mut request = connection.request(method.clone(), &path);
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            let answer = connection.send(request, body.clone()).await?;
            let Some(location) = location(&answer) else {
                self.connection = Some(connection);
                return Ok(answer);
            };
            // The body of a redirect is not read, so its connection is closed.
            (address, path) = redirected(&address, &location)?;
        }
        Err(HttpError(format!("{} redirects more than {REDIRECTS_MAX} times", self.address)))
    }
}

/// The `Location` of a redirect. A `303` is not followed, because it refers to another resource and
/// is not the new address of the request.
fn location(answer: &Response<Incoming>) -> Option<String> {
    let is_redirect = matches!(
        answer.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = answer.headers().get(LOCATION).filter(|_| is_redirect)?;
    location.to_str().ok().map(str::to_owned)
}

/// The address and path of a `Location`, which is a URL or a path that begins with `/`. The token
/// is sent only to the host for which it was given.
fn redirected(address: &Address, location: &str) -> Result<(Address, String), HttpError> {
    let bad =
        || HttpError(format!("{address} redirects to {location:?}, which is no HTTP address"));
    let target: Uri = location.parse().map_err(|_| bad())?;
    if let (Some(scheme), Some(authority)) = (target.scheme_str(), target.authority()) {
        let to: Address = format!("{scheme}://{authority}").parse().map_err(|_| bad())?;
        let to_path = target.path_and_query().map_or("/", |path| path.as_str());
        return Ok((to.with_token_of(address), to_path.to_owned()));
    }
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok((address.clone(), location.to_owned()));
    }
    Err(bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_its_token_on_its_host() {
        let from: Address = "http://a.example:8080".parse().unwrap();
        let from = from.with_token(Some("t".to_owned()));
        let to = |location: &str| redirected(&from, location);
        assert_eq!(to("/channels/y").unwrap(), (from.clone(), "/channels/y".to_owned()));
        let (address, path) = to("https://a.example/channels/x?after=0-0").unwrap();
        assert_eq!(
            (address.to_string(), &*path),
            ("https://a.example:443".into(), "/channels/x?after=0-0")
        );
        let https: Address = "https://a.example".parse().unwrap();
        assert_eq!(address, https.clone().with_token(Some("t".to_owned())));
        let (address, _) = to("https://b.example/").unwrap();
        assert_eq!(address, "https://b.example".parse().unwrap());
        for wrong in ["ftp://a/", "//b.example/", "x y", ""] {
            assert!(to(wrong).is_err(), "{wrong:?}");
        }
        // A token never goes from an encrypted connection to an unencrypted one.
        let from = https.with_token(Some("t".to_owned()));
        let (address, _) = redirected(&from, "http://a.example/").unwrap();
        assert_eq!(address, "http://a.example".parse().unwrap());
    }
}
