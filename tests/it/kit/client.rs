//! SSE libraries of other projects, each in a small program of `tests/clients` that prints every
//! message that the library delivers.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// `tests/run` installs the files below `target/`.
const NODE: &[&str] = &["node", "tests/clients/node.js"];
const PYTHON: &[&str] = &["target/python/bin/python", "tests/clients/python.py"];
const GO: &[&str] = &["target/clients/go"];
const JAVA: &[&str] =
    &["java", "-XX:TieredStopAtLevel=1", "-cp", "target/java/*", "tests/clients/java/Client.java"];
const NODE_PATH: &str = "target/node/node_modules";

/// A library with its name and version in docs/clients.md, and the program that uses it.
pub struct Library {
    pub name: &'static str,
    pub version: &'static str,
    command: &'static [&'static str],
    argument: &'static str,
    /// How many empty messages the library delivers when a connection is cut after a heartbeat.
    empties_at_a_cut: usize,
}

/// A library that delivers no empty message at a cut.
const fn library(
    name: &'static str,
    version: &'static str,
    command: &'static [&'static str],
    argument: &'static str,
) -> Library {
    Library { name, version, command, argument, empties_at_a_cut: 0 }
}

pub const LIBRARIES: [Library; 15] = [
    library("eventsource", "2.0.2", NODE, "eventsource2"),
    library("eventsource", "3.0.7", NODE, "eventsource3"),
    library("eventsource", "4.1.1", NODE, "eventsource4"),
    library("event-source-polyfill", "1.0.31", NODE, "event-source-polyfill"),
    library("reconnecting-eventsource", "1.6.5", NODE, "reconnecting-eventsource"),
    library("@microsoft/fetch-event-source", "2.0.1", NODE, "fetch-event-source"),
    library("undici", "7.30.2", NODE, "undici"),
    library("httpx-sse", "0.4.3", PYTHON, "httpx-sse"),
    library("requests-sse", "0.5.3", PYTHON, "requests-sse"),
    library("aiohttp-sse-client", "0.2.1", PYTHON, "aiohttp-sse-client"),
    library("launchdarkly/eventsource", "1.11.0", GO, "launchdarkly"),
    library("donovanhide/eventsource", "0.0.0-20210830082556", GO, "donovanhide"),
    library("tmaxmax/go-sse", "0.11.0", GO, "tmaxmax"),
    Library { empties_at_a_cut: 1, ..library("r3labs/sse/v2", "2.10.0", GO, "r3labs") },
    library("okhttp-eventsource", "4.1.1", JAVA, ""),
];

/// The id and the data of an event.
pub type Message = (String, String);

/// A program that follows one stream. It ends when the value is dropped.
pub struct Follower {
    library: &'static Library,
    messages: watch::Receiver<Vec<Message>>,
    stderr: JoinHandle<String>,
    child: Child,
}

impl Follower {
    pub fn start(library: &'static Library, url: &str) -> Self {
        let mut command = Command::new(library.command[0]);
        command.args(&library.command[1..]).env("NODE_PATH", NODE_PATH);
        command.args(Some(library.argument).filter(|argument| !argument.is_empty())).arg(url);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn();
        let name = library.name;
        let mut child = child.unwrap_or_else(|error| panic!("{name} (run tests/run): {error}"));
        let (send, messages) = watch::channel(Vec::new());
        tokio::spawn(collect(child.stdout.take().expect("standard output is piped"), send));
        let stderr = child.stderr.take().expect("standard error is piped");
        Self { library, messages, stderr: tokio::spawn(read(stderr)), child }
    }

    /// Waits until the library has delivered enough, or its program has ended.
    pub async fn until(&mut self, enough: impl Fn(&[Message]) -> bool) {
        // An error means that the program has ended.
        self.messages.wait_for(|messages| enough(messages)).await.ok();
    }

    /// Waits for the program to end by itself, and compares what its library delivered with the
    /// published events.
    pub async fn finish(mut self, patience: Duration, published: &[Message]) -> Outcome {
        let exit = tokio::time::timeout(patience, self.child.wait()).await;
        let exit = exit.ok().map(|exit| exit.expect("a child"));
        self.child.start_kill().ok();
        // The output ends with the program, possibly a moment later.
        self.messages.wait_for(|_| false).await.ok();
        let stderr = self.stderr.await.expect("standard error is read");
        let messages = self.messages.borrow();
        Outcome::of(self.library, &messages, published, exit, stderr)
    }
}

async fn collect(output: ChildStdout, messages: watch::Sender<Vec<Message>>) {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.expect("text") {
        let message: Value = serde_json::from_str(&line).expect("a line of JSON");
        let member = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        messages.send_modify(|messages| messages.push((member("id"), member("data"))));
    }
}

async fn read(mut output: ChildStderr) -> String {
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).await.expect("standard error");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The comparison of what a library delivered with what was published.
pub struct Outcome {
    library: &'static Library,
    got: usize,
    lost: usize,
    doubled: usize,
    empty: usize,
    /// Messages that are out of order or were never published.
    misplaced: usize,
    exit: Option<ExitStatus>,
    stderr: String,
}

impl Outcome {
    fn of(
        library: &'static Library,
        messages: &[Message],
        published: &[Message],
        exit: Option<ExitStatus>,
        stderr: String,
    ) -> Self {
        let place = |message: &Message| published.iter().position(|other| other == message);
        let (empty, full): (Vec<_>, Vec<_>) =
            messages.iter().partition(|(_, data)| data.is_empty());
        let places: Vec<Option<usize>> = full.into_iter().map(place).collect();
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        for place in places.iter().flatten() {
            *times.entry(*place).or_default() += 1;
        }
        Self {
            library,
            got: times.len(),
            lost: published.len() - times.len(),
            doubled: times.values().map(|times| times - 1).sum(),
            empty: empty.len(),
            misplaced: places.iter().filter(|place| place.is_none()).count()
                + places.windows(2).filter(|pair| pair[1] < pair[0]).count(),
            exit,
            stderr,
        }
    }

    /// Whether the library delivered everything once and in order while its connection was cut
    /// `cuts` times, and its program ended without an error.
    pub fn is_good(&self, cuts: usize) -> bool {
        let faults = self.lost + self.doubled + self.misplaced;
        let ended = self.exit.is_some_and(|exit| exit.success());
        ended && faults == 0 && self.empty <= cuts * self.library.empties_at_a_cut
    }

    /// The result together with the program's standard error.
    pub fn report(&self) -> String {
        format!("{self}\n{}", self.stderr)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { library, got, lost, doubled, empty, misplaced, exit, .. } = self;
        let exit = exit.map_or("still running".to_owned(), |exit| exit.to_string());
        write!(
            f,
            "{:30} {:20} got {got:3}, lost {lost}, doubled {doubled}, empty {empty}, misplaced \
             {misplaced}; {exit}",
            library.name, library.version
        )
    }
}
