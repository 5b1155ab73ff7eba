//! The bound sockets of an origin.

use super::Error;
use crate::server::listener::{ListenAddress, Listener};

/// The bound sockets of an origin: for channels, and for operators.
#[derive(Debug)]
pub struct Listeners {
    /// Sockets for clients, publishers and caches.
    pub public: Vec<Listener>,
    /// Sockets for `/metrics`, `/healthz` and `/readyz`.
    pub admin: Vec<Listener>,
}

impl Listeners {
    /// Binds these addresses. Must be called in a tokio runtime. With port 0 the system chooses a
    /// free port.
    ///
    /// # Errors
    /// Fails when an address cannot be bound; the text names the address and the reason.
    pub fn bind(public: &[ListenAddress], admin: &[ListenAddress]) -> Result<Self, Error> {
        Ok(Self {
            public: bind_all(public, "--listen")?,
            admin: bind_all(admin, "--admin-listen")?,
        })
    }

    /// The base URLs of the public sockets, such as `http://127.0.0.1:8080`.
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
