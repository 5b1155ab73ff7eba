//! Origins that share one Redis.

pub mod failover;
pub mod faults;
pub mod limits;
pub mod origins;
pub mod permissions;
pub mod tls;
pub mod together;
