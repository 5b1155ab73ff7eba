//! How much each client holds at once, and no more than its share.

use crate::limits::client_address::{Client, Network, behind_proxies, is_one_of};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the operator said of clients.
#[derive(Clone, Debug, Default)]
pub struct ClientsConfig {
    /// Most connections of one client; 0: no limit.
    pub most: usize,
    /// Who connects for others.
    pub proxies: Vec<Network>,
    /// The header in which they say for whom, in small letters.
    pub header: String,
}

/// All clients that hold something.
#[derive(Debug, Default)]
pub struct Clients {
    config: ClientsConfig,
    held: Mutex<HashMap<Client, usize>>,
}

/// What came of a client's wish for one more.
#[derive(Debug)]
pub enum Entered {
    /// It has its place.
    In(Option<Place>),
    /// It has too many, and is to be told so.
    TooMany(Place),
    /// It has been told often enough.
    Flooding,
}

/// One thing that a client holds; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    clients: Arc<Clients>,
    client: Client,
}

impl Clients {
    /// Nobody holds anything.
    pub fn new(config: ClientsConfig) -> Self {
        Self { config, held: Mutex::default() }
    }

    /// Whether this peer connects for others.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        is_one_of(&self.config.proxies, peer)
    }

    /// The header in which proxies say for whom they ask.
    pub fn header(&self) -> &str {
        &self.config.header
    }

    /// The client that `peer` is, or that it says it asks for.
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
    ) -> Client {
        Client::at(behind_proxies(peer, &self.config.proxies, forwarded))
    }

    /// A place for a client.
    pub fn enter(self: &Arc<Self>, client: Client) -> Entered {
        let most = self.config.most;
        if most == 0 {
            return Entered::In(None);
        }
        let mut held = self.held();
        let count = held.entry(client).or_default();
        if *count >= most.saturating_mul(2) {
            return Entered::Flooding;
        }
        *count += 1;
        let is_too_many = *count > most;
        drop(held);
        let place = Place { clients: self.clone(), client };
        if is_too_many { Entered::TooMany(place) } else { Entered::In(Some(place)) }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.clients.held();
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
        let entered = Arc::new(Clients::new(clients)).enter(Client::at([192, 0, 2, 7].into()));
        assert!(matches!(entered, Entered::In(Some(_))));
    }

    #[test]
    fn a_client_has_its_share_and_gets_back_what_it_gives_up() {
        let proxies = vec!["10.0.0.1".parse().unwrap()];
        let config = ClientsConfig { most: 2, proxies, header: "x-forwarded-for".into() };
        let clients = Arc::new(Clients::new(config));
        let enter = |peer: &str, said: &'static str| {
            clients.enter(clients.client(peer.parse().unwrap(), Some(said).into_iter()))
        };
        let mut held = Vec::new();
        for _ in 0..2 {
            let entered = enter("10.0.0.1", "192.0.2.7");
            assert!(matches!(entered, Entered::In(Some(_))));
            held.push(entered);
        }
        for _ in 0..2 {
            // The same client, by another way.
            let entered = enter("192.0.2.7", "");
            assert!(matches!(entered, Entered::TooMany(_)));
            held.push(entered);
        }
        assert!(matches!(enter("192.0.2.7", "198.51.100.1"), Entered::Flooding));
        assert!(matches!(enter("192.0.2.8", ""), Entered::In(Some(_))));
        held.clear();
        assert!(matches!(enter("192.0.2.7", ""), Entered::In(Some(_))));
        assert!(clients.held().is_empty());
    }
}
