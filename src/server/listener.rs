//! The addresses on which the server listens, and the connections that it accepts: over TCP and
//! over Unix sockets.
//!
//! A client that does not read is disconnected after `--write-timeout`. [`Stream::bound`] sets this
//! for TCP, `local_stream.rs` for Unix sockets, `unread_answers.rs` for HTTP/2, and
//! `http::websocket::session` for WebSockets.

use super::local_stream::LocalStream;
use crate::fanout::socket::Socket;
use rustix::net::{RecvFlags, recv};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

/// The length of the queue of connections that wait to be accepted. After a boundary all clients
/// reconnect at once, and a client that finds the queue full loses a second. The kernel limits the
/// length to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;

/// An address to listen on, as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port`. An empty host means all addresses of this machine.
    Tcp { host: String, port: u16 },
    /// `unix:/path`
    Unix(PathBuf),
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket, with the address to which it is bound.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket, with its file; dropping the listener removes the file.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket. Dropping it removes the file, if this process has made it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    is_own: bool,
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// A connection over TCP.
    Tcp(TcpStream),
    /// A connection over a Unix socket.
    Unix(LocalStream),
    /// A connection over TCP with TLS, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it as 127.0.0.1:8080, localhost:8080, :8080 or unix:/path".to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err(wrong()),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_v6 = bare.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        let is_name =
            host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        match is_v6 || is_name {
            true => Ok(Self::Tcp { host: bare.unwrap_or(host).to_owned(), port }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// Whether only this machine can reach the address, as far as its text says.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                let address = host.parse::<IpAddr>();
                host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// Binds one socket for each address: a host name may have several addresses.
    ///
    /// # Errors
    /// Fails when no socket can be bound: the name is unknown, the address is in use, or the
    /// process has no right to it.
    pub fn bind(&self) -> io::Result<Vec<Listener>> {
        match self {
            Self::Unix(path) => Ok(vec![bind_unix(path)?]),
            Self::Tcp { host, port } if host.is_empty() => {
                let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
                // A machine without IPv6 has only IPv4.
                let bound = bind_tcp(v6);
                let v4 = || bind_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)));
                Ok(vec![bound.or_else(|_| v4())?])
            }
            Self::Tcp { host, port } => {
                let addresses = (host.as_str(), *port).to_socket_addrs()?;
                let mut bound: Vec<Listener> = Vec::new();
                let mut failed = None;
                for address in addresses {
                    match bind_tcp(address) {
                        Ok(listener) => bound.push(listener),
                        Err(error) => failed = Some(error),
                    }
                }
                match (bound.is_empty(), failed) {
                    // One bound address is enough: `localhost` often has an IPv6 address also on a
                    // machine without IPv6.
                    (true, Some(error)) => Err(error),
                    (true, None) => Err(io::ErrorKind::NotFound.into()),
                    (false, _) => Ok(bound),
                }
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let connection = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    connection.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // `[::]` accepts IPv4 as well, whatever the default of the machine is.
        let v6_alone = address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        socket2::SockRef::from(&connection).set_only_v6(v6_alone)?;
    }
    connection.bind(address)?;
    let listener = connection.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok(Listener::Tcp(listener, address))
}

/// Binds a Unix socket. A file that a killed process left behind is replaced; a file that still has
/// a listener is not.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(Listener::Unix(
        UnixListener::bind(path)?,
        SocketFile { path: path.to_owned(), is_own: true },
    ))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_own {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

impl Listener {
    /// Takes a TCP socket that another program has bound.
    ///
    /// # Errors
    /// Fails when the runtime cannot watch the socket.
    pub fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?, address))
    }

    /// Takes a Unix socket that another program has bound.
    ///
    /// # Errors
    /// Fails when the runtime cannot watch the socket.
    pub fn from_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        let file = SocketFile { path, is_own: false };
        Ok(Self::Unix(UnixListener::from_std(listener)?, file))
    }

    /// Accepts the next connection, and returns it with the address of its peer. The peer of a Unix
    /// socket has the IPv4 loopback address.
    ///
    /// # Errors
    /// Fails when the process has no file descriptor left, or the peer has already disconnected.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, IpAddr)>> {
        match self {
            Self::Tcp(listener, _) => listener.poll_accept(context).map(|accepted| {
                accepted.map(|(stream, address)| (Stream::Tcp(stream), address.ip()))
            }),
            Self::Unix(listener, _) => listener.poll_accept(context).map(|accepted| {
                accepted.map(|(stream, _)| {
                    (Stream::Unix(LocalStream::new(stream)), Ipv4Addr::LOCALHOST.into())
                })
            }),
        }
    }

    /// Whether only this machine can reach the listener.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(_, address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(..) => true,
        }
    }

    /// Whether a web browser on this machine can reach the listener, and other machines cannot.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Tcp(..)) && self.is_local()
    }
}

impl Listener {
    /// The address of the listener as a URL: `http://127.0.0.1:8080`, `unix:/run/headwater.sock`.
    pub fn url(&self, is_tls: bool) -> String {
        match self {
            Self::Tcp(_, address) if is_tls => format!("https://{address}"),
            other => other.to_string(),
        }
    }
}

/// The address of the listener as a URL without TLS.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "http://{address}"),
            Self::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

impl Stream {
    /// Sets how a slow peer is treated: the connection ends when the peer takes no bytes for
    /// `unread_time`, and over TCP the kernel accepts about `unsent` bytes that are not sent yet.
    /// Errors are ignored.
    pub fn bound(&mut self, unsent: u32, unread_time: Duration) {
        if let Self::Unix(stream) = self {
            return stream.bound(unread_time);
        }
        let connection = self.connection();
        connection.set_tcp_nodelay(true).ok();
        connection.set_tcp_user_timeout(Some(unread_time)).ok();
        connection.set_tcp_notsent_lowat(unsent).ok();
    }

    /// Takes the connection out of the runtime.
    ///
    /// # Errors
    /// Fails when the runtime cannot stop watching the connection.
    pub fn into_socket(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Socket::Tcp),
            Self::Unix(stream) => stream.into_std().map(Socket::Unix),
            // The bytes on the socket are encrypted, and its keys are in this process's memory.
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether the bytes on the socket are the bytes of HTTP, so that a pump can send streams.
    pub fn is_plain(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    /// Gives a connection back to the runtime. It keeps the limits that the kernel knows; a Unix
    /// socket needs its `unread_time` again.
    ///
    /// # Errors
    /// Fails when the runtime cannot watch the connection.
    pub fn from_socket(socket: Socket, unread_time: Duration) -> io::Result<Self> {
        match socket {
            Socket::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            Socket::Unix(stream) => {
                let mut stream = LocalStream::new(UnixStream::from_std(stream)?);
                stream.bound(unread_time);
                Ok(Self::Unix(stream))
            }
        }
    }

    /// Makes the connection end with a reset instead of a normal close.
    pub fn reset_on_close(&self) {
        self.connection().set_linger(Some(Duration::ZERO)).ok();
    }

    /// Copies the next bytes into `buffer` without consuming them. Returns 0 when the peer has
    /// closed its side. With TLS the bytes are encrypted.
    ///
    /// # Errors
    /// Fails when the connection has failed.
    pub fn poll_peek(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let peeked = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_read_ready(context))?;
                    stream.try_io(Interest::READABLE, || peek(stream, buffer))
                }
                Self::Unix(stream) => {
                    let stream = stream.socket();
                    ready!(stream.poll_read_ready(context))?;
                    stream.try_io(Interest::READABLE, || peek(stream, buffer))
                }
                Self::Tls(stream) => {
                    let (stream, _) = stream.get_ref();
                    ready!(stream.poll_read_ready(context))?;
                    stream.try_io(Interest::READABLE, || peek(stream, buffer))
                }
            };
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return Poll::Ready(peeked),
            }
        }
    }

    /// Writes as many bytes as the kernel accepts without waiting, and returns their number.
    ///
    /// # Errors
    /// Fails when the kernel accepts no bytes.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.socket().try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn connection(&self) -> socket2::SockRef<'_> {
        match self {
            Self::Tcp(stream) => stream.into(),
            Self::Unix(stream) => stream.socket().into(),
            Self::Tls(stream) => stream.get_ref().0.into(),
        }
    }
}

fn peek(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (count, _) = recv(stream, buffer, RecvFlags::PEEK)?;
    Ok(count)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_one() {
        let check = |text: &str, host: &str, port| {
            let expected = ListenAddress::Tcp { host: host.to_owned(), port };
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        };
        check("127.0.0.1:8080", "127.0.0.1", 8080);
        check("localhost:0", "localhost", 0);
        check(":8080", "", 8080);
        check("[::1]:8080", "::1", 8080);
        let unix = "unix:/run/headwater.sock".parse();
        assert_eq!(unix, Ok(ListenAddress::Unix("/run/headwater.sock".into())));
        for wrong in ["", "8080", "a:b", "::1:80", "a/b:80", "http://a:80", "unix:", "a:70000"] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
    }
}
