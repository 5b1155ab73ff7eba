//! The configuration of the Redis store.

use super::settings::Settings;
use std::time::Duration;

/// How to connect to Redis and how to use it.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// The URL: `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`.
    pub url: String,
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
