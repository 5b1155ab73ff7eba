//! The bugs that can be built in: their names, and what each of them does.

use headwater::sync::plants::Plant;

/// A bug that can be built in.
#[derive(Debug)]
pub struct Planted {
    /// The bug.
    pub plant: Plant,
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, as a sentence.
    pub sentence: &'static str,
}

const fn planted(plant: Plant, name: &'static str, sentence: &'static str) -> Planted {
    Planted { plant, name, sentence }
}

/// All bugs that can be built in.
pub const ALL: &[Planted] = &[
    planted(
        Plant::AckBeforeSync,
        "ack-before-sync",
        "The store on disk acknowledges a publish without syncing its file.",
    ),
    planted(
        Plant::IdReuse,
        "id-reuse",
        "The store on disk forgets the newest id when it is opened after a crash.",
    ),
    planted(
        Plant::CursorSkip,
        "cursor-skip",
        "The cursor at a boundary is that of the channel's newest event, also if that event belongs \
         to the next segment.",
    ),
    planted(
        Plant::CleanEnd,
        "clean-end",
        "A stream that has lost events goes on without them, and ends without an error.",
    ),
    planted(
        Plant::LateState,
        "late-state",
        "The state of a channel is read after the cursor that is sent with it.",
    ),
    planted(
        Plant::EndlessReplay,
        "endless-replay",
        "A cache may replay a finished segment, whose last cursor leads to the same segment again.",
    ),
    planted(
        Plant::EarlyServe,
        "early-serve",
        "An origin whose store has lost its place serves from memory before it has caught up.",
    ),
    planted(
        Plant::LostWakeUp,
        "lost-wake-up",
        "A reader that expects events in memory does not register for a wake-up.",
    ),
    planted(
        Plant::HalfGap,
        "half-gap",
        "After a loss that concerns several channels, only one of them gets a gap event.",
    ),
    planted(
        Plant::DrainDrop,
        "drain-drop",
        "A drain counts the last events of a stream as sent without sending them.",
    ),
];

/// Returns the bug with this name.
///
/// # Errors
/// Fails for any other name, with the names that there are.
pub fn parse(name: &str) -> Result<&'static Planted, String> {
    let found = ALL.iter().find(|planted| planted.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|planted| planted.name).collect();
        format!("there is no such bug; choose one of: {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own_and_a_sentence() {
        let names: std::collections::HashSet<&str> = ALL.iter().map(|p| p.name).collect();
        assert_eq!((names.len(), ALL.len()), (10, 10));
        for planted in ALL {
            assert_eq!(parse(planted.name).unwrap().plant, planted.plant);
            assert!(planted.sentence.ends_with('.'));
        }
        assert!(parse("none").unwrap_err().contains("ack-before-sync"));
    }
}
