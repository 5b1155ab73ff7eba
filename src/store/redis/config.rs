//! The configuration of the Redis store.

use super::agreement::Settings;
use super::connection::down;
use super::tls::{RedisTls, without_tls};
use crate::store::StoreError;
use fred::types::config::{Config, TlsConnector};
use std::time::Duration;

/// How to connect to Redis and how to use it.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// The URL: `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`.
    pub url: String,
    /// The authorities and the certificate, if the URL uses TLS.
    pub tls: RedisTls,
    /// The prefix of all keys.
    pub prefix: String,
    /// The number of shards, which must be the same for all origins.
    pub shards: usize,
    /// The number of replicas that must have a publish before it is acknowledged.
    pub wait_replicas: u32,
    /// Maximum time of a publish or a read.
    pub timeout: Duration,
    /// The settings that should be the same for all origins.
    pub settings: Settings,
}

impl RedisConfig {
    /// Returns the configuration of the connections.
    pub fn server(&self) -> Result<Config, StoreError> {
        let plain = without_tls(&self.url);
        let config = Config::from_url(plain.as_deref().unwrap_or(&self.url));
        let mut config = config.map_err(|error| down(&error))?;
        if plain.is_some() {
            let client = self.tls.client_config().map_err(StoreError::Down)?;
            config.tls = Some(TlsConnector::from(client).into());
        }
        Ok(config)
    }
}
