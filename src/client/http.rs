//! A small HTTP client for the commands and the tests, on hyper. Like a browser, it uses HTTP/2
//! over TLS where the server offers it, and HTTP/1.1 otherwise.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Response, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest time for opening a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a body that [`text`] reads.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The address of a server, `http://host:port` or `https://host:port`, and the token for its
/// requests.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    is_tls: bool,
    host: String,
    port: u16,
    token: Option<String>,
}

/// Why a request could not be sent or got no usable response.
#[derive(Clone, Debug)]
pub struct HttpError(pub String);

/// A connection to a server. It is closed when it is dropped.
pub struct Connection {
    sender: Sender,
    address: Address,
    driver: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("write it as http://host:port or https://host".to_owned()),
        };
        if uri.path() != "/" || uri.query().is_some() {
            return Err("write it without a path, as http://host:port or https://host".to_owned());
        }
        let host = uri.host().ok_or("the host is missing")?.to_owned();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match authority.strip_prefix(&host) {
            Some("") => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            // An invalid port is refused, not replaced by the default port. A user name and a
            // password are not supported.
            _ => uri
                .port_u16()
                .filter(|_| !authority.contains('@'))
                .ok_or("write the port as 1 to 65535, and no user")?,
        };
        Ok(Self { is_tls, host, port, token: None })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Shows the address without its token.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    /// The same address, with a bearer token that every request carries.
    #[must_use]
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// The same address, with the token of `other` if the host is the same and the connection is
    /// not less secure: a token for an `https` address is never sent to an `http` address.
    #[must_use]
    pub fn with_token_of(self, other: &Self) -> Self {
        let is_safe = self.host == other.host && (self.is_tls || !other.is_tls);
        let token = other.token.clone().filter(|_| is_safe);
        self.with_token(token)
    }

    /// Whether the host is this machine: a loopback address or `localhost`, which need no DNS
    /// server.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_address = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_address || host == "localhost"
    }

    /// Whether connections to the address use TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The error of a TLS connection, with advice where the cause is known.
    fn tls_failed(error: impl fmt::Display) -> HttpError {
        let why = error.to_string();
        let hint = match () {
            () if why.contains("CaUsedAsEndEntity") => {
                "; the server uses the certificate of an authority: make its certificate with \
                 basicConstraints=CA:FALSE"
            }
            () if why.contains("certificate") => {
                "; to trust it, name a file with its authority in SSL_CERT_FILE"
            }
            () if why.contains("InvalidContentType") => "; this port speaks no TLS",
            () => "",
        };
        HttpError(format!("{why}{hint}"))
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Connection {
    /// Opens a connection. Over TLS it uses HTTP/2 if the server supports it.
    ///
    /// # Errors
    /// Fails when the server does not accept the connection in time, or its certificate is not
    /// trusted.
    pub async fn open(address: &Address) -> Result<Self, HttpError> {
        Self::open_with(address, &[b"h2", b"http/1.1"]).await
    }

    /// Opens a connection with HTTP/1.1, which is the only version that a WebSocket can start from.
    ///
    /// # Errors
    /// Fails in the same cases as [`Connection::open`].
    pub async fn open_http1(address: &Address) -> Result<Self, HttpError> {
        Self::open_with(address, &[b"http/1.1"]).await
    }

    async fn open_with(address: &Address, protocols: &[&[u8]]) -> Result<Self, HttpError> {
        let connected = Self::connect(address, protocols);
        let opened = tokio::time::timeout(CONNECT_TIME_MAX, connected).await;
        let why = |why: &dyn fmt::Display| HttpError(format!("cannot reach {address}: {why}"));
        opened.map_err(|error| why(&error))?.map_err(|error| why(&error))
    }

    async fn connect(address: &Address, protocols: &[&[u8]]) -> Result<Self, HttpError> {
        let stream = TcpStream::connect(address.authority()).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if !address.is_tls {
            return Self::http1(stream, address).await;
        }
        let host = address.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(failed)?;
        let mut config = ClientConfig::clone(&*tls()?);
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = stream.map_err(Address::tls_failed)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Self::http2(stream, address).await,
            _ => Self::http1(stream, address).await,
        }
    }

    async fn http1<S>(stream: S, address: &Address) -> Result<Self, HttpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(failed)?;
        // The task ends when the sender or the `Connection` is dropped. The sender reports errors.
        let connection = connection.with_upgrades();
        let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
        let (sender, driver) = (Sender::Http1(sender), driver.abort_handle());
        Ok(Self { sender, address: address.clone(), driver })
    }

    async fn http2<S>(stream: S, address: &Address) -> Result<Self, HttpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(failed)?;
        let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
        let (sender, driver) = (Sender::Http2(sender), driver.abort_handle());
        Ok(Self { sender, address: address.clone(), driver })
    }

    /// The address of the server.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the connection can carry another request.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// The HTTP version of the connection.
    pub fn version(&self) -> Version {
        match self.sender {
            Sender::Http1(_) => Version::HTTP_11,
            Sender::Http2(_) => Version::HTTP_2,
        }
    }

    /// Begins a request to this server, which carries the token of its address.
    pub fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let mut request = Request::builder().method(method);
        if let Some(token) = &self.address.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        match self.sender {
            Sender::Http1(_) => request.uri(path).header(HOST, self.address.authority()),
            Sender::Http2(_) => request.uri(format!("{}{path}", self.address)),
        }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// Fails when the request cannot be written, or the connection breaks before the head arrives.
    pub async fn send(
        &mut self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, HttpError> {
        let request = request.body(Full::new(body)).map_err(failed)?;
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(failed)?;
                sender.send_request(request).await.map_err(failed)
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(failed)?;
                sender.send_request(request).await.map_err(failed)
            }
        }
    }
}

/// The TLS settings. They trust the certificate authorities of this machine, which are read once;
/// `SSL_CERT_FILE` names another list.
fn tls() -> Result<Arc<ClientConfig>, HttpError> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, HttpError>> = OnceLock::new();
    let config = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    };
    CONFIG.get_or_init(config).clone()
}

fn failed(error: impl fmt::Display) -> HttpError {
    HttpError(error.to_string())
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Reads the whole body as text.
///
/// # Errors
/// Fails when the body does not arrive whole, is larger than 64 MiB, or is not UTF-8.
pub async fn text(response: Response<Incoming>) -> Result<String, HttpError> {
    String::from_utf8(body(response).await?.into()).map_err(failed)
}

/// Reads the whole body.
///
/// # Errors
/// Fails when the body does not arrive whole, or is larger than 64 MiB.
pub async fn body(response: Response<Incoming>) -> Result<Bytes, HttpError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(failed)?.to_bytes())
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HttpError {}
