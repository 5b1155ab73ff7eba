//! Flags about who may publish and who may listen, to an [`AccessConfig`].

use super::units::switch;
use crate::access::AccessConfig;
use crate::access::scope::Pattern;
use crate::access::token::{Key, KeyError, Requirements};
use clap::Args;
use hyper::Uri;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Args, Clone, Debug)]
pub struct AccessArguments {
    /// Secret of HS256 tokens, at least 32 bytes, or @FILE that holds it; repeat while changing it
    #[arg(long = "token-secret", env = "HEADWATER_TOKEN_SECRET", hide_env_values = true)]
    secrets: Vec<Secret>,
    /// Public key of RS256, ES256 or EdDSA tokens, a PEM file; repeat for more
    #[arg(long = "token-key", env = "HEADWATER_TOKEN_KEY", value_delimiter = ',')]
    public_keys: Vec<PathBuf>,
    /// Keys of tokens as a JWKS: a file or URL, read again every five minutes and for unknown keys
    #[arg(long = "token-jwks", env = "HEADWATER_TOKEN_JWKS")]
    key_set: Option<String>,
    /// What `iss` of every token must be
    #[arg(long, env = "HEADWATER_TOKEN_ISSUER")]
    token_issuer: Option<String>,
    /// What `aud` of every token must be or contain
    #[arg(long, env = "HEADWATER_TOKEN_AUDIENCE")]
    token_audience: Option<String>,
    /// Channels that need a token to read: a name, prices.* or *; repeat for more
    #[arg(long, env = "HEADWATER_PRIVATE", value_delimiter = ',')]
    private: Vec<Pattern>,
    /// Cookie that a browser's token comes in
    #[arg(long, env = "HEADWATER_COOKIE_NAME", default_value = "headwater")]
    cookie_name: String,
    /// What the edge says in Headwater-Edge-Auth to vouch for a request, or @FILE; repeat while
    /// changing it
    #[arg(long = "edge-auth", env = "HEADWATER_EDGE_AUTH", hide_env_values = true)]
    edge_secrets: Vec<Secret>,
    /// Let everyone publish who reaches an address that is not of this machine
    #[arg(long, env = "HEADWATER_OPEN_PUBLISH", value_parser = switch())]
    open_publish: bool,
}

/// Shortest secret of the edge, in bytes.
const EDGE_SECRET_BYTES_MIN: usize = 16;

impl AccessArguments {
    /// Whether everyone may publish on any address.
    pub fn is_open(&self) -> bool {
        self.open_publish
    }

    /// Checked values, and where the JWKS comes from.
    ///
    /// # Errors
    /// Names the flag.
    pub fn finish(self) -> Result<(AccessConfig, Option<String>), String> {
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
        let has_key_set = self.key_set.is_some();
        if !self.private.is_empty() && keys.is_empty() && !has_key_set && edge_secrets.is_empty() {
            return Err("--private: nobody could read these channels; give a key \
                        (--token-secret, --token-key, --token-jwks) or --edge-auth"
                .to_owned());
        }
        let requirements =
            Requirements { issuer: self.token_issuer, audience: self.token_audience };
        let (private, cookie_name) = (self.private, self.cookie_name);
        let config =
            AccessConfig { keys, has_key_set, requirements, private, cookie_name, edge_secrets };
        Ok((config, self.key_set))
    }
}

/// Whether a key set comes over a network that is not this machine's own, without TLS.
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

/// A secret as it was given; shows nothing of itself.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The secret, or the text of the file that `@FILE` names, without the line's end.
    ///
    /// # Errors
    /// When the file cannot be read; names `flag`.
    pub fn read(&self, flag: &str) -> Result<String, String> {
        let Some(path) = self.0.strip_prefix('@') else { return Ok(self.0.clone()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{flag}: cannot read {path}: {error}"))?;
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
