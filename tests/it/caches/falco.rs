//! The Fastly files under falco, the linter and simulator that users of Fastly have.
//!
//! falco checks the single file that `headwater edge fastly` prints, because falco 1.13 loses the
//! scope of a subroutine behind an `include`. The crate in `tools/fastly_vcl` checks what falco
//! cannot run.

use crate::kit::edge::edge;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The falco program; `tests/run` builds it.
const FALCO: &str = "target/falco/falco";
const DIRECTORY: &str = "vcl/fastly";

/// The snippets that have tests: all but init.vcl, which has settings only.
fn snippets() -> Vec<String> {
    let entries = std::fs::read_dir(DIRECTORY).expect("vcl/fastly is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut found: Vec<String> = names
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".vcl")?.to_owned()))
        .filter(|name| !name.contains('.') && !["main", "init"].contains(&name.as_str()))
        .collect();
    found.sort();
    assert!(found.len() > 8, "{found:?}");
    found
}

/// Writes the whole VCL, and the tests of these snippets below it.
pub fn prepare(directory: &Path, snippets: &[String]) {
    let whole = edge(&["fastly", "--origin", "origin.example.com:443"]);
    std::fs::write(directory.join("whole.vcl"), whole).expect("it is written");
    let tests = directory.join("tests");
    std::fs::create_dir(&tests).expect("it is made");
    for snippet in snippets {
        let name = format!("{snippet}.test.vcl");
        std::fs::copy(Path::new(DIRECTORY).join(&name), tests.join(&name)).expect("it is there");
    }
}

/// Runs falco, and returns its output as JSON.
pub fn falco(directory: &Path, words: &[&str]) -> Value {
    let program = std::env::current_dir().expect("a directory").join(FALCO);
    let output = Command::new(&program).args(words).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("{FALCO} (run tests/run): {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn falco_has_no_complaint_about_the_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    prepare(directory.path(), &snippets());
    let report = falco(directory.path(), &["lint", "-json", "whole.vcl"]);
    assert_eq!((&report["Errors"], &report["Warnings"]), (&0.into(), &0.into()), "{report:#}");
    // falco has read the file: it always makes a few remarks about expressions.
    assert!(report["Infos"].as_u64() > Some(5), "{report:#}");
    // falco also reports an error that is planted.
    let file = directory.path().join("whole.vcl");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let broken = text.replacen("set beresp.do_stream = true;", "set beresp.do_stream = 1s;", 1);
    assert_ne!(text, broken);
    std::fs::write(&file, broken).expect("it is written");
    let report = falco(directory.path(), &["lint", "-json", "whole.vcl"]);
    assert_eq!(report["Errors"], 1, "{report:#}");
}

#[test]
fn falco_finds_every_promise_of_the_snippets_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    prepare(directory.path(), &snippets());
    let report = falco(directory.path(), &["test", "-I", "tests", "-json", "whole.vcl"]);
    let files = report["tests"].as_array().expect("files");
    for snippet in snippets() {
        let name = format!("/{snippet}.test.vcl");
        let of_it = |file: &&Value| file["file"].as_str().is_some_and(|file| file.ends_with(&name));
        let file = files.iter().find(of_it).unwrap_or_else(|| panic!("{name} did not run"));
        let suites = file["suites"].as_array().expect("suites");
        let text = std::fs::read_to_string(directory.path().join(format!("tests{name}")));
        let written = text.expect("it is there").matches("// @suite:").count();
        assert_eq!(suites.len(), written, "{name}");
        for suite in suites {
            let fault = suite["error"].as_str().unwrap_or_default();
            assert!(fault.is_empty(), "{name}: {}: {fault}", suite["name"]);
        }
    }
    assert_eq!(report["summary"]["fails"], 0, "{report:#}");
}
