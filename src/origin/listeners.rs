//! The bound sockets of an origin.

use super::Error;
use crate::server::listener::{ListenAddress, Listener};
use listenfd::ListenFd;
use std::io;

/// The name of an inherited socket that is for operators (`FileDescriptorName=` in systemd).
const ADMIN: &str = "admin";

/// The bound sockets of an origin: for channels, and for operators.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Sockets for clients, publishers and caches.
    pub public: Vec<Listener>,
    /// Sockets for `/metrics`, `/healthz` and `/readyz`.
    pub admin: Vec<Listener>,
    /// Whether another program has bound the public sockets and keeps them open. Clients that
    /// connect while no origin runs then wait for the next one.
    pub are_inherited: bool,
}

impl Listeners {
    /// Binds these addresses. Must be called in a tokio runtime. With port 0 the system chooses a
    /// free port.
    ///
    /// # Errors
    /// Fails when an address cannot be bound; the text names the address and the reason.
    pub fn bind(public: &[ListenAddress], admin: &[ListenAddress]) -> Result<Self, Error> {
        Self::default().or_bind(public, admin)
    }

    /// Takes the sockets that the parent process has bound and named in the variables `LISTEN_FDS`,
    /// `LISTEN_PID` and `LISTEN_FDNAMES` (the protocol of systemd's socket activation, see
    /// sd_listen_fds(3)), and binds these addresses where the parent has bound none: sockets with
    /// the name `admin` take the place of `admin`, all others that of `public`. Must be called in a
    /// tokio runtime.
    ///
    /// # Errors
    /// Fails when a socket cannot be taken, or an address cannot be bound.
    pub fn inherit_or_bind(
        public: &[ListenAddress],
        admin: &[ListenAddress],
    ) -> Result<Self, Error> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let has_sockets = std::env::var_os("LISTEN_FDS").is_some();
        let (mut inherited, mut sockets) = (Self::default(), ListenFd::from_env());
        if has_sockets && sockets.len() == 0 {
            tracing::warn!(
                "the sockets of LISTEN_FDS are for another process (LISTEN_PID), and are not used"
            );
        }
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let socket = inherit(&mut sockets, index).map_err(|error| {
                Error(format!("socket {index} of LISTEN_FDS ({name:?}) cannot be used: {error}"))
            })?;
            match name {
                ADMIN => inherited.admin.push(socket),
                _ => inherited.public.push(socket),
            }
        }
        inherited.are_inherited = !inherited.public.is_empty();
        inherited.or_bind(public, admin)
    }

    fn or_bind(mut self, public: &[ListenAddress], admin: &[ListenAddress]) -> Result<Self, Error> {
        if self.public.is_empty() {
            self.public = bind_all(public, "--listen")?;
        }
        if self.admin.is_empty() {
            self.admin = bind_all(admin, "--admin-listen")?;
        }
        Ok(self)
    }

    /// The base URLs of the public sockets; with TLS, where the TCP sockets have it.
    pub(super) fn public_urls(&self, is_tls: bool) -> Vec<String> {
        self.public.iter().map(|listener| listener.url(is_tls)).collect()
    }

    /// The URL of the console for a browser: that of the first TCP socket for operators, if there
    /// is one.
    pub fn console_url(&self, is_tls: bool) -> Option<String> {
        let tcp = self.admin.iter().find(|listener| matches!(listener, Listener::Tcp(..)))?;
        Some(format!("{}/console", tcp.url(is_tls)))
    }

    /// The base URLs of the public sockets, such as `http://127.0.0.1:8080`.
    pub fn urls(&self) -> Vec<String> {
        self.public.iter().map(Listener::to_string).collect()
    }
}

/// Takes one inherited socket, which is a TCP or a Unix socket.
fn inherit(sockets: &mut ListenFd, index: usize) -> io::Result<Listener> {
    if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
        return Listener::from_tcp(listener);
    }
    match sockets.take_unix_listener(index)? {
        Some(listener) => Listener::from_unix(listener),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn bind_all(addresses: &[ListenAddress], flag: &str) -> Result<Vec<Listener>, Error> {
    let mut bound = Vec::new();
    for address in addresses {
        bound.extend(address.bind().map_err(|error| {
            Error(format!("cannot listen on {address} ({flag}): {error}; choose another address"))
        })?);
    }
    Ok(bound)
}
