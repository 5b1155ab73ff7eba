//! Time, wake-ups and background threads, built on tokio. Nothing here depends on the rest of
//! Headwater.

pub mod background;
pub mod clock;
pub mod lifecycle;
pub mod plants;
pub mod random;
pub mod replaceable;
pub mod shutdown;
pub mod throttle;
pub mod timers;
pub mod waiters;
