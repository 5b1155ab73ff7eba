//! The metrics of the process.

pub mod exposition;
pub mod metrics;
pub mod process;
pub mod repeats;
