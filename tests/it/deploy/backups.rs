//! Backups by a timer: the commands of the systemd unit and of the CronJob, and a restore.

use super::{chart, run, said, texts};
use crate::kit::{BINARY, Origin};
use std::path::Path;

/// The copies that the unit keeps.
const KEPT: usize = 24;

/// The command of the unit, with the paths of a test.
fn command_of_the_unit(data: &str, backups: &str) -> Vec<String> {
    let unit = std::fs::read_to_string("deploy/systemd/headwater-backup.service").expect("a unit");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let place = |word: &str| match word {
        "/usr/bin/headwater" => BINARY.to_owned(),
        "/var/lib/headwater" => data.to_owned(),
        "/var/lib/headwater-backup" => backups.to_owned(),
        word => word.to_owned(),
    };
    command.split(' ').map(place).collect()
}

fn names(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn execute(words: &[String]) -> Result<String, String> {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    said(&run(words[0], &words[1..], ""))
}

#[tokio::test]
async fn what_the_timer_has_copied_is_restored_after_the_data_is_lost() {
    let places = tempfile::tempdir().expect("a directory");
    let [data, backups] = ["data", "backups"].map(|name| places.path().join(name));
    let [data, backups] = [&data, &backups].map(|path| path.display().to_string());
    let store = format!("disk:{data}");
    let mut origin = Origin::with(&["--store", &store, "--store-timeout", "20s"]);
    let mut published = Vec::new();
    for number in 0..300 {
        published.push((origin.publish("a", &number.to_string()).await, number.to_string()));
    }
    origin.publish_with("b", "key=k", "v").await;
    // As many copies as are kept, one that was not finished, and a directory that is no copy.
    let old: Vec<_> = (0..KEPT).map(|hour| format!("2020-01-01T{hour:02}-00-00Z")).collect();
    for name in old.iter().map(String::as_str).chain(["2020-01-02T00-00-00Z.unfinished", "notes"]) {
        std::fs::create_dir_all(Path::new(&backups).join(name)).expect("it is made");
    }
    let command = command_of_the_unit(&data, &backups);
    execute(&command).unwrap();
    let after = names(&backups);
    let newest = after[KEPT - 1].clone();
    assert_eq!(after[..KEPT - 1], old[1..], "the oldest is removed");
    assert!(newest > old[KEPT - 1] && after[KEPT..] == ["notes"], "{after:?}");

    // A backup that fails removes nothing.
    let missing = command_of_the_unit(&format!("{data}-missing"), &backups);
    execute(&missing).unwrap_err();
    let whole: Vec<_> =
        names(&backups).into_iter().filter(|name| !name.ends_with(".unfinished")).collect();
    assert_eq!(whole, after);

    origin.publish("a", "later").await;
    origin.kill();
    std::fs::remove_dir_all(&data).expect("the data is lost");
    let newest = format!("{backups}/{newest}");
    said(&run(BINARY, &["check", &newest], "")).unwrap();
    said(&run(BINARY, &["restore", &newest, &data], "")).unwrap();
    origin.start_again();
    assert_eq!(origin.log("a").await, published);
    assert_eq!(origin.get("/channels/b/state").await.json()["events"][0]["data"], "v");
    origin.publish("a", "new").await;
}

#[tokio::test]
async fn the_cronjob_copies_what_its_statefulset_stores() {
    let objects = chart::objects("disk");
    let job = objects.iter().find(|object| object["kind"] == "CronJob").expect("a CronJob");
    let places = tempfile::tempdir().expect("a directory");
    let path = |name: &str| places.path().join(name).display().to_string();
    // The image puts the name of the program before the arguments.
    let mut words = texts(job, "/spec/jobTemplate/spec/template/spec/containers/0/args");
    words.insert(0, BINARY.to_owned());
    let store = chart::environment(&objects, "HEADWATER_STORE").replace("/var", &path("var"));
    let origin = Origin::with(&["--store", &store]);
    origin.publish("a", "1").await;
    for word in &mut words[1..] {
        *word = word.replace("/var", &path("var"));
    }
    // The volume of the backups is there before the first one.
    std::fs::create_dir_all(path("var/backups/headwater")).expect("it is made");
    execute(&words).unwrap();
    let copies = names(&path("var/backups/headwater"));
    let copy = format!("{}/{}", path("var/backups/headwater"), copies[0]);
    assert!(said(&run(BINARY, &["check", &copy], "")).unwrap().starts_with("1 events"));
}
