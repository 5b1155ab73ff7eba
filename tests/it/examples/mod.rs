//! Runs every file of `examples/` with the command of examples/README.md against an origin that is
//! killed and started again. Nothing may be lost or come twice.

mod pages;
mod postgres;
mod program;
mod publishers;
mod readers;
mod relay;
mod services;

use crate::kit::engine::Reserved;
use crate::kit::{Origin, PATIENCE};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const README: &str = "examples/README.md";
/// Most lines of an example without blank lines, comments and imports.
const LINES_MAX: usize = 40;
const SEGMENT_MS: u64 = 2000;
/// The beginning of the URL of a channel in the commands.
const CHANNELS: &str = "http://127.0.0.1:8080/channels/";

/// An origin whose store survives a kill, with short segments.
pub struct Durable {
    pub origin: Origin,
    _directory: TempDir,
}

impl Durable {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the store");
        let store = format!("disk:{}", directory.path().display());
        let segment = format!("{SEGMENT_MS}ms");
        let origin = Origin::with(&["--store", &store, "--segment", &segment]);
        Self { origin, _directory: directory }
    }

    /// Kills the process, waits for `during` while connections are refused, and starts it again.
    pub async fn outage<T>(&mut self, during: impl Future<Output = T>) {
        self.origin.kill();
        let addresses = [self.origin.listen, self.origin.admin];
        let ports = addresses.map(|address| Reserved::port(address.port()));
        during.await;
        self.origin.start_again();
        drop(ports);
    }

    /// Waits until the channel has `count` events without a type, and returns their data. Programs
    /// that are compiled first start slowly on a busy machine.
    pub async fn has(&self, channel: &str, count: usize) -> Vec<String> {
        let mut data = Vec::new();
        let has = async {
            while data.len() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
                data = self.data(channel).await;
            }
        };
        let in_time = tokio::time::timeout(3 * PATIENCE, has).await;
        assert!(in_time.is_ok(), "{channel} has {data:?}");
        data
    }

    /// The data of all events of the channel without a type.
    pub async fn data(&self, channel: &str) -> Vec<String> {
        self.origin.log(channel).await.into_iter().map(|(_, data)| data).collect()
    }
}

/// The command of an example in README.md.
fn command(file: &str) -> String {
    let readme = std::fs::read_to_string(README).expect("it exists");
    let row = readme.lines().find(|line| line.starts_with(&format!("| [{file}](")));
    let row = row.unwrap_or_else(|| panic!("{README} has no row for {file}"));
    row.split('`').nth_back(1).expect("a command").to_owned()
}

/// The command of an example, with this URL in the place of that of a channel.
fn command_with(file: &str, url: &str) -> String {
    let command = command(file);
    let (before, rest) = command.split_once(CHANNELS).expect("the URL of a channel");
    let end = rest.find(['\'', ' ']).unwrap_or(rest.len());
    let quote = if before.ends_with('\'') { "" } else { "'" };
    format!("{before}{quote}{url}{quote}{}", &rest[end..])
}

/// The paths of all files below `examples/`, without this prefix.
fn files() -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![Path::new("examples").to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let is_installed =
                path.ends_with("node_modules") || path.ends_with("package-lock.json");
            match path.is_dir() {
                _ if is_installed => {}
                true => open.push(path),
                false => found.push(path.strip_prefix("examples").unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// The number of lines that are not blank, no comment and no import.
fn lines_of_code(text: &str) -> usize {
    let mut closes_with = None;
    let count = text.lines().map(str::trim).filter(|line| {
        if let Some(end) = closes_with {
            closes_with = closes_with.filter(|_| !line.ends_with(end));
            return false;
        }
        let opens = [("\"\"\"", "\"\"\""), ("<!--", "-->"), ("import (", ")")];
        if let Some((start, end)) = opens.into_iter().find(|(start, _)| line.starts_with(start)) {
            closes_with = Some(end).filter(|end| line.len() == start.len() || !line.ends_with(end));
            return false;
        }
        let skipped = ["//", "#", "-- ", "import ", "from ", "use "];
        !line.is_empty() && !skipped.iter().any(|start| line.starts_with(start))
    });
    count.count()
}

#[test]
fn every_example_is_executed_and_short() {
    let tests: String = crate::tidy::sources(Path::new("tests/it/examples"))
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let files = files();
    assert!(files.len() > 16, "{files:?}");
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| *file != "README.md") {
        let text = std::fs::read_to_string(format!("examples/{file}")).expect("text");
        let count = lines_of_code(&text);
        if count > LINES_MAX {
            complaints.push(format!("{file} has {count} lines of code"));
        }
        // A folder is one example, which is executed with all of its files.
        let example = file.split('/').next().expect("a name");
        if !tests.contains(&format!("\"{example}\"")) {
            complaints.push(format!("no test of tests/it/examples executes {file}"));
        }
        command(example);
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn lines_of_code_are_counted_in_each_language() {
    assert_eq!(
        lines_of_code("\"\"\"Head\n\nhead.\"\"\"\n\nimport a\nfrom b import c\n\nx = 1\n# y\n"),
        1
    );
    assert_eq!(
        lines_of_code("// Head\npackage main\n\nimport (\n\t\"fmt\"\n)\n\nfunc a() {\n}\n"),
        3
    );
    assert_eq!(lines_of_code("<!doctype html>\n<!-- a\n b -->\n<p>\n<!-- c -->\n"), 2);
    assert_eq!(lines_of_code("-- a\nSELECT 1;\n"), 1);
}
