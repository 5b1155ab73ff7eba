//! TLS of the connections to Redis: the authorities that are trusted, and a certificate of the
//! origin.

use crate::pem::{authorities, certificates, private_key};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The schemes of URLs with which connections use TLS.
const TLS_SCHEMES: [(&str, &str); 2] = [("rediss", "redis"), ("valkeys", "valkey")];

/// The files of TLS, which are read when an origin starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// A PEM file with the authorities of the certificates of Redis; `None`: those that the machine
    /// trusts.
    pub authorities: Option<PathBuf>,
    /// PEM files with the certificate of the origin, followed by its intermediate certificates, and
    /// with its private key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl RedisTls {
    /// Checks the files, as far as that is possible without a connection.
    ///
    /// # Errors
    /// Fails when a file cannot be read or used, or when `url` does not use TLS; the text names the
    /// flag.
    pub fn check(&self, url: &str) -> Result<(), String> {
        let flag = match self {
            Self { authorities: None, certificate: None } => return Ok(()),
            Self { authorities: Some(_), .. } => "--redis-ca",
            Self { .. } => "--redis-cert",
        };
        if without_tls(url).is_none() {
            return Err(format!(
                "{flag} is for connections with TLS: begin --store with rediss:// (or \
                 rediss-sentinel://, rediss-cluster://)"
            ));
        }
        self.client_config().map(drop)
    }

    /// Reads the files.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let unusable = |error: &dyn Display| format!("TLS cannot be used: {error}");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder =
            builder.with_safe_default_protocol_versions().map_err(|error| unusable(&error))?;
        let builder = builder.with_root_certificates(self.trusted()?);
        let Some((certificate, key)) = &self.certificate else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(certificate, "--redis-cert")?;
        let private = private_key(key, "--redis-key")?;
        builder.with_client_auth_cert(chain, private).map_err(|error| {
            format!(
                "--redis-cert, --redis-key: {} and {} do not belong together: {error}",
                certificate.display(),
                key.display()
            )
        })
    }

    fn trusted(&self) -> Result<RootCertStore, String> {
        if let Some(path) = &self.authorities {
            return authorities(path, "--redis-ca");
        }
        let mut roots = RootCertStore::empty();
        // Without any certificate, each connection fails, and the error names --redis-ca.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Ok(roots)
    }
}

/// Returns the same URL without TLS, or `None` if `url` does not use TLS.
pub fn without_tls(url: &str) -> Option<String> {
    TLS_SCHEMES.iter().find_map(|(scheme, plain)| {
        let rest = url.strip_prefix(scheme)?;
        rest.starts_with([':', '-']).then(|| format!("{plain}{rest}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_tls_has_a_scheme_of_its_own() {
        for (url, plain) in [
            ("rediss://u:p@h:1/2", Some("redis://u:p@h:1/2")),
            ("rediss-cluster://h:1?node=g:2", Some("redis-cluster://h:1?node=g:2")),
            ("valkeys-sentinel://h:1", Some("valkey-sentinel://h:1")),
            ("redis://h:1", None),
            ("redis-cluster://rediss:1", None),
        ] {
            assert_eq!(without_tls(url).as_deref(), plain, "{url}");
        }
    }
}
