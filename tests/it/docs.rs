//! The documents say what the program does: every flag, every metric, every example.

use crate::kit::{BINARY, Origin};
use std::process::Command;

fn document(name: &str) -> String {
    std::fs::read_to_string(name).unwrap_or_else(|error| panic!("{name}: {error}"))
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
fn the_readme_has_every_flag_with_its_environment_name_and_default() {
    let readme = document("README.md");
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
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{flag}` |")));
        let is_told = row.is_some_and(|row| {
            row.contains(&format!("`{variable}`"))
                && default
                    .is_none_or(|default| row.contains(&format!("`{default}`")) || default == "all")
        });
        if !is_told {
            missing.push(format!("{flag} {variable} {default:?}"));
        }
    }
    assert!(help.contains("--segment-bytes"));
    assert!(missing.is_empty(), "README.md lacks:\n{}", missing.join("\n"));
    for row in readme.lines().filter(|line| line.starts_with("| `--")) {
        let flag = row.split('`').nth(1).expect("a flag");
        assert!(help.contains(flag), "README.md has {flag}, --help has not");
    }
}

#[test]
fn every_flag_in_the_documents_is_a_flag_of_ours() {
    let mut known = String::new();
    for command in ["serve", "publish", "token", "tail", "edge", "doctor", "bench"] {
        let sub: &[&str] = match command {
            "edge" => &["varnish", "squid", "nginx", "fastly"],
            _ => &[""],
        };
        for sub in sub.iter().filter(|sub| !sub.is_empty()).copied().chain(["--help"]) {
            let words = [command, sub, "--help"];
            let help = Command::new(BINARY).args(words).output().expect("it starts").stdout;
            known.push_str(&String::from_utf8(help).expect("text"));
        }
    }
    // Those of curl, cargo and what stands in front.
    let others = [
        "--data-binary",
        "--release",
        "--bench",
        "--nocapture",
        "--help",
        "--snippets",
        "--include-headers",
    ];
    let mut unknown = Vec::new();
    for entry in std::fs::read_dir("docs").expect("a folder") {
        let name = entry.expect("an entry").path().display().to_string();
        if !name.ends_with(".md") {
            continue;
        }
        for flag in words(&document(&name), "--") {
            let is_flag = flag.len() > 4 && flag.as_bytes()[2].is_ascii_lowercase();
            let is_known =
                known.contains(&format!("{flag} ")) || known.contains(&format!("{flag}\n"));
            if is_flag && !is_known && !others.contains(&flag.as_str()) {
                unknown.push(format!("{name}: {flag}"));
            }
        }
    }
    assert!(known.contains("--max-ws-channels"));
    assert!(unknown.is_empty(), "there is no\n{}", unknown.join("\n"));
}

#[tokio::test]
async fn the_readme_has_every_metric() {
    let readme = document("README.md");
    let origin = Origin::start();
    let admin = format!("http://{}", origin.admin).parse().unwrap();
    let metrics =
        crate::kit::request(&admin, hyper::Method::GET, "/metrics", &[], Default::default()).await;
    let metrics = metrics.unwrap().body;
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<_> = names.map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.len() > 8);
    for name in names {
        assert!(readme.contains(&format!("`{name}")), "README.md lacks the metric {name}");
    }
    for name in words(&readme, "headwater_") {
        let known = metrics.contains(&format!("# TYPE {} ", name.trim_end_matches("_total")));
        assert!(known, "README.md has {name}, /metrics has not");
    }
}

/// Runs each line of the blocks marked `sh` that uses curl or headwater against a demo.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_readme_work() {
    let readme = document("README.md");
    let origin = Origin::with(&["--store", "memory", "--demo"]);
    let directory = std::path::Path::new(BINARY).parent().expect("a directory");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut count = 0;
    for block in readme.split("```sh\n").skip(1) {
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
            // 124: it was still streaming, as it should.
            assert!(matches!(output.status.code(), Some(0 | 124)), "{line}\n{error}");
            assert!(!output.stdout.is_empty(), "{line} printed nothing\n{error}");
            count += 1;
        }
    }
    assert!(count >= 6, "{count} examples");
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
