//! `tests/hunt` finds each bug that the feature `plants` inserts on purpose, and finds no bug in
//! the unchanged code.

use std::process::{Command, Output};

/// Seeds in which the product must break no promise.
const SEEDS: &str = "300";
/// Seeds within which a bug that is built in must be found.
const SEEDS_WITH_PLANT: &str = "1000";

fn hunt(arguments: &[&str]) -> (Output, String) {
    let output = Command::new("tests/hunt").args(arguments).output().expect("tests/hunt runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn each_bug_that_is_built_in_is_found_and_the_product_has_none() {
    let (output, text) = hunt(&["--seeds", SEEDS]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("found nothing; seeds: 300 of disk, 300 of world"), "{text}");

    let (output, plants) = hunt(&["--list-plants"]);
    assert!(output.status.success());
    let names: Vec<&str> = plants.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names.len(), 10, "{plants}");
    for name in names {
        let (output, text) = hunt(&["--plant", name, "--seeds", SEEDS_WITH_PLANT]);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.contains("the shortest history that still does"), "{name}: {text}");
    }

    let (output, _) = hunt(&["--plant", "no-such-bug"]);
    assert_eq!(output.status.code(), Some(2));
}
