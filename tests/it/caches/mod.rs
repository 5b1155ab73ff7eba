//! Varnish, nginx, Squid and the files for Fastly in front of the origin.

pub mod agreement;
pub mod answers;
pub mod cohort;
pub mod falco;
pub mod files;
pub mod mixed_cohort;
pub mod nginx;
pub mod rolling;
pub mod shield;
pub mod siege;
pub mod simulation;
pub mod squid;
pub mod varnish;
