//! Simulators that look for runs in which Headwater breaks a promise.
//!
//! A seed decides everything in a run: what publishers and clients do, when faults happen, and in
//! which order tasks run. So a run can be repeated, and a failing run can be made shorter.
//!
//! - [`disk`]: the store on disk, through crashes, failing and lying syncs, and flipped bits.
//! - [`world`]: origins, caches and clients, in virtual time.
//! - [`checker`]: the promise to one client; [`history`]: a run against real servers, judged by the
//!   same checker; [`sse`]: the parser of the clients.
//! - [`run`]: what a run is; [`hunt`]: many runs; [`shrink`]: the shortest run that still fails.
//! - [`planted`]: the bugs that can be built in, to show that the simulators find them.

pub mod checker;
pub mod disk;
pub mod history;
pub mod hunt;
pub mod planted;
pub mod random;
pub mod run;
pub mod shrink;
pub mod sse;
pub mod time;
pub mod world;

/// Returns all simulators.
pub fn simulators() -> Vec<&'static dyn run::Simulator> {
    vec![&disk::DiskSimulator, &world::WorldSimulator]
}
