//! A whole log: several files of frames, as they are found when a process starts.

use super::log_file::{SEED, damage, frames};
use crate::input::Input;
use headwater::core::cursor::EventId;
use headwater::core::log_state::LogState;
use headwater::store::local::fuzzing::{
    Files, LogIdentity, Memory, Opened, name, open, scan, summarize,
};
use std::collections::{BTreeMap, HashMap};

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut files = HashMap::new();
    let beginning = EventId { ms: 5, seq: 0 };
    let head = Memory::durable(HashMap::new());
    LogIdentity { seed: SEED, beginning }.store(&head).expect("a file in memory");
    files.extend(head.bytes());
    for number in 1..=input.below(4) as u32 {
        let (mut file, _) = frames(&mut input);
        let (until, has_index) = (number + u32::from(input.flag()), input.flag());
        if has_index {
            let index = summarize(&scan(&file, SEED, false), until).write_index(SEED);
            files.insert(name(number, until, "index"), index);
        }
        damage(&mut Input::new(input.bytes()), &mut file);
        file.resize(file.len().next_multiple_of(8) + 8 * input.below(4), 0);
        files.insert(name(number, until, "log"), file);
    }
    if input.flag() {
        files.insert(input.text(), input.bytes().to_vec());
    }
    // On a disk, 1 MiB of zeros is written ahead of the records, which takes long.
    let is_on_disk = input.byte() == 1;
    opened(in_memory(files, is_on_disk), beginning);
}

fn in_memory(files: HashMap<String, Vec<u8>>, is_on_disk: bool) -> Memory {
    if is_on_disk {
        return Memory::durable(files);
    }
    let memory = Memory::default();
    for (name, bytes) in files {
        let file = memory.create(&name).expect("a file in memory");
        file.write_at(&bytes, 0).expect("a file in memory");
    }
    memory
}

/// A log that was opened is opened again with the same content. What the first process wrote, such as an
/// index, changes nothing.
fn opened(files: Memory, beginning: EventId) {
    let Ok(first) = open(&files, beginning) else { return };
    let again = open(&files, beginning).expect("it was opened before");
    assert_eq!(content(&again), content(&first));
    for channel in first.catalog.channels.values() {
        let events: u64 = channel.blocks.iter().map(|block| block.events).sum();
        assert!(channel.events <= events);
    }
}

type Content = (EventId, EventId, u64, BTreeMap<String, (LogState, u64, u64)>);

fn content(opened: &Opened) -> Content {
    let catalog = &opened.catalog;
    let channels = catalog.channels.iter().map(|(name, channel)| {
        (name.to_string(), (catalog.log_state(name), channel.events, channel.state_bytes))
    });
    (catalog.beginning, catalog.newest, catalog.keys.len(), channels.collect())
}
