//! `headwater check`, `backup` and `restore`, against logs that are in use, closed or damaged.

use crate::kit::{BINARY, Origin, next_message};
use std::path::Path;
use std::process::{Command, Output};

fn headwater(words: &[&str]) -> (Output, String) {
    let output = Command::new(BINARY).args(words).output().expect("it starts");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8_lossy(&said).into_owned())
}

fn disk(path: &Path) -> String {
    format!("disk:{}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_it() {
    let places = tempfile::tempdir().unwrap();
    let [data, backup, again] =
        ["data", "backup", "again"].map(|name| places.path().join(name).display().to_string());
    let origin = Origin::with(&["--store", &format!("disk:{data}"), "--store-timeout", "20s"]);
    let padding = "x".repeat(9_000);
    let mut ids = Vec::new();
    for n in 0..2_500 {
        ids.push(origin.publish("a", &format!("{n} {padding}")).await);
    }
    origin.publish_with("state", "key=k", "v").await;
    let before = ids.len();
    let copied = async {
        let words = [data.clone(), backup.clone()];
        let copy = move || headwater(&["backup", &words[0], &words[1]]);
        tokio::task::spawn_blocking(copy).await.unwrap()
    };
    let published = async {
        for n in 0..300 {
            ids.push(origin.publish("a", &format!("during {n} {padding}")).await);
        }
    };
    let ((output, said), ()) = tokio::join!(copied, published);
    assert!(output.status.success() && said.contains("2 channels"), "{said}");
    let (output, said) = headwater(&["backup", &data, &backup]);
    assert!(!output.status.success() && said.contains("is not empty"), "{said}");
    let (output, said) = headwater(&["check", &data]);
    assert!(!output.status.success() && said.contains("another process"), "{said}");
    let (output, said) = headwater(&["check", &backup]);
    assert!(output.status.success() && said.contains("events of 2 channels"), "{said}");
    // An origin that serves the copy has the log of that moment, without a gap.
    {
        let copy = Origin::with(&["--store", &format!("disk:{backup}")]);
        let log: Vec<_> = copy.log("a").await.into_iter().map(|(id, _)| id).collect();
        assert!(log.len() >= before && ids.starts_with(&log), "{} of {before}", log.len());
        assert_eq!(copy.get("/channels/state/state").await.json()["events"][0]["data"], "v");
    }
    // After a restore, clients receive a gap event for the events that came after the backup.
    let (output, said) = headwater(&["restore", &backup, &again]);
    assert!(output.status.success(), "{said}");
    let restored = Origin::with(&["--store", &format!("disk:{again}")]);
    restored.publish("a", "new").await;
    for cursor in [&ids[0], &ids[ids.len() - 1]] {
        let mut source = restored.source("/channels/a", Some(cursor));
        loop {
            let message = next_message(&mut source).await;
            assert_ne!(message.data, "new", "there is a gap before it");
            if message.kind == "gap" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_check_names_what_is_damaged() {
    let data = tempfile::tempdir().unwrap();
    let place = data.path().display().to_string();
    let (output, said) = headwater(&["check", &place]);
    assert!(!output.status.success() && said.contains("there is no log here"), "{said}");
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    for n in 0..5 {
        origin.publish("a", &format!("event {n}")).await;
    }
    origin.kill();
    let (output, said) = headwater(&["check", &place]);
    assert!(output.status.success() && said.starts_with("5 events of 1 channels"), "{said}");
    let file = data.path().join("0000000001-0000000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|window| window == b"event 2").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let (output, said) = headwater(&["check", &place]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("DAMAGED: 0000000001-0000000001.log: bytes"), "{said}");
    // A damaged copy replaces no older one.
    let copies = tempfile::tempdir().unwrap();
    let older = copies.path().join("2026-11-26T00-00-00Z");
    std::fs::create_dir(&older).unwrap();
    let to = copies.path().display().to_string();
    let (output, said) = headwater(&["backup", &place, &to, "--keep", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("DAMAGED: 0000000001-0000000001.log: bytes"), "{said}");
    assert!(older.exists() && std::fs::read_dir(copies.path()).unwrap().count() == 2);
    bytes.truncate(at);
    std::fs::write(&file, &bytes).unwrap();
    let (output, said) = headwater(&["check", &place]);
    assert!(!output.status.success() && said.contains("its end is missing"), "{said}");
}
