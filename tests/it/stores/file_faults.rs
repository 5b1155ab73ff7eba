//! Files and directories of the log that are missing, moved or damaged as a whole. What is left is
//! served, what is lost is announced to its readers and named in the log.

use crate::kit::{Origin, next_message};
use crate::stores::faults::{disk, errors, log_files};
use std::ops::RangeFrom;
use std::path::Path;

/// Damage that is found at the start stops no publish.
const UP: (&str, RangeFrom<f64>) = ("headwater_store_up", 1.0..);

/// Publishes events until the log has several files, and stops the origin.
async fn several_files(origin: &mut Origin, data: &Path) -> Vec<String> {
    let padding = "x".repeat(1_000_000);
    let mut ids = Vec::new();
    while log_files(data).len() < 3 {
        ids.push(origin.publish("a", &padding).await);
    }
    ids.push(origin.publish("a", "last").await);
    origin.kill();
    ids
}

/// Checks that a client that had `cursor` gets a gap, and after it `next`.
async fn announces(origin: &Origin, cursor: &str, next: &str) {
    let mut source = origin.source("/channels/a", Some(cursor));
    let gap = next_message(&mut source).await;
    assert_eq!(gap.kind, "gap", "{}", gap.data);
    assert_eq!(next_message(&mut source).await.last_event_id, next);
}

#[tokio::test]
async fn a_file_in_the_middle_of_the_log_that_is_missing() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    let ids = several_files(&mut origin, data.path()).await;
    let files = log_files(data.path());
    std::fs::remove_file(&files[1]).unwrap();
    origin.start_again();
    origin.shows(Ok(()), "files of the log are missing from=2 to=2", UP).await;
    let left: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    let first_lost = ids.iter().position(|id| !left.contains(id)).expect("events are lost");
    let after = ids[first_lost..].iter().find(|id| left.contains(id)).expect("the last file");
    announces(&origin, &ids[first_lost - 1], after).await;
    origin.publish("a", "and it goes on").await;
}

#[tokio::test]
async fn the_end_of_a_file_that_is_missing() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(origin.publish("a", &format!("event {n}")).await);
    }
    origin.kill();
    let file = log_files(data.path()).pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|window| window == b"event 6").unwrap();
    std::fs::write(&file, &bytes[..at]).unwrap();
    origin.start_again();
    origin.shows(Ok(()), "the end of a file of the log is missing", UP).await;
    let after = origin.publish("a", "after").await;
    announces(&origin, &ids[5], &after).await;
}

#[tokio::test]
async fn a_log_without_any_file() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    let id = origin.publish("a", "lost").await;
    origin.kill();
    log_files(data.path()).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    origin.start_again();
    origin.shows(Ok(()), "the files of the log are gone, and their events", UP).await;
    let after = origin.publish("a", "after").await;
    announces(&origin, &id, &after).await;
}

#[tokio::test]
async fn an_index_that_is_damaged_costs_no_event() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    let ids = several_files(&mut origin, data.path()).await;
    let index = log_files(data.path())[0].with_extension("index");
    let length = std::fs::read(&index).expect("a file that is complete has an index").len();
    // First it is damaged before the start, then while the origin runs.
    for is_running in [false, true] {
        if is_running {
            origin.start_again();
        }
        std::fs::write(&index, vec![0x55; length]).unwrap();
        if !is_running {
            origin.start_again();
        }
        let left: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, ids);
        origin.becomes(200).await;
        if !is_running {
            origin.signal("TERM");
            assert!(origin.ended().await.success());
        }
    }
    origin.shows(Ok(()), "an index is damaged", (&*errors("index"), 1.0..)).await;
    assert_eq!(origin.metric(&errors("damaged")).await, 0.0, "no event is damaged");
}

#[tokio::test]
async fn a_data_directory_that_is_moved_away_and_returns() {
    let places = tempfile::tempdir().unwrap();
    let [path, aside] = ["data", "aside"].map(|name| places.path().join(name));
    let mut origin = Origin::with(&["--store", &disk(&path)]);
    let mut ids = vec![origin.publish("a", "kept").await];
    std::fs::rename(&path, &aside).unwrap();
    let write = errors("write");
    origin.shows(Err("the data directory is gone"), "directory is gone", (&write, 1.0..)).await;
    origin.post("/channels/a", &[], "refused").await.assert_problem(503, "store-down");
    std::fs::rename(&aside, &path).unwrap();
    origin.shows(Ok(()), "the log can be written again", UP).await;
    ids.push(origin.publish("a", "after").await);
    // The events are in the directory that has returned.
    origin.kill();
    origin.start_again();
    let left: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, ids);
    // With another directory, the origin works after a restart only.
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    origin.becomes(503).await;
    origin.kill();
    origin.start_again();
    origin.becomes(200).await;
    origin.publish("a", "in the new directory").await;
}

#[tokio::test]
async fn a_full_store_says_when_it_has_room_again() {
    let flags = ["--store", "memory", "--retain-events", "100", "--max-store-bytes", "20000"];
    let origin = Origin::with(&flags);
    let data = "x".repeat(100);
    let fill = async |channel: &str| loop {
        let answer = origin.post(&format!("/channels/{channel}"), &[], &data).await;
        if answer.status != 201 {
            answer.assert_problem(507, "limit-reached");
            break;
        }
    };
    for _ in 0..100 {
        origin.publish("a", &data).await;
    }
    fill("b").await;
    let fill_ratio = "headwater_store_fill_ratio";
    origin.shows(Ok(()), "the store is almost full", (fill_ratio, 0.95..=1.0)).await;
    for _ in 0..100 {
        origin.publish("a", "x").await;
    }
    origin.shows(Ok(()), "the store has room again", (fill_ratio, 0.0..0.9)).await;
    origin.publish("b", &data).await;
}
