//! Time, wake-ups and background threads: what the rest needs of tokio, and nothing of Headwater.

pub mod background;
pub mod clock;
pub mod lifecycle;
pub mod shutdown;
pub mod timers;
pub mod waiters;
