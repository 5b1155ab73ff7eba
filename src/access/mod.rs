//! Who may publish and who may listen: the keys, the private channels, and what vouches for whom.
//!
//! Holds what the operator configured and decides; which header a credential came in is for
//! `http/access`. Keys of a JWKS are fetched anew from time to time, and when a token names one
//! that nobody knows: so an issuer may change its keys without a word.

pub mod scope;
pub mod token;

use crate::access::scope::{Pattern, Right};
use crate::access::token::{Grant, Key, KeyError, Requirements, TokenError};
use crate::core::event::ChannelName;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// How often the keys of a JWKS are fetched.
const FETCH_PAUSE: Duration = Duration::from_secs(300);
/// Pause between two tries while no keys were fetched yet: until then no token is good.
const FIRST_FETCH_PAUSE: Duration = Duration::from_secs(1);
/// Shortest pause between two fetches, whatever tokens come in: they cost a stranger nothing.
const FETCH_PAUSE_MIN: Duration = Duration::from_secs(10);

/// Where the text of a JWKS comes from.
pub type Fetch =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// The keys of tokens, and the private channels.
pub struct AccessConfig {
    /// Keys that do not change.
    pub keys: Vec<Key>,
    /// Whether there is a JWKS too.
    pub has_key_set: bool,
    /// What tokens must say.
    pub requirements: Requirements,
    /// Channels that are not for everyone.
    pub private: Vec<Pattern>,
    /// The cookie a browser's token comes in.
    pub cookie_name: String,
    /// What the edge says to vouch for a request; two while one is being replaced.
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
    /// Whether publishing needs a token: as soon as any key is there to check one.
    pub fn guards_publishing(&self) -> bool {
        !self.keys.is_empty() || self.has_key_set
    }
}

/// Decides what a token or the edge may do.
pub struct Access {
    config: AccessConfig,
    fetched: Mutex<Arc<Vec<Key>>>,
    /// Why no keys have been fetched yet; `None` once some were.
    missing: Mutex<Option<String>>,
    wanted: Notify,
}

impl Access {
    /// With what the operator said.
    pub fn new(config: AccessConfig) -> Self {
        let missing = config.has_key_set.then(|| "the first fetch is under way".to_owned());
        let missing = Mutex::new(missing);
        Self { config, fetched: Mutex::default(), missing, wanted: Notify::new() }
    }

    /// Whether publishing needs a token: as soon as any key is there to check one.
    pub fn guards_publishing(&self) -> bool {
        self.config.guards_publishing()
    }

    /// Why tokens of a JWKS cannot be checked yet: its keys have never been fetched.
    pub fn missing_keys(&self) -> Option<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cookie a browser's token comes in.
    pub fn cookie_name(&self) -> &str {
        &self.config.cookie_name
    }

    /// Whether any of these channels is not for everyone.
    pub fn is_private(&self, names: &[ChannelName]) -> bool {
        let is_private = |name| self.config.private.iter().any(|pattern| pattern.matches(name));
        names.iter().any(is_private)
    }

    /// Whether a token grants `right` to every channel of these that needs it.
    pub fn grants(&self, grant: &Grant, right: Right, names: &[ChannelName]) -> bool {
        let is_public = |name: &ChannelName| {
            right == Right::Subscribe && !self.is_private(std::slice::from_ref(name))
        };
        names.iter().all(|name| is_public(name) || grant.scope.grants(right, name))
    }

    /// Reads a token, at `now` (ms).
    ///
    /// # Errors
    /// As [`token::verify`].
    pub fn verify(&self, token: &str, now: u64) -> Result<Grant, TokenError> {
        let requirements = &self.config.requirements;
        let verified = token::verify(token, &self.config.keys, requirements, now);
        if !self.config.has_key_set
            || !matches!(verified, Err(TokenError::UnknownKey | TokenError::Bad))
        {
            return verified;
        }
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let verified = token::verify(token, &fetched, requirements, now);
        if verified == Err(TokenError::UnknownKey) {
            self.wanted.notify_one();
        }
        verified
    }

    /// Whether the edge vouches for a request, by what its header says.
    pub fn is_vouched(&self, said: &[u8]) -> bool {
        let is_it = |secret: &String| verify_slices_are_equal(secret.as_bytes(), said).is_ok();
        // All of them, so that the time says nothing about which.
        self.config.edge_secrets.iter().filter(|secret| is_it(secret)).count() > 0
    }

    /// Fetches keys for as long as it is polled.
    pub async fn keep_keys(&self, fetch: Fetch) {
        let mut logged = None;
        loop {
            let begun = Instant::now();
            match fetch().await.and_then(|text| Key::set(&text).map_err(|KeyError(why)| why)) {
                Ok(keys) => {
                    if logged.take().is_some() {
                        tracing::info!(keys = keys.len(), "the keys of tokens were fetched");
                    }
                    let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
                    *fetched = Arc::new(keys);
                    *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                // Those that were fetched before stay good.
                Err(why) => {
                    // Each cause once, not each of the attempts.
                    if logged.as_ref() != Some(&why) {
                        tracing::error!(%why, "the keys of tokens cannot be fetched (--token-jwks)");
                        logged = Some(why.clone());
                    }
                    let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
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
        write!(f, "Access({} keys)", self.config.keys.len())
    }
}
