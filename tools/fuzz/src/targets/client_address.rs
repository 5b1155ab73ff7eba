//! The address of a client behind proxies: `X-Forwarded-For` and the like.

use crate::input::Input;
use headwater::limits::client_address::{Client, Network, behind_proxies, is_one_of};
use std::net::IpAddr;
use std::sync::OnceLock;

fn proxies() -> &'static [Network] {
    static PROXIES: OnceLock<Vec<Network>> = OnceLock::new();
    PROXIES.get_or_init(|| {
        let networks = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"];
        networks.iter().map(|network| network.parse().expect("a network")).collect()
    })
}

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let peers = ["10.1.2.3", "203.0.113.9", "::ffff:10.0.0.1", "2001:db8::5", "2001:db9::5", "::1"];
    let peer: IpAddr = peers[input.below(peers.len())].parse().expect("an address");
    let lines: Vec<String> = (0..input.below(4)).map(|_| input.text()).collect();
    let junk = input.text();
    let said = |lines: &[String]| {
        behind_proxies(peer, proxies(), lines.iter().map(String::as_str)).to_canonical()
    };
    let found = said(&lines);
    assert_eq!(found, model(peer, &lines), "{lines:?}");
    if !is_one_of(proxies(), peer) {
        assert_eq!(found, peer.to_canonical());
    }
    // Nothing that a client sends in the header before its proxies write into it changes the
    // address, once one is found that is no proxy.
    if !is_one_of(proxies(), found) {
        let mut forged = lines.clone();
        forged.insert(0, junk.clone());
        assert_eq!(said(&forged), found);
        if let Some(first) = lines.first() {
            let mut forged = lines.clone();
            forged[0] = format!("{junk},{first}");
            assert_eq!(said(&forged), found);
        }
    }
    let client = Client::at(found);
    let again: IpAddr = client.to_string().parse().expect("a client is written as an address");
    assert_eq!(Client::at(again), client);
    if let Ok(network) = junk.parse::<Network>() {
        let again = network.0.to_string().parse::<Network>();
        assert_eq!(again, Ok(network));
        assert!(
            is_one_of(&[network], network.0.addr())
                || network.0.addr().to_canonical() != network.0.addr()
        );
    }
}

/// The same, read from the last address to the first.
fn model(peer: IpAddr, lines: &[String]) -> IpAddr {
    let all = lines.join(",");
    let mut said: Vec<&str> = if lines.is_empty() { Vec::new() } else { all.split(',').collect() };
    let mut nearest = peer.to_canonical();
    while let Some(last) = said.pop() {
        if !is_one_of(proxies(), nearest) {
            return nearest;
        }
        let Some(address) = address(last.trim()) else { return nearest };
        nearest = address.to_canonical();
    }
    nearest
}

/// An address in brackets or without, possibly with a port.
fn address(text: &str) -> Option<IpAddr> {
    let inside = text.trim_start_matches('[');
    let inside = inside.find(']').map_or(inside, |end| &inside[..end]);
    let before_port = text.rfind(':').map_or(text, |colon| &text[..colon]);
    inside.parse().or_else(|_| before_port.parse()).ok()
}
