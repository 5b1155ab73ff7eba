//! The bound sockets of an origin.

use super::Error;
use crate::server::listener::{ListenAddress, Listener};

/// Bound sockets: where channels are served, and where operators read metrics and health.
#[derive(Debug)]
pub struct Listeners {
    /// Sockets of clients, publishers and caches.
    pub public: Vec<Listener>,
    /// Sockets of `/metrics`, `/healthz` and `/readyz`.
    pub admin: Vec<Listener>,
}

impl Listeners {
    /// Binds these addresses, in a runtime of tokio. With port 0 the system chooses a free port.
    ///
    /// # Errors
    /// Names the address that cannot be bound, and the reason.
    pub fn bind(public: &[ListenAddress], admin: &[ListenAddress]) -> Result<Self, Error> {
        Ok(Self {
            public: bind_all(public, "--listen")?,
            admin: bind_all(admin, "--admin-listen")?,
        })
    }

    /// The base URLs of the public sockets, as `http://127.0.0.1:8080`.
    pub fn urls(&self) -> Vec<String> {
        self.public.iter().map(Listener::to_string).collect()
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
