//! TLS of the listeners: certificates that can be replaced, the choice between HTTP/2 and HTTP/1.1,
//! and certificates of clients.

use crate::pem::{authorities, certificates, private_key};
use crate::sync::replaceable::Replaceable;
use hyper::Version;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::server::TlsStream;

/// The protocol names of HTTP/2 and HTTP/1.1 in the TLS handshake (RFC 7301), the preferred one
/// first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// A PEM file with the certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// A PEM file with the private key of the certificate.
    pub key: PathBuf,
    /// A PEM file with the certificates of the authorities that sign certificates of edges; `None`:
    /// certificates of clients are not requested.
    pub edge_authorities: Option<PathBuf>,
    /// Whether the admin listeners use TLS too.
    pub on_admin: bool,
}

/// The TLS of an origin.
pub struct Tls {
    config: Replaceable<ServerConfig>,
    /// Whether the admin listeners use TLS too.
    pub on_admin: bool,
}

/// A connection after its TLS handshake.
pub struct Accepted {
    pub stream: TlsStream<TcpStream>,
    /// The version of HTTP that the handshake has chosen.
    pub version: Version,
    /// Whether the client has a certificate of an edge.
    pub is_edge: bool,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Fails when a file cannot be read or used; the text names the flag and the file.
    pub fn new(config: &TlsConfig) -> Result<Self, String> {
        Ok(Self { config: Replaceable::new(server_config(config)?), on_admin: config.on_admin })
    }

    /// Reads the files again. Connections that are open keep their certificates.
    ///
    /// # Errors
    /// Fails like [`Tls::new`]; then nothing is changed.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), String> {
        self.config.replace(server_config(config)?);
        Ok(())
    }

    /// Performs the handshake of a new connection, within `time`.
    ///
    /// # Errors
    /// Fails when the client sends no valid handshake in time.
    pub async fn accept(&self, stream: TcpStream, time: Duration) -> io::Result<Accepted> {
        let handshake = TlsAcceptor::from(self.config.get()).accept(stream);
        let stream = timeout(time, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let connection = stream.get_ref().1;
        let version = match connection.alpn_protocol() {
            Some(b"h2") => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        let is_edge = connection.peer_certificates().is_some();
        Ok(Accepted { stream, version, is_edge })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn server_config(config: &TlsConfig) -> Result<ServerConfig, String> {
    let TlsConfig { certificate, key, edge_authorities, .. } = config;
    let chain = certificates(certificate, "--tls-cert")?;
    let private = private_key(key, "--tls-key")?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let unusable = |error: &dyn fmt::Display| format!("TLS cannot be used: {error}");
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| unusable(&error))?;
    let builder = match edge_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path, "--tls-edge-ca")?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            // Clients without a certificate are served like any other client.
            let verifier = verifier.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| {
        format!(
            "--tls-cert, --tls-key: {} and {} do not belong together: {error}",
            certificate.display(),
            key.display()
        )
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}
