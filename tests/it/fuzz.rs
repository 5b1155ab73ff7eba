//! Each fuzz target runs for a moment on its kept inputs, and a planted bug is found.

use std::process::{Command, Output};

/// How long each target runs after its kept inputs.
const SECONDS: &str = "1";
/// The longest search for the planted bug. It takes some seconds.
const SECONDS_WITH_PLANT: &str = "300";

fn fuzz(arguments: &[&str]) -> (Output, String) {
    let output = Command::new("tests/fuzz").args(arguments).output().expect("tests/fuzz runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn no_fuzz_target_finds_anything_and_a_planted_bug_is_found() {
    let (output, text) = fuzz(&["--seconds", SECONDS]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let (_, names) = fuzz(&["--list"]);
    assert!(names.lines().count() > 15, "{names}");
    for name in names.lines() {
        assert!(text.contains(&format!("{name}: found nothing;")), "{name}: {text}");
    }
    let (output, text) = fuzz(&["--planted", "--seconds", SECONDS_WITH_PLANT]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the planted bug was found"), "{text}");
}
