//! What deploy/ has for containers, Kubernetes and timers. No container runs here: the parts run as
//! plain processes, and the tools of each format check its files.

pub mod backups;
pub mod chart;
pub mod compose;
pub mod image;
pub mod release;
pub mod together;

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a program with a text as its standard input.
fn run(program: &str, words: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program} (run tests/run): {error}"));
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Standard output and standard error of a program, as `Err` if it fails.
fn said(output: &Output) -> Result<String, String> {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Reads manifests by the library of the program that they are for (tests/manifests).
fn manifests(words: &[&str], input: &str) -> Result<Value, String> {
    let output = run("target/manifests/headwater-tests-manifests", words, input);
    said(&output)?;
    Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// A text of a JSON document, by the path to it.
fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    let value = document.pointer(pointer).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("there is no {pointer} in {document:#}"))
}

/// The texts of a list.
fn texts(document: &Value, pointer: &str) -> Vec<String> {
    let list = document.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|value| value.as_str().expect("text").to_owned()).collect()
}
