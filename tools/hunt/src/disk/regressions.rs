//! The bugs that the hunt has found in the store on disk, as short scripts. docs/findings.md lists
//! them. Each script is run with many outcomes of the same crash.
#![cfg(test)]

use super::checker::Unclear;
use super::files::Faults;
use super::machine::{Machine, Write};
use crate::random::Random;
use headwater::core::event::Event;

const RUNS: u64 = 200;

fn publish_to(channel: &'static str, text: &str) -> Vec<Write> {
    let events = vec![Event::stored(None, None, text)];
    vec![Write::Publish(Unclear { channel, events, key: None, reopens: false, erases: false })]
}

fn publish(text: &str) -> Vec<Write> {
    publish_to("a", text)
}

fn random(seed: u64, label: &str) -> Random {
    Random::of(seed, label, 0)
}

async fn opened(seed: u64, retain: usize) -> Machine {
    let mut machine = Machine::new(1_024, retain, false);
    machine.open(random(seed, "open")).await.unwrap();
    machine
}

/// Runs a script that never yields, for many seeds.
async fn for_seeds(count: u64, script: impl AsyncFn(u64)) {
    tokio::task::unconstrained(async {
        for seed in 0..count {
            script(seed).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_served_after_a_killed_process_stays_after_a_power_failure() {
    for_seeds(RUNS, async |seed| {
        let mut machine = opened(seed, 100).await;
        // The power fails for the store at the sync; the machine itself runs on.
        machine.disk.fail_after(1);
        machine.write(publish("one")).await.unwrap();
        machine.kill();
        machine.open(random(seed, "open")).await.unwrap();
        machine.fail_power(&mut random(seed, "power"));
        machine.open(random(seed, "open")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_served_after_a_failed_sync_stays_after_a_power_failure() {
    for_seeds(RUNS, async |seed| {
        let mut machine = opened(seed, 100).await;
        machine.disk.begin(random(seed, "disk"), Faults { sync_fails: 1, ..Faults::default() });
        machine.write(publish("one")).await.unwrap();
        machine.kill();
        machine.open(random(seed, "open")).await.unwrap();
        machine.fail_power(&mut random(seed, "power"));
        machine.open(random(seed, "open")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_sync_that_fails_is_not_taken_for_damage_later() {
    for_seeds(RUNS, async |seed| {
        let mut machine = opened(seed, 100).await;
        // Only a channel without later events cannot know that it has lost nothing.
        machine.write(publish_to("b", "one")).await.unwrap();
        machine.disk.begin(random(seed, "disk"), Faults { sync_fails: 1, ..Faults::default() });
        machine.write(publish("two")).await.unwrap();
        machine.disk.begin(random(seed, "disk"), Faults::default());
        machine.write(publish("three")).await.unwrap();
        machine.fail_power(&mut random(seed, "power"));
        machine.open(random(seed, "open")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_power_failure_in_a_commit_is_not_taken_for_damage() {
    for_seeds(8 * RUNS, async |seed| {
        let mut machine = opened(seed, 100).await;
        // With some of these lengths, the mark of the first commit and the records of the second one
        // lie in different sectors.
        let first = "x".repeat(200 + 8 * (seed as usize % 40));
        machine.write(publish_to("b", &first)).await.unwrap();
        machine.disk.fail_after(1);
        machine.write(publish("two")).await.unwrap();
        machine.fail_power(&mut random(seed, "power"));
        machine.open(random(seed, "open")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_whose_name_was_not_durable_stays_after_the_next_start() {
    for_seeds(RUNS, async |seed| {
        let mut machine = opened(seed, 100).await;
        // Each publish fills a file, so that one of them begins a file whose name is not synced.
        machine.disk.begin(random(seed, "disk"), Faults { sync_fails: 3, ..Faults::default() });
        for number in 0..4 {
            machine.write(publish(&format!("{number} {}", "x".repeat(900)))).await.unwrap();
        }
        machine.stop();
        machine.open(random(seed, "open")).await.unwrap();
        machine.write(publish("acknowledged")).await.unwrap();
        machine.fail_power(&mut random(seed, "power"));
        machine.open(random(seed, "open")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_index_that_cannot_be_read_for_a_moment_costs_no_event() {
    for_seeds(RUNS, async |seed| {
        let mut machine = opened(seed, 10).await;
        for number in 0..10 {
            machine.write(publish(&format!("{number} {}", "x".repeat(200)))).await.unwrap();
        }
        machine.maintain();
        machine.disk.begin(random(seed, "disk"), Faults { read_fails: 2, ..Faults::default() });
        machine.write(publish("one more")).await.unwrap();
        machine.disk.begin(random(seed, "disk"), Faults::default());
        machine.check().await.unwrap();
    })
    .await;
}
