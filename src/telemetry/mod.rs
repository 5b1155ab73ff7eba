//! The metrics of the process.

pub mod metrics;
pub mod process;
