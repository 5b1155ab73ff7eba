//! What a store promises: the suite that every store passes (memory, disk, Redis and Valkey), and
//! tests of faults, crashes and copies.

pub mod channel_settings;
pub mod clock_faults;
pub mod copies;
pub mod durability;
pub mod faults;
pub mod file_faults;
pub mod formats;
pub mod model;
pub mod overload;
pub mod restarts;
pub mod suite;
