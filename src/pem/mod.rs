//! Reads certificates and keys from files in PEM. Each error names the flag and the file.

use std::fmt::Display;
use std::path::Path;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads the certificates of a file, in their order.
///
/// # Errors
/// Fails when the file cannot be read or has no certificate.
pub fn certificates(path: &Path, flag: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let cannot = |why: &dyn Display| {
        format!("{flag}: no certificate can be read from {}: {why}", path.display())
    };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| cannot(&error))?;
    match certificates.is_empty() {
        true => Err(cannot(&"it has none in PEM")),
        false => Ok(certificates),
    }
}

/// Reads the certificates of authorities.
///
/// # Errors
/// Fails when the file cannot be read, has no certificate, or has one that no authority can have.
pub fn authorities(path: &Path, flag: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, flag)? {
        roots
            .add(authority)
            .map_err(|error| format!("{flag}: {} cannot be used: {error}", path.display()))?;
    }
    Ok(roots)
}

/// Reads the private key of a file.
///
/// # Errors
/// Fails when the file cannot be read or has no private key.
pub fn private_key(path: &Path, flag: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        format!("{flag}: no private key can be read from {}: {error}", path.display())
    })
}
