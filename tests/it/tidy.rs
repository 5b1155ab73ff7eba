//! Checks the architecture: the imports that each folder may have, the words that it must not
//! contain (such as `tokio::` in `core`), and the length of files and functions.

use std::path::{Path, PathBuf};

/// Each folder of `src/`, and the folders that its files may import. A folder stands below all that
/// may import it, so there is no cycle. Files that lie in `src/` itself are folders of their own here.
const FOLDERS: [(&str, &[&str]); 18] = [
    ("core", &[]),
    ("sync", &[]),
    ("pem", &[]),
    ("access", &["core", "sync"]),
    ("limits", &["core", "sync"]),
    ("store", &["core", "sync", "pem"]),
    ("telemetry", &["core", "store"]),
    ("hub", &["core", "sync", "limits", "store", "telemetry"]),
    ("http", &["core", "sync", "access", "limits", "store", "telemetry", "hub"]),
    ("fanout", &["core", "hub"]),
    ("server", &["core", "sync", "pem", "limits", "telemetry", "hub", "http", "fanout"]),
    ("demo", &["core", "sync", "store", "hub", "http"]),
    ("client", &[]),
    (
        "origin",
        &[
            "core",
            "sync",
            "access",
            "limits",
            "store",
            "telemetry",
            "hub",
            "http",
            "fanout",
            "server",
            "demo",
            "client",
        ],
    ),
    ("edge_config", &["core", "access", "limits"]),
    (
        "cli",
        &[
            "core",
            "sync",
            "access",
            "limits",
            "store",
            "telemetry",
            "hub",
            "http",
            "server",
            "demo",
            "origin",
            "edge_config",
            "client",
        ],
    ),
    ("main.rs", &["cli"]),
    ("lib.rs", &["origin", "client", "core", "server"]),
];
/// What each folder may not name: I/O and time belong to the edges.
const MAY_NOT_NAME: [(&str, &[&str]); 6] = [
    ("core", &["tokio::", "hyper::", "fred::", "std::net::Tcp", "std::fs", "std::env", "Instant"]),
    ("access", &["tokio::net", "hyper::", "fred::", "std::net::Tcp", "std::env"]),
    ("limits", &["tokio::net", "hyper::", "fred::", "std::net::Tcp", "std::fs", "std::env"]),
    ("store", &["tokio::net", "hyper::", "std::env"]),
    ("fanout", &["tokio::net", "hyper::", "fred::", "std::fs", "std::env"]),
    ("hub", &["tokio::net", "hyper::", "fred::", "std::net::Tcp", "std::fs", "std::env"]),
];
/// A word, and the only places that may use it.
const ONLY_IN: [(&str, &[&str]); 11] = [
    ("mio::", &["fanout/"]),
    ("governor", &["limits/rates.rs", "http/websocket/"]),
    ("tungstenite", &["http/websocket/", "client/socket.rs"]),
    ("jsonwebtoken", &["access/token.rs"]),
    ("clap::", &["cli/", "main.rs"]),
    ("fred::", &["store/redis/", "cli/serve.rs"]),
    ("SystemTime", &["sync/clock.rs"]),
    ("StatusCode", &["http/", "client/", "cli/"]),
    ("TcpListener", &["server/listener.rs"]),
    ("println!", &["cli/"]),
    ("todo!", &[]),
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

pub fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(directory).expect("below").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(found.len() > 5);
    found
}

/// The code above the unit tests, without comments; nothing of a file of unit tests.
fn code(text: &str) -> String {
    let code = text.split("[cfg(test)]").next().expect("a beginning");
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The folder that a file of `src/` belongs to.
fn folder(name: &str) -> &str {
    name.split_once('/').map_or(name, |(folder, _)| folder)
}

/// The folders that a text names in `crate::` paths, which must be written one by one.
fn imports(code: &str) -> impl Iterator<Item = &str> {
    let of = |rest: &'_ str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    code.split("crate::").skip(1).map(move |rest| &rest[..of(rest).unwrap_or(rest.len())])
}

#[test]
fn every_file_imports_only_what_its_folder_may() {
    let mut complaints = Vec::new();
    for (name, text) in sources(Path::new("src")) {
        let code = code(&text);
        let own = folder(&name);
        let Some((_, may_import)) = FOLDERS.iter().find(|(folder, _)| *folder == own) else {
            complaints.push(format!("{name}: the table has no folder {own}"));
            continue;
        };
        for imported in imports(&code).filter(|imported| *imported != own) {
            if !may_import.contains(&imported) {
                complaints.push(format!("{name}: {own} may not import {imported:?}"));
            }
        }
        for (_, words) in MAY_NOT_NAME.iter().filter(|(folder, _)| *folder == own) {
            let named = words.iter().filter(|word| code.contains(**word));
            complaints.extend(named.map(|word| format!("{name}: {own} may not name {word}")));
        }
        for (word, places) in ONLY_IN {
            let is_allowed = places.iter().any(|place| name == *place || name.starts_with(place));
            if code.contains(word) && !is_allowed {
                complaints.push(format!("{name}: {word} belongs in {places:?}"));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_folder_imports_one_above_it() {
    for (index, (folder, may_import)) in FOLDERS.iter().enumerate() {
        let below: Vec<&str> = FOLDERS[..index].iter().map(|(folder, _)| *folder).collect();
        for imported in *may_import {
            let stands_below = below.contains(imported) || *folder == "lib.rs";
            assert!(stands_below, "{folder} imports {imported}, which stands above it");
        }
    }
}

/// Names of types and functions that were replaced by the words of the field.
const BANNED_NAMES: [&str; 29] = [
    "Alarm",
    "Alarms",
    "has_rung",
    "Wakers",
    "Waitable",
    "Live",
    "Asked",
    "Beginning",
    "Standing",
    "Flooding",
    "Crowded",
    "Entered",
    "Demands",
    "Refusal",
    "Welcome",
    "Goodbye",
    "greet",
    "hear",
    "obey",
    "pass_over",
    "Paced",
    "Said",
    "Link",
    "Slot",
    "Diary",
    "Saw",
    "Examination",
    "BrokenOff",
    "hold_timeout",
];
/// The names of enum variants on disk, which never change.
const NAMES_ON_DISK: &str = "src/store/local/";
/// Phrases that readers had to decode, in comments, documents and messages.
const BANNED_PHRASES: [&str; 22] = [
    "is told",
    "are told",
    "was told",
    "is sent away",
    "are sent away",
    "were sent away",
    "is let go",
    "lets go of",
    "broke off",
    "broken off",
    "recent run",
    "its own making",
    "comes afresh",
    ". Who ",
    "// Who ",
    "/// Who ",
    "//! Who ",
    "Whoever ",
    ". What is wrong with it",
    "hold request",
    "hold answer",
    "the crowd",
];
/// Endings of the files that people read.
const READ_BY_PEOPLE: [&str; 7] = [".rs", ".md", ".vcl", ".conf", ".lua", ".tf", ".toml"];

/// The files that people read, with their texts.
fn texts() -> Vec<(String, String)> {
    let mut open: Vec<PathBuf> =
        ["src", "docs", "vcl", "nginx", "deploy", "tests/it", "tools"].map(PathBuf::from).to_vec();
    open.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from));
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a directory");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else {
            let name = path.display().to_string();
            if READ_BY_PEOPLE.iter().any(|ending| name.ends_with(ending)) {
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found
}

#[test]
fn no_text_has_a_word_or_phrase_that_was_replaced() {
    let mut complaints = Vec::new();
    for (name, text) in texts().iter().filter(|(name, _)| !name.ends_with("tidy.rs")) {
        for (number, line) in text.lines().enumerate() {
            let phrases = BANNED_PHRASES.iter().filter(|phrase| line.contains(**phrase));
            complaints.extend(phrases.map(|phrase| format!("{name}:{}: {phrase:?}", number + 1)));
            let is_ours = name.starts_with("src/") && !name.starts_with(NAMES_ON_DISK);
            let is_code = name.ends_with(".rs") && !line.trim_start().starts_with("//");
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names = words.filter(|word| is_ours && is_code && BANNED_NAMES.contains(word));
            complaints.extend(names.map(|word| format!("{name}:{}: {word}", number + 1)));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn files_say_why_they_exist_and_stay_short() {
    let mut complaints = Vec::new();
    for directory in ["src", "tests/it", "benches"] {
        for (name, text) in sources_if_any(directory) {
            if !text.starts_with("//!") {
                complaints.push(format!("{directory}/{name} does not say why it exists"));
            }
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                complaints.push(format!("{directory}/{name} has {lines} lines"));
            }
            complaints.extend(long_functions(&text).map(|line| {
                format!(
                    "{directory}/{name}:{line}: a function of more than {FUNCTION_LINES_MAX} lines"
                )
            }));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn sources_if_any(directory: &str) -> Vec<(String, String)> {
    let path = Path::new(directory);
    match std::fs::read_dir(path).map(|entries| entries.count()) {
        Ok(count) if count > 5 => sources(path),
        _ => Vec::new(),
    }
}

/// Lines at which a function begins that is too long, by rustfmt's indentation.
fn long_functions(text: &str) -> impl Iterator<Item = usize> {
    let lines: Vec<&str> = text.lines().collect();
    let is_code = |line: &str| !line.trim_start().starts_with("//") && !line.contains("fn $");
    // One that a trait only asks for has no body.
    let begins = |line: &str| line.contains("fn ") && is_code(line) && !line.ends_with(';');
    let long = (0..lines.len()).filter(|index| begins(lines[*index])).filter_map(|index| {
        let indent = lines[index].len() - lines[index].trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[index..].iter().position(|line| *line == end)?;
        (length > FUNCTION_LINES_MAX).then_some(index + 1)
    });
    long.collect::<Vec<_>>().into_iter()
}
