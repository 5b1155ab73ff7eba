//! Access control: the keys of tokens, the private channels, and the secrets with which an edge
//! shows that it has checked a client (edge vouching).
//!
//! This module verifies tokens and edge secrets, and `Access::decide` says whether a client may
//! read or publish; `http/access` finds the tokens and secrets in a request. The keys of a JWKS are
//! fetched about every five minutes, and earlier (but at most every 10 s) when a token names an
//! unknown key, so an issuer can change its keys without notice.

pub mod revocation;
pub mod scope;
pub mod token;

use crate::access::scope::Right;
use crate::access::token::{Grant, Key, KeyError, Requirements, TokenError};
use crate::core::event::ChannelName;
use crate::core::pattern::Pattern;
use crate::sync::replaceable::Replaceable;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::Mutex;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// The time between two regular fetches of a JWKS.
const FETCH_PAUSE: Duration = Duration::from_secs(300);
/// The time between two attempts before the first successful fetch, because until then no token of
/// the JWKS can be checked.
const FIRST_FETCH_PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two later fetches, because any client can send tokens with unknown
/// keys.
const FETCH_PAUSE_MIN: Duration = Duration::from_secs(10);

/// Fetches the text of a JWKS document, or returns an error text.
pub type Fetch =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// The settings of the access control.
pub struct AccessConfig {
    /// The keys that are configured directly and do not change.
    pub keys: Vec<Key>,
    /// Whether keys are also fetched from a JWKS.
    pub has_key_set: bool,
    /// The claims that tokens must have.
    pub requirements: Requirements,
    /// The private channels: reading them needs a token or edge vouching.
    pub private: Vec<Pattern>,
    /// The name of the cookie that carries the token of a browser.
    pub cookie_name: String,
    /// The secrets with which the edge vouches for a request. There are two of them while one is
    /// being replaced.
    pub edge_secrets: Vec<String>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            has_key_set: false,
            requirements: Requirements::default(),
            private: Vec::new(),
            cookie_name: "headwater".to_owned(),
            edge_secrets: Vec::new(),
        }
    }
}

impl AccessConfig {
    /// Whether publishing needs a token. It does as soon as a key or a JWKS is configured.
    pub fn guards_publishing(&self) -> bool {
        !self.keys.is_empty() || self.has_key_set
    }
}

/// The credentials of a client that have been verified.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The grant of its token.
    pub grant: Option<Grant>,
    /// The edge vouches for the client: it may read every channel.
    pub is_vouched: bool,
}

/// The outcome of [`Access::decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The channels are open to every client, or the edge vouches for this one.
    Open,
    /// The token gives the right.
    Granted,
    /// The right needs a token, and the client has none.
    NeedsToken,
    /// The token does not give the right.
    OutOfScope,
}

/// Checks tokens and edge secrets, and decides which channels they open.
pub struct Access {
    config: Replaceable<AccessConfig>,
    fetched: Mutex<Arc<Vec<Key>>>,
    /// Why no keys have been fetched yet; `None` after the first successful fetch, or without a
    /// JWKS.
    missing: Mutex<Option<String>>,
    wanted: Notify,
}

impl Access {
    /// Creates the access control with these settings.
    pub fn new(config: AccessConfig) -> Self {
        let missing = config.has_key_set.then(|| "the first fetch is under way".to_owned());
        let (config, missing) = (Replaceable::new(config), Mutex::new(missing));
        Self { config, fetched: Mutex::default(), missing, wanted: Notify::new() }
    }

    /// Replaces the settings. Tokens that are already accepted stay accepted until they expire or
    /// their streams end. Whether there is a JWKS cannot change.
    ///
    /// # Errors
    /// Fails when publishing would no longer need a token.
    pub fn reload(&self, mut config: AccessConfig) -> Result<(), &'static str> {
        config.has_key_set = self.config.get().has_key_set;
        if self.guards_publishing() && !config.guards_publishing() {
            return Err("without a key, every client could publish; that needs a restart");
        }
        self.config.replace(config);
        Ok(())
    }

    /// Whether publishing needs a token. It does as soon as a key or a JWKS is configured.
    pub fn guards_publishing(&self) -> bool {
        self.config.get().guards_publishing()
    }

    /// The reason for which tokens of a JWKS cannot be checked yet, while its keys have never been
    /// fetched.
    pub fn missing_keys(&self) -> Option<String> {
        self.missing.lock().clone()
    }

    /// The name of the cookie that carries the token of a browser.
    pub fn cookie_name(&self) -> String {
        self.config.get().cookie_name.clone()
    }

    /// Whether any of these channels is private.
    pub fn is_private(&self, names: &[ChannelName]) -> bool {
        let config = self.config.get();
        let is_private = |name| config.private.iter().any(|pattern| pattern.matches(name));
        names.iter().any(is_private)
    }

    /// Decides whether a client with these credentials has `right` on all these channels. This is
    /// the one policy for requests and for WebSockets.
    pub fn decide(
        &self,
        credentials: &Credentials,
        right: Right,
        names: &[ChannelName],
    ) -> Decision {
        let is_open = match right {
            Right::Publish => !self.guards_publishing(),
            Right::Subscribe => credentials.is_vouched || !self.is_private(names),
        };
        match &credentials.grant {
            _ if is_open => Decision::Open,
            None => Decision::NeedsToken,
            Some(grant) if self.grants(grant, right, names) => Decision::Granted,
            Some(_) => Decision::OutOfScope,
        }
    }

    /// Whether a grant gives `right` to all these channels. Reading a public channel needs no
    /// grant.
    fn grants(&self, grant: &Grant, right: Right, names: &[ChannelName]) -> bool {
        let is_public = |name: &ChannelName| {
            right == Right::Subscribe && !self.is_private(std::slice::from_ref(name))
        };
        names.iter().all(|name| is_public(name) || grant.scope.grants(right, name))
    }

    /// Verifies a token at the time `now`, in ms since the Unix epoch. A token of an unknown key
    /// starts a new fetch of the JWKS.
    ///
    /// # Errors
    /// Fails for the same reasons as [`token::verify`].
    pub fn verify(&self, token: &str, now: u64) -> Result<Grant, TokenError> {
        let config = self.config.get();
        let requirements = &config.requirements;
        let verified = token::verify(token, &config.keys, requirements, now);
        if !config.has_key_set || !matches!(verified, Err(TokenError::UnknownKey | TokenError::Bad))
        {
            return verified;
        }
        let fetched = self.fetched.lock().clone();
        let verified = token::verify(token, &fetched, requirements, now);
        if verified == Err(TokenError::UnknownKey) {
            self.wanted.notify_one();
        }
        verified
    }

    /// Whether the edge vouches for a request whose header has the value `said`.
    pub fn is_vouched(&self, said: &[u8]) -> bool {
        let is_it = |secret: &String| verify_slices_are_equal(secret.as_bytes(), said).is_ok();
        // All secrets are compared, so that the time does not reveal which one matched.
        self.config.get().edge_secrets.iter().filter(|secret| is_it(secret)).count() > 0
    }

    /// Fetches the keys of the JWKS again and again. This future never completes.
    pub async fn keep_keys(&self, fetch: Fetch) {
        let mut logged = None;
        loop {
            let begun = Instant::now();
            match fetch().await.and_then(|text| Key::set(&text).map_err(|KeyError(why)| why)) {
                Ok(keys) => {
                    if logged.take().is_some() {
                        tracing::info!(keys = keys.len(), "the keys of tokens were fetched");
                    }
                    let mut fetched = self.fetched.lock();
                    *fetched = Arc::new(keys);
                    *self.missing.lock() = None;
                }
                // The keys of an earlier fetch stay in use.
                Err(why) => {
                    // A cause is logged when it first occurs, not at every attempt.
                    if logged.as_ref() != Some(&why) {
                        tracing::error!(%why, "the keys of tokens cannot be fetched (--token-jwks)");
                        logged = Some(why.clone());
                    }
                    let mut missing = self.missing.lock();
                    if let Some(missing) = &mut *missing {
                        *missing = why;
                    }
                }
            }
            if self.missing_keys().is_some() {
                sleep_until(begun + FIRST_FETCH_PAUSE).await;
                continue;
            }
            sleep_until(begun + FETCH_PAUSE_MIN).await;
            timeout(FETCH_PAUSE, self.wanted.notified()).await.ok();
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({} keys)", self.config.get().keys.len())
    }
}
