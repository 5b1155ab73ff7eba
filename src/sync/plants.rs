//! Bugs that `tools/hunt` builds in on purpose, to show that its simulators find them.
//!
//! They exist only with the cargo feature `plants`, which no release has. Without the feature
//! [`is_planted`] is a constant `false`, so the compiler removes each planted bug.

#[cfg(feature = "plants")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The log acknowledges a publish without syncing its file.
    AckBeforeSync,
    /// The log forgets the newest id when it is opened.
    IdReuse,
    /// The cursor at the end of a segment is that of the newest event of the channel.
    CursorSkip,
    /// A reader that has fallen behind goes on with the oldest event that is kept.
    CleanEnd,
    /// The state is read after the position that it is said to belong to.
    LateState,
    /// The cursor at the end of a segment has no mark, and caches may keep the segment.
    EndlessReplay,
    /// The registry keeps its tail buffers although the store may have skipped events.
    EarlyServe,
    /// A reader that expects events in memory does not register for a wake-up.
    LostWakeUp,
    /// Only one channel gets a gap event after a loss that concerns several.
    HalfGap,
    /// The last events before a drain are counted as sent, but are not sent.
    DrainDrop,
}

#[cfg(feature = "plants")]
static PLANTED: AtomicU8 = AtomicU8::new(u8::MAX);

/// Builds a bug in, for the whole process.
#[cfg(feature = "plants")]
pub fn plant(plant: Plant) {
    PLANTED.store(plant as u8, Ordering::Relaxed);
}

/// Whether this bug is built in.
#[cfg(feature = "plants")]
pub fn is_planted(plant: Plant) -> bool {
    PLANTED.load(Ordering::Relaxed) == plant as u8
}

/// Whether this bug is built in. Without the feature `plants`, none is.
#[cfg(not(feature = "plants"))]
pub const fn is_planted(_: Plant) -> bool {
    false
}
