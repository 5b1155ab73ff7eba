//! Limits how many connections each client may have at once. A direct connection counts as one, and
//! so does each request on a direct HTTP/2 connection. The connection of a trusted proxy does not
//! count. Each request through the proxy counts for the client that the proxy names, unless a cache
//! may share the response. `server` requests the permits of connections, and `http::router`
//! (`admit`) those of requests.

use crate::limits::client_address::{Client, Network, behind_proxies, is_one_of};
use crate::sync::replaceable::Replaceable;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

/// The limit for each client.
#[derive(Clone, Debug)]
pub struct ClientsConfig {
    /// Largest number of connections of one client; 0: no limit.
    pub most: usize,
    /// The trusted proxies, which connect on behalf of clients.
    pub proxies: Vec<Network>,
    /// The header in which the proxies name the client, in lower case.
    pub header: String,
}

impl Default for ClientsConfig {
    fn default() -> Self {
        Self { most: 0, proxies: Vec::new(), header: "x-forwarded-for".to_owned() }
    }
}

/// The clients that have permits.
#[derive(Debug, Default)]
pub struct Clients {
    config: Replaceable<ClientsConfig>,
    held: Mutex<HashMap<Client, usize>>,
}

/// The result of a request for a permit.
#[derive(Debug)]
pub enum Acquired {
    /// The client is within its limit. Without a limit there is no permit.
    Granted(Option<Permit>),
    /// The client is over its limit and receives a refusal. The permit counts this connection too.
    OverLimit(Permit),
    /// The client has twice as many connections as its limit, so this one gets no permit.
    Rejected,
}

/// One connection of a client. Dropping the permit releases it.
#[derive(Debug)]
pub struct Permit {
    clients: Arc<Clients>,
    client: Client,
}

impl Clients {
    /// Returns a set in which no client has a permit.
    pub fn new(config: ClientsConfig) -> Self {
        Self { config: Replaceable::new(config), held: Mutex::default() }
    }

    /// Replaces the limit and the proxies. A client that has more connections than its new limit
    /// keeps them.
    pub fn reload(&self, config: ClientsConfig) {
        self.config.replace(config);
    }

    /// Whether this peer is a trusted proxy.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        is_one_of(&self.config.get().proxies, peer)
    }

    /// Returns the header in which proxies name the client.
    pub fn header(&self) -> String {
        self.config.get().header.clone()
    }

    /// Returns the client that sent a request: `peer`, or the client that trusted proxies name in
    /// `forwarded`.
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
    ) -> Client {
        Client::at(behind_proxies(peer, &self.config.get().proxies, forwarded))
    }

    /// Requests a permit for a connection of a client.
    pub fn acquire(self: &Arc<Self>, client: Client) -> Acquired {
        let most = self.config.get().most;
        if most == 0 {
            return Acquired::Granted(None);
        }
        let mut held = self.held.lock();
        let count = held.entry(client).or_default();
        if *count >= most.saturating_mul(2) {
            return Acquired::Rejected;
        }
        *count += 1;
        let is_too_many = *count > most;
        drop(held);
        let permit = Permit { clients: self.clone(), client };
        if is_too_many { Acquired::OverLimit(permit) } else { Acquired::Granted(Some(permit)) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.clients.held.lock();
        if let Entry::Occupied(mut entry) = held.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_without_end_has_none() {
        let clients = ClientsConfig { most: usize::MAX / 2 + 1, ..ClientsConfig::default() };
        let acquired = Arc::new(Clients::new(clients)).acquire(Client::at([192, 0, 2, 7].into()));
        assert!(matches!(acquired, Acquired::Granted(Some(_))));
    }

    #[test]
    fn a_client_has_its_share_and_gets_back_what_it_gives_up() {
        let proxies = vec!["10.0.0.1".parse().unwrap()];
        let config = ClientsConfig { most: 2, proxies, header: "x-forwarded-for".into() };
        let clients = Arc::new(Clients::new(config));
        let acquire = |peer: &str, said: &'static str| {
            clients.acquire(clients.client(peer.parse().unwrap(), Some(said).into_iter()))
        };
        let mut held = Vec::new();
        for _ in 0..2 {
            let acquired = acquire("10.0.0.1", "192.0.2.7");
            assert!(matches!(acquired, Acquired::Granted(Some(_))));
            held.push(acquired);
        }
        for _ in 0..2 {
            // The same client connects without the proxy.
            let acquired = acquire("192.0.2.7", "");
            assert!(matches!(acquired, Acquired::OverLimit(_)));
            held.push(acquired);
        }
        assert!(matches!(acquire("192.0.2.7", "198.51.100.1"), Acquired::Rejected));
        assert!(matches!(acquire("192.0.2.8", ""), Acquired::Granted(Some(_))));
        held.clear();
        assert!(matches!(acquire("192.0.2.7", ""), Acquired::Granted(Some(_))));
        assert!(clients.held.lock().is_empty());
    }
}
