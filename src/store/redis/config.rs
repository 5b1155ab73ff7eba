//! The settings of the Redis store.

use super::settings::Settings;
use std::time::Duration;

/// How to reach Redis, and how to use it.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`.
    pub url: String,
    /// What all keys begin with.
    pub prefix: String,
    /// Number of shards; all origins must agree.
    pub shards: usize,
    /// Replicas that must have a publish before it is acknowledged.
    pub wait_replicas: u32,
    /// Longest time a publish or a read may take.
    pub timeout: Duration,
    /// Settings that all origins should have in common.
    pub settings: Settings,
}
