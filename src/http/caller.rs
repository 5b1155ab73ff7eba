//! The sender of a request, as far as its connection identifies it.

use std::net::IpAddr;

/// Whether a request is within the limits, and on which kind of listener it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The request is served.
    Normal,
    /// The origin has too many connections or HTTP/2 streams: a request for a stream is shed.
    Overloaded,
    /// The client is over the limit: a request for a stream is shed, any other request is refused.
    OverLimit,
    /// The request arrived on the admin listener.
    Admin,
}

/// The sender of a request, as far as the connection identifies it.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Whether requests of the connection are within the limits.
    pub admission: Admission,
    /// The address of the peer.
    pub address: IpAddr,
    /// Whether the listener serves only this machine and needs no key, so that pages of other sites
    /// must be blocked.
    pub is_guarded: bool,
    /// What TLS says about the peer.
    pub tls: TlsPeer,
}

/// What TLS says about the peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPeer {
    /// The connection does not use TLS.
    None,
    /// The connection uses TLS.
    Client,
    /// The connection uses TLS, and the peer has a certificate of an edge: it vouches for each of
    /// its requests.
    Edge,
}

impl Admission {
    /// Whether the request is over a limit of the origin or of its client.
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Overloaded | Self::OverLimit)
    }
}
