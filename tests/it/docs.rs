//! The documents agree with the program (every flag, every metric, every example), and their links
//! lead to existing files and headings.

mod migrating;
mod site;

use crate::kit::{BINARY, Origin};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The documents whose blocks marked `sh` have commands that work with `serve --demo`.
const EXAMPLES: [&str; 5] = [
    "README.md",
    "docs/getting-started.md",
    "docs/publishing.md",
    "docs/subscribing.md",
    "docs/state-and-history.md",
];

fn document(name: &str) -> String {
    std::fs::read_to_string(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The paths of README.md and examples/README.md, of CONTRIBUTING.md and SECURITY.md if they exist,
/// and of all documents below docs/.
fn documents() -> Vec<PathBuf> {
    let mut found = ["README.md", "examples/README.md"].map(PathBuf::from).to_vec();
    found.extend(
        ["CONTRIBUTING.md", "SECURITY.md"]
            .map(PathBuf::from)
            .into_iter()
            .filter(|path| path.exists()),
    );
    let mut open = vec![PathBuf::from("docs")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Words of `text` that begin with `prefix`.
fn words(text: &str, prefix: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let found = text.match_indices(prefix).map(|(at, _)| {
        let rest = &text[at..];
        rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())].to_owned()
    });
    found.collect()
}

#[test]
fn the_reference_has_every_flag_with_its_environment_name_and_default() {
    let name = "docs/reference/flags.md";
    let flags = document(name);
    let help = Command::new(BINARY).args(["serve", "--help"]).output().expect("it starts");
    let help = String::from_utf8(help.stdout).expect("text");
    let mut missing = Vec::new();
    for part in help.split("\n      --").skip(1) {
        let flag = format!("--{}", words(&format!("--{part}"), "--")[0].trim_start_matches("--"));
        let Some(variable) = words(part, "HEADWATER_").pop() else {
            assert_eq!(flag, "--help", "{flag} has no environment name");
            continue;
        };
        let flat = part.split_whitespace().collect::<Vec<_>>().join(" ");
        let default = flat.split("[default: ").nth(1).and_then(|rest| rest.split(']').next());
        let row = flags.lines().find(|line| line.starts_with(&format!("| `{flag}` |")));
        let is_listed = row.is_some_and(|row| {
            row.contains(&format!("`{variable}`"))
                && default
                    .is_none_or(|default| row.contains(&format!("`{default}`")) || default == "all")
        });
        if !is_listed {
            missing.push(format!("{flag} {variable} {default:?}"));
        }
    }
    assert!(help.contains("--segment-bytes"));
    assert!(missing.is_empty(), "{name} lacks:\n{}", missing.join("\n"));
    for row in flags.lines().filter(|line| line.starts_with("| `--")) {
        let flag = row.split('`').nth(1).expect("a flag");
        let is_known = help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n"));
        assert!(is_known, "{name} has {flag}, --help has not");
    }
}

/// Flags of curl, of cargo, of Python's web server, of caches, of tests/hunt, of tests/soak, of tests/fuzz, of benches/peers/run, and of the programs that
/// start containers and services.
const OTHER_FLAGS: [&str; 41] = [
    "--apart",
    "--control",
    "--tokens",
    "--system",
    "--cacert",
    "--fdname",
    "--pause-ms",
    "--check",
    "--ignore-missing",
    "--locked",
    "--remap-path-prefix",
    "--planted",
    "--data-urlencode",
    "--bind",
    "--example",
    "--from-file",
    "--no-deps",
    "--now",
    "--read-only",
    "--set",
    "--stop-timeout",
    "--wait",
    "--failed",
    "--data-binary",
    "--release",
    "--bench",
    "--lib",
    "--manifest-path",
    "--nocapture",
    "--help",
    "--snippets",
    "--version",
    "--include-headers",
    "--runs",
    "--seconds",
    "--seeds",
    "--minutes",
    "--from",
    "--only",
    "--rows",
    "--update",
];

#[test]
fn every_flag_in_the_documents_is_a_flag_of_ours() {
    let mut known = String::new();
    let commands = [
        "serve",
        "config",
        "reload",
        "channels",
        "stats",
        "publish",
        "token",
        "tail",
        "edge",
        "doctor",
        "check",
        "backup",
        "restore",
        "bench",
        "healthcheck",
    ];
    for command in commands {
        let sub: &[&str] = match command {
            "edge" => &["varnish", "squid", "nginx", "fastly"],
            "channels" => &["list", "show", "set", "delete"],
            _ => &[""],
        };
        for sub in sub.iter().filter(|sub| !sub.is_empty()).copied().chain(["--help"]) {
            let words = [command, sub, "--help"];
            let help = Command::new(BINARY).args(words).output().expect("it starts").stdout;
            known.push_str(&String::from_utf8(help).expect("text"));
        }
    }
    let mut unknown = Vec::new();
    for path in documents() {
        let name = path.display().to_string();
        for flag in words(&document(&name), "--") {
            let is_flag = flag.len() > 4 && flag.as_bytes()[2].is_ascii_lowercase();
            let is_known =
                known.contains(&format!("{flag} ")) || known.contains(&format!("{flag}\n"));
            if is_flag && !is_known && !OTHER_FLAGS.contains(&flag.as_str()) {
                unknown.push(format!("{name}: {flag}"));
            }
        }
    }
    assert!(known.contains("--max-ws-channels"));
    assert!(unknown.is_empty(), "there is no\n{}", unknown.join("\n"));
}

#[tokio::test]
async fn the_reference_has_every_metric() {
    let reference = document("docs/reference/metrics.md");
    let origin = Origin::start();
    let admin = format!("http://{}", origin.admin).parse().unwrap();
    let metrics =
        crate::kit::request(&admin, hyper::Method::GET, "/metrics", &[], Default::default()).await;
    let metrics = metrics.unwrap().body;
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<_> = names.map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.len() > 8);
    for name in names {
        assert!(
            reference.contains(&format!("`{name}`")),
            "docs/reference/metrics.md lacks the metric {name}"
        );
    }
    for path in documents() {
        let path = path.display().to_string();
        for name in words(&document(&path), "headwater_") {
            let known = metrics.contains(&format!("# TYPE {name} "));
            // The shipped nginx files have a location with this name.
            assert!(known || name == "headwater_outage", "{path} has {name}, /metrics has not");
        }
    }
}

/// The texts of the messages that `source` logs. A part that varies is `…`.
fn log_messages(source: &str) -> Vec<String> {
    let mut messages = Vec::new();
    for level in ["error", "warn", "info", "debug"] {
        for call in source.split(&format!("tracing::{level}!(")).skip(1) {
            // The call is a statement, or the value of an arm.
            let ends = [");", "),\n"].map(|end| call.find(end).unwrap_or(call.len()));
            let call = &call[..ends[0].min(ends[1])];
            let Some(text) = call.rsplit('"').nth(1) else { continue };
            // A line that ends with a backslash goes on without the spaces of the next one.
            let lines: Vec<_> = text.split("\\\n").map(str::trim_start).collect();
            let text = lines.concat();
            let mut message = String::new();
            for (index, part) in text.split(['{', '}']).enumerate() {
                message.push_str(if index % 2 == 0 { part } else { "…" });
            }
            messages.push(message);
        }
    }
    messages
}

#[test]
fn the_reference_has_every_log_message() {
    let reference = document("docs/reference/logs.md");
    let mut count = 0;
    let mut missing = Vec::new();
    for (name, source) in crate::tidy::sources(Path::new("src")) {
        for message in log_messages(&source) {
            count += 1;
            if message != "…" && !reference.contains(&format!("| `{message}` |")) {
                missing.push(format!("{name}: {message}"));
            }
        }
    }
    assert!(count > 40, "{count} messages");
    assert!(missing.is_empty(), "docs/reference/logs.md lacks\n{}", missing.join("\n"));
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let this = std::env::current_exe().expect("this program");
    let list = std::process::Command::new(this).arg("--list").output().expect("it runs");
    let list = String::from_utf8(list.stdout).expect("text");
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let mut unknown = Vec::new();
    for path in documents() {
        let text = document(&path.display().to_string());
        for (at, command) in text.match_indices("tests/run ") {
            let rest = &text[at + command.len()..];
            let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
            if !name.is_empty() && !list.contains(name) {
                unknown.push(format!("{}: tests/run {name}", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "no test has such a name:\n{}", unknown.join("\n"));
    // Tables of these documents name tests in their cells.
    for name in ["docs/reliability.md", "docs/redis.md", "tools/hunt/README.md"] {
        let text = document(name);
        let names: Vec<_> =
            text.split('`').skip(1).step_by(2).filter(|word| is_test(word)).collect();
        assert!(names.len() > 5, "{name}: {names:?}");
        let missing: Vec<_> = names.iter().filter(|word| !list.contains(**word)).collect();
        let missing: Vec<_> = missing.into_iter().filter(|word| !is_unit_test(word)).collect();
        assert!(missing.is_empty(), "{name} names tests that do not exist: {missing:?}");
    }
    for name in ["tests/durability", "tests/soak", "tests/upgrade"] {
        let text = document(name);
        let names: Vec<_> = text.split_whitespace().filter(|word| word.contains("::")).collect();
        assert!(!names.is_empty(), "{name} runs no test");
        let has_unit_test = |word: &str| word.rsplit("::").next().is_some_and(is_unit_test);
        let has_test = |word: &str| list.lines().any(|test| test.starts_with(word));
        let missing = |word: &&&str| !has_test(word) && !has_unit_test(word);
        let missing: Vec<_> = names.iter().filter(missing).collect();
        assert!(missing.is_empty(), "{name} runs tests that do not exist: {missing:?}");
    }
}

/// Whether a word of a document is the name of a test or of a module of tests.
fn is_test(word: &str) -> bool {
    let is_name =
        word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c));
    let is_metric = word.starts_with("headwater_") || word.starts_with("process_");
    is_name && !is_metric && (word.contains("::") || word.matches('_').count() > 3)
}

/// Whether the library has a unit test, or a file of unit tests, with this name.
fn is_unit_test(name: &str) -> bool {
    let is_file = Path::new("src").join(name.replace("::", "/")).with_extension("rs").exists();
    let has_it = |(_, source): &(String, String)| source.contains(&format!("fn {name}("));
    is_file || crate::tidy::sources(Path::new("src")).iter().any(has_it)
}

/// Runs each line of the blocks marked `sh` that uses curl or headwater against a demo. The
/// documents run at the same time, because many examples read a stream until they are stopped.
#[test]
fn the_examples_of_the_documents_work() {
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let running = EXAMPLES.map(|name| scope.spawn(move || run_examples(name)));
        running.into_iter().map(|one| one.join().expect("the examples work")).collect()
    });
    for (name, count) in EXAMPLES.iter().zip(&counts) {
        assert!(*count > 0, "{name} has no example");
    }
    assert!(counts[0] >= 6, "README.md has {} examples", counts[0]);
}

/// Runs the examples of one document in their order, and returns their number.
fn run_examples(name: &str) -> usize {
    let origin = Origin::with(&["--store", "memory", "--demo"]);
    let directory = Path::new(BINARY).parent().expect("a directory");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut count = 0;
    for block in document(name).split("```sh\n").skip(1) {
        let block = block.split("```").next().expect("an end");
        for line in
            block.lines().filter(|line| line.contains("curl") || line.starts_with("headwater"))
        {
            let line = line.replace("127.0.0.1:8080", &origin.listen.to_string());
            let line = line.replace("127.0.0.1:8081", &origin.admin.to_string());
            let mut command = Command::new("timeout");
            command.args(["4", "bash", "-c", &format!("set -o pipefail; {line}")]);
            command.env("PATH", &path).env("HEADWATER_URL", origin.address().to_string());
            let output = command.output().expect("timeout runs");
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            // 124: the command still read a stream when it was stopped.
            let is_good = matches!(output.status.code(), Some(0 | 124));
            assert!(is_good, "{name}: {line}\n{error}");
            assert!(!output.stdout.is_empty(), "{name}: {line} printed nothing\n{error}");
            count += 1;
        }
    }
    count
}

/// The lines of a document outside its code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors of a document's headings, as GitHub makes them: the text in small letters, without
/// punctuation, with hyphens for spaces. A repeated anchor gets a number.
fn anchors(text: &str) -> HashSet<String> {
    let mut counts = HashMap::<String, usize>::new();
    let mut found = HashSet::new();
    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        let Some(heading) = heading.strip_prefix(' ').filter(|_| line.starts_with('#')) else {
            continue;
        };
        let slug: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = counts.entry(slug.clone()).or_default();
        found.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

/// The targets of the links and images in a document.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let parts = line.split("](").skip(1);
        found.extend(parts.filter_map(|part| part.split_once(')')).map(|(to, _)| to.to_owned()));
    }
    found
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let (mut broken, mut count) = (Vec::new(), 0);
    for path in documents() {
        let text = document(&path.display().to_string());
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap_or(Path::new("")).join(file),
            };
            let is_good = match anchor {
                "" => target.exists(),
                anchor => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !is_good {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(count > 50, "{count} links");
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn anchors_are_those_of_github() {
    let text =
        "# One `two`, three\n```sh\n# no heading\n```\n## 8. Gaps\n## 8. Gaps\n#no heading\n";
    let expected = ["one-two-three", "8-gaps", "8-gaps-1"];
    assert_eq!(anchors(text), expected.map(str::to_owned).into());
    assert_eq!(links("[a](b.md#c), ![d](e.svg)\n```\n[f](g)\n```\n"), ["b.md#c", "e.svg"]);
}

/// The numbers of the sections of docs/protocol.md that say MUST.
fn sections_with_a_must() -> Vec<String> {
    let text = document("docs/protocol.md");
    let (mut sections, mut current) = (Vec::new(), None);
    for line in text.lines() {
        let number = line.split(". ").next().unwrap_or_default();
        let is_number = number.split_once('.').is_some_and(|(chapter, section)| {
            chapter.parse::<u8>().is_ok() && section.parse::<u8>().is_ok()
        });
        if is_number {
            current = Some(number.to_owned());
        } else if line.starts_with('#') {
            current = None;
        }
        let is_new = current.is_some() && sections.last() != current.as_ref();
        if line.contains("MUST") && is_new {
            sections.extend(current.clone());
        }
    }
    sections
}

#[test]
fn every_section_of_the_protocol_with_a_must_has_a_test() {
    let mut named = String::new();
    let mut open: Vec<std::path::PathBuf> = vec!["tests/it".into(), "src".into()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let lines =
                text.lines().filter(|line| line.trim_start().starts_with("// protocol \u{a7}"));
            named.extend(lines.map(|line| format!("{line},")));
        }
    }
    let sections = sections_with_a_must();
    assert!(sections.len() > 25, "{sections:?}");
    let is_named = |section: &&String| named.contains(&format!("\u{a7}{section},"));
    let missing: Vec<_> = sections.iter().filter(|section| !is_named(section)).collect();
    assert!(missing.is_empty(), "no test names {missing:?}");
}
