//! The architecture, as a test: what each layer may not name, and how long things may get.

use std::path::{Path, PathBuf};

const CORE: [&str; 18] = [
    "caching.rs",
    "client_address.rs",
    "cursor.rs",
    "edge.rs",
    "event.rs",
    "event_json.rs",
    "event_log.rs",
    "frame/command.rs",
    "frame/mod.rs",
    "frame/text.rs",
    "join.rs",
    "ndjson.rs",
    "scope.rs",
    "segment.rs",
    "since.rs",
    "sse.rs",
    "token.rs",
    "config.rs",
];
const CORE_MAY_NOT_NAME: [&str; 8] =
    ["tokio::", "hyper::", "redb::", "fred::", "std::net::Tcp", "std::fs", "std::env", "Instant"];
const SPINE: [&str; 12] = [
    "access.rs",
    "alarms.rs",
    "channel.rs",
    "clients.rs",
    "clock.rs",
    "hub.rs",
    "live.rs",
    "metrics.rs",
    "rates.rs",
    "reader.rs",
    "wakers.rs",
    "store/",
];
/// A word, and the only places that may use it.
const ONLY_IN: [(&str, &[&str]); 11] = [
    ("governor", &["rates.rs", "http/websocket/"]),
    ("tungstenite", &["http/websocket/", "client/socket.rs"]),
    ("jsonwebtoken", &["token.rs"]),
    ("clap::", &["cli/", "main.rs"]),
    ("redb::", &["store/local/"]),
    ("fred::", &["store/redis/", "cli/serve.rs"]),
    ("SystemTime", &["clock.rs"]),
    ("StatusCode", &["http/", "client/", "cli/"]),
    ("TcpListener", &["listener.rs"]),
    ("println!", &["cli/"]),
    ("todo!", &[]),
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

fn sources(directory: &Path) -> Vec<(String, String)> {
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

/// The code above the unit tests, without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().expect("a beginning");
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn arrows_run_one_way() {
    let mut complaints = Vec::new();
    for (name, text) in sources(Path::new("src")) {
        let code = code(&text);
        if CORE.contains(&name.as_str()) {
            let named = CORE_MAY_NOT_NAME.iter().filter(|word| code.contains(**word));
            complaints.extend(named.map(|word| format!("{name}: core names {word}")));
            for spine in SPINE {
                let module =
                    format!("crate::{}::", spine.trim_end_matches(".rs").trim_end_matches('/'));
                // The configuration is made of what each part wants to know.
                let is_value = match name.as_str() {
                    "config.rs" => ["clients.rs", "rates.rs", "store/"].contains(&spine),
                    name => name == "join.rs" && spine == "store/",
                };
                if code.contains(&module) && !is_value {
                    complaints.push(format!("{name}: core names {module}"));
                }
            }
        }
        let is_spine = SPINE.iter().any(|spine| name == *spine || name.starts_with(spine));
        for edge in ["hyper::", "crate::http", "crate::cli::", "crate::server", "crate::body"] {
            if is_spine && code.contains(edge) {
                complaints.push(format!("{name}: the spine names {edge}"));
            }
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
