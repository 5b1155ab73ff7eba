//! The log of `serve`.

use crate::kit::BINARY;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn every_line_of_a_json_log_is_an_object_with_a_level() {
    let mut origin = Command::new(BINARY)
        .args(["serve", "--store", "memory", "--log-format", "json"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(origin.stderr.take().expect("a pipe")).lines();
    let mut messages = Vec::new();
    for line in lines {
        let line = line.expect("text");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(message["level"].is_string() && message["timestamp"].is_string(), "{line}");
        // The listeners are announced in their order, and the one for operators is the last.
        if message["what"] == "metrics" {
            assert!(
                message["url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:"))
            );
            let kill = Command::new("kill").arg(origin.id().to_string()).status();
            assert!(kill.expect("kill runs").success());
        }
        messages.push(message["message"].as_str().expect("a message").to_owned());
    }
    assert!(origin.wait().expect("it ends").success());
    for wanted in ["serving", "draining", "stopped"] {
        assert!(messages.iter().any(|message| message == wanted), "{wanted}: {messages:?}");
    }
}
