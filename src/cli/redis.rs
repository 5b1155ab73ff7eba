//! The flags of Redis as a store.

use super::headings;
use crate::origin::{RedisOptions, StoreAddress};
use crate::store::redis::{RedisTls, SHARDS_MAX};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct RedisArguments {
    /// Prefix of all keys in Redis; deployments that share a Redis must have different prefixes
    #[arg(help_heading = headings::REDIS, long, env = "HEADWATER_REDIS_PREFIX", default_value = "headwater")]
    redis_prefix: String,
    /// Number of shards that channels are spread over in Redis; fixed for each prefix (1 to 64)
    #[arg(help_heading = headings::REDIS, long, env = "HEADWATER_REDIS_SHARDS", default_value_t = 4)]
    redis_shards: usize,
    /// Number of Redis replicas that must have an event before it is acknowledged (count)
    #[arg(help_heading = headings::REDIS, long, env = "HEADWATER_REDIS_WAIT_REPLICAS", default_value_t = 0)]
    redis_wait_replicas: u32,
    /// Authorities of the certificates of Redis, a PEM file, for a rediss:// URL
    /// [default: those that the machine trusts]
    #[arg(help_heading = headings::REDIS, long, env = "HEADWATER_REDIS_CA", value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// Certificate that the origin shows to Redis, a PEM file with its intermediate certificates
    /// after it, for a rediss:// URL
    #[arg(help_heading = headings::REDIS, long, env = "HEADWATER_REDIS_CERT", value_name = "FILE", requires = "redis_key")]
    redis_cert: Option<PathBuf>,
    /// Private key of --redis-cert, a PEM file
    #[arg(help_heading = headings::REDIS, long, env = "HEADWATER_REDIS_KEY", value_name = "FILE", requires = "redis_cert")]
    redis_key: Option<PathBuf>,
}

impl RedisArguments {
    /// Checks the flags for a store at `address`. It reads the files of TLS, so that a mistake in
    /// them is found by `config check`.
    ///
    /// # Errors
    /// Fails when a flag has a wrong value; the text names the flag.
    pub(super) fn options(&self, address: &StoreAddress) -> Result<RedisOptions, String> {
        let prefix = self.redis_prefix.clone();
        if prefix.is_empty() || prefix.contains(['{', '}']) {
            return Err("--redis-prefix takes one or more characters, but no braces".to_owned());
        }
        if !(1..=SHARDS_MAX).contains(&self.redis_shards) {
            return Err(format!("--redis-shards takes 1 to {SHARDS_MAX}"));
        }
        let certificate = self.redis_cert.clone().zip(self.redis_key.clone());
        let tls = RedisTls { authorities: self.redis_ca.clone(), certificate };
        tls.check(match address {
            StoreAddress::Redis(url) => url,
            _ => "",
        })?;
        let (shards, wait_replicas) = (self.redis_shards, self.redis_wait_replicas);
        Ok(RedisOptions { prefix, shards, wait_replicas, tls })
    }
}
