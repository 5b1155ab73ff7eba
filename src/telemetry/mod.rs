//! The metrics of the process, and the spans of traced publishes.

pub mod exposition;
pub mod metrics;
pub mod process;
pub mod repeats;
pub mod traces;
