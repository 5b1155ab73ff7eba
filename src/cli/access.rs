//! The flags for token keys and private channels, and the [`AccessConfig`] that is built from them.

use super::headings;
use super::units::switch;
use crate::access::AccessConfig;
use crate::access::revocation::Revoked;
use crate::access::token::{Key, KeyError, Requirements};
use crate::core::pattern::Pattern;
use clap::Args;
use hyper::Uri;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

#[derive(Args, Clone, Debug)]
pub struct AccessArguments {
    /// Secret of HS256 tokens, at least 32 bytes, or @FILE that holds it; repeat to rotate it
    #[arg(help_heading = headings::ACCESS, long = "token-secret", env = "HEADWATER_TOKEN_SECRET", hide_env_values = true)]
    secrets: Vec<Secret>,
    /// Public key of RS256, ES256 or EdDSA tokens, a PEM file; repeat for more
    #[arg(help_heading = headings::ACCESS, long = "token-key", env = "HEADWATER_TOKEN_KEY", value_delimiter = ',')]
    public_keys: Vec<PathBuf>,
    /// File or URL of a JWKS with the keys of tokens; read every five minutes and for unknown keys
    #[arg(help_heading = headings::ACCESS, long = "token-jwks", env = "HEADWATER_TOKEN_JWKS")]
    key_set: Option<String>,
    /// Value that the claim `iss` of every token must have
    #[arg(help_heading = headings::ACCESS, long, env = "HEADWATER_TOKEN_ISSUER")]
    token_issuer: Option<String>,
    /// Value that the claim `aud` of every token must have or contain
    #[arg(help_heading = headings::ACCESS, long, env = "HEADWATER_TOKEN_AUDIENCE")]
    token_audience: Option<String>,
    /// File with a list of revoked tokens: lines with jti ID, sub NAME or before TIME; read again by
    /// a reload
    #[arg(help_heading = headings::ACCESS, long, env = "HEADWATER_TOKEN_REVOKED", value_name = "FILE")]
    token_revoked: Option<PathBuf>,
    /// Channels that can be read only with a token: a name, prices.* or *; repeat for more
    #[arg(help_heading = headings::ACCESS, long, env = "HEADWATER_PRIVATE", value_delimiter = ',')]
    private: Vec<Pattern>,
    /// Name of the cookie that carries a browser's token
    #[arg(help_heading = headings::ACCESS, long, env = "HEADWATER_COOKIE_NAME", default_value = "headwater")]
    cookie_name: String,
    /// Secret that the edge sends in Headwater-Edge-Auth to vouch for a request, at least 16 bytes,
    /// or @FILE that holds it; repeat to rotate it
    #[arg(help_heading = headings::ACCESS, long = "edge-auth", env = "HEADWATER_EDGE_AUTH", hide_env_values = true)]
    edge_secrets: Vec<Secret>,
    /// Start without a key on an address that other machines can reach, so that anyone can publish
    #[arg(help_heading = headings::ACCESS, long, env = "HEADWATER_OPEN_PUBLISH", value_parser = switch())]
    open_publish: bool,
}

/// Least length of a secret of `--edge-auth`, in bytes.
const EDGE_SECRET_BYTES_MIN: usize = 16;
/// What follows the `@` of a secret that is a credential of systemd.
const CREDENTIAL: &str = "credential:";
/// The variable with the directory of the credentials (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

impl AccessArguments {
    /// Whether the origin may start without a key on any address (`--open-publish`).
    pub fn is_open(&self) -> bool {
        self.open_publish
    }

    /// Checks the flags. Returns the settings, and the file or URL of the JWKS, if there is one.
    /// `has_edge_ca` says whether an edge may vouch with a certificate.
    ///
    /// # Errors
    /// Fails when a flag has a wrong value; the text names the flag.
    pub fn finish(self, has_edge_ca: bool) -> Result<(AccessConfig, Option<String>), String> {
        let mut keys = Vec::new();
        for secret in &self.secrets {
            let secret = secret.read("--token-secret")?;
            keys.push(
                Key::secret(secret.as_bytes()).map_err(|error| flag("--token-secret", &error))?,
            );
        }
        for path in &self.public_keys {
            let pem = std::fs::read(path)
                .map_err(|error| format!("--token-key: cannot read {}: {error}", path.display()))?;
            keys.push(
                Key::public_pem(&pem)
                    .map_err(|error| format!("--token-key: {} is {error}", path.display()))?,
            );
        }
        let mut edge_secrets = Vec::new();
        for secret in &self.edge_secrets {
            let secret = secret.read("--edge-auth")?;
            if secret.len() < EDGE_SECRET_BYTES_MIN {
                return Err(format!("--edge-auth: give at least {EDGE_SECRET_BYTES_MIN} bytes"));
            }
            edge_secrets.push(secret);
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.cookie_name.is_empty() || !self.cookie_name.bytes().all(is_name) {
            return Err(format!(
                "--cookie-name: {:?} is no name of a cookie; use letters, digits, - and _",
                self.cookie_name
            ));
        }
        if let Some(url) = self.key_set.as_deref().filter(|url| is_open_to_change(url)) {
            return Err(format!(
                "--token-jwks: {url}: what comes over http:// can be changed on its way, and its keys \
                 open everything; use https:// or a file"
            ));
        }
        let revoked = revoked(self.token_revoked.as_deref())?;
        let has_key_set = self.key_set.is_some();
        let has_edge = has_edge_ca || !edge_secrets.is_empty();
        if !self.private.is_empty() && keys.is_empty() && !has_key_set && !has_edge {
            return Err("--private: nobody could read these channels; give a key \
                        (--token-secret, --token-key, --token-jwks), --edge-auth or --tls-edge-ca"
                .to_owned());
        }
        let requirements =
            Requirements { issuer: self.token_issuer, audience: self.token_audience, revoked };
        let (private, cookie_name) = (self.private, self.cookie_name);
        let config =
            AccessConfig { keys, has_key_set, requirements, private, cookie_name, edge_secrets };
        Ok((config, self.key_set))
    }
}

/// Reads the list of revoked tokens, if there is one.
fn revoked(path: Option<&Path>) -> Result<Arc<Revoked>, String> {
    let Some(path) = path else { return Ok(Arc::default()) };
    let cannot = |why: &dyn fmt::Display| format!("--token-revoked: {}: {why}", path.display());
    let list = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    Revoked::parse(&list).map(Arc::new).map_err(|why| cannot(&why))
}

/// Whether a JWKS comes from another machine without TLS, so that it could be changed on its way.
fn is_open_to_change(url: &str) -> bool {
    let uri: Option<Uri> = url.starts_with("http://").then(|| url.parse().ok()).flatten();
    uri.is_some_and(|uri| {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        !is_loopback && host != "localhost"
    })
}

fn flag(name: &str, KeyError(why): &KeyError) -> String {
    format!("{name}: {why}")
}

/// A secret as it was given in a flag. Its `Debug` output does not contain it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret, or the text of the file that `@FILE` names, without its line end. The
    /// file `@credential:NAME` is a credential that systemd gives to the process.
    ///
    /// # Errors
    /// Fails when the file cannot be read; the text names `flag`.
    pub fn read(&self, flag: &str) -> Result<String, String> {
        let Some(path) = self.0.strip_prefix('@') else { return Ok(self.0.clone()) };
        let path = match path.strip_prefix(CREDENTIAL) {
            None => PathBuf::from(path),
            Some(name) => {
                let directory = std::env::var_os(CREDENTIALS_DIRECTORY).ok_or_else(|| {
                    format!("{flag}: {CREDENTIALS_DIRECTORY} is not set, so there is no {path}")
                })?;
                PathBuf::from(directory).join(name)
            }
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{flag}: cannot read {}: {error}", path.display()))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
