//! Finds the address of a client, also behind proxies. `connections.rs` has the trusted proxies and
//! the name of the header; `http/router.rs` (`admit`) reads the header.
//!
//! A header can contain anything, so an address in it counts only if a trusted proxy wrote it. The
//! address of the connection is examined first, then the addresses in the header, from the last to
//! the first. The first address that is not a trusted proxy is the client. If an address cannot be
//! parsed, or no address is left, the client is the address that was examined before.

use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A client as the limits count it: an IPv4 address, or the /64 network of an IPv6 address, because
/// any client may use a whole /64 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// Returns the client at an address.
    pub fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address => Self(address),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the address from which a request reached the first trusted proxy. `peer` is the address
/// of the connection, and `forwarded` has the values, in order, of the header in which proxies put
/// the addresses of their clients.
pub fn behind_proxies<'a>(
    peer: IpAddr,
    proxies: &[Network],
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
) -> IpAddr {
    let mut nearest = peer.to_canonical();
    for said in forwarded.flat_map(|value| value.split(',')).rev() {
        if !is_one_of(proxies, nearest) {
            break;
        }
        let Some(address) = address_in(said.trim()) else { break };
        nearest = address.to_canonical();
    }
    nearest
}

/// Whether an address lies in any of the networks.
pub fn is_one_of(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.0.contains(&address.to_canonical()))
}

/// Parses an address. Some proxies add the port to it.
fn address_in(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').split(']').next().unwrap_or_default();
    let bare = bare.parse().or_else(|_| text.rsplit_once(':').map_or(text, |pair| pair.0).parse());
    bare.ok()
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
        network.map(Self).map_err(|_| "write it as 192.0.2.1 or 10.0.0.0/8".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn client(peer: &str, proxies: &[&str], forwarded: &[&str]) -> String {
        let forwarded = forwarded.iter().copied();
        behind_proxies(peer.parse().unwrap(), &networks(proxies), forwarded).to_string()
    }

    #[test]
    fn a_header_counts_as_far_as_its_writers_are_trusted() {
        let ours = ["10.0.0.0/8", "192.0.2.1"];
        assert_eq!(client("203.0.113.9", &ours, &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(client("10.1.1.1", &ours, &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("10.1.1.1", &ours, &["6.6.6.6, 1.2.3.4, 10.2.2.2"]), "1.2.3.4");
        assert_eq!(client("10.1.1.1", &ours, &["6.6.6.6", "1.2.3.4,192.0.2.1"]), "1.2.3.4");
        assert_eq!(client("10.1.1.1", &ours, &["1.2.3.4, nonsense"]), "10.1.1.1");
        assert_eq!(client("10.1.1.1", &ours, &["10.3.3.3"]), "10.3.3.3");
        assert_eq!(client("10.1.1.1", &ours, &[]), "10.1.1.1");
        assert_eq!(client("10.1.1.1", &[], &["1.2.3.4"]), "10.1.1.1");
        assert_eq!(client("::ffff:10.1.1.1", &ours, &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(client("10.1.1.1", &ours, &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.1.1.1", &ours, &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn a_network_holds_what_shares_its_bits() {
        let check = |network: &str, address: &str, expected| {
            let network: Network = network.parse().unwrap();
            assert_eq!(is_one_of(&[network], address.parse().unwrap()), expected, "{address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "11.0.0.1", true);
        check("0.0.0.0/0", "::1", false);
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("2001:db8::/32", "2001:db8:1::5", true);
        check("2001:db8::/32", "2001:db9::5", false);
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_has_many_addresses_of_one_network_is_one_client() {
        let client = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }

    proptest! {
        #[test]
        fn any_header_is_read(said in "\\PC{0,40}|([0-9a-f.:,\\[\\] ]{0,20},?){0,3}") {
            client("10.1.1.1", &["10.0.0.0/8"], &[&said]);
        }
    }
}
