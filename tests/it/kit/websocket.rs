//! Drives third-party WebSocket clients through one interface. A program receives orders as lines,
//! a page receives them as scripts, and both report `["open", protocol]`, `["text", text]` and
//! `["closed", code, reason]`.

use crate::browsers::browser::Browser;
use crate::kit::PATIENCE;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The programs that run the clients. `tests/run` installs the files below `target/`.
const PYTHON: [&str; 2] = ["target/python/bin/python", "tests/it/kit/websocket_client.py"];
const NODE: [&str; 2] = ["node", "tests/it/kit/websocket_client.js"];
const NODE_PATH: &str = "target/node/node_modules";
const PAGE: &str = include_str!("websocket_page.js");

/// A client that can open WebSockets.
#[derive(Clone, Copy)]
pub enum Client<'a> {
    /// The Python package `websockets`.
    Python,
    /// The Node.js package `ws`.
    Node,
    /// A page in Chromium.
    Chromium(&'a Browser),
}

/// One WebSocket of a client. It closes when the value is dropped or, in Chromium, with its page.
pub struct Socket<'a>(Place<'a>);

enum Place<'a> {
    Program(Box<Program>),
    Page { browser: &'a Browser, number: Value, seen: usize },
}

/// A process that has one WebSocket.
struct Program {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl<'a> Client<'a> {
    /// Starts to open a WebSocket. Its first report says whether it is open.
    pub async fn open(self, address: SocketAddr, protocols: &[&str]) -> Socket<'a> {
        let url = format!("ws://{address}/ws");
        let [program, script] = match self {
            Self::Python => PYTHON,
            Self::Node => NODE,
            Self::Chromium(browser) => {
                let open = format!("{PAGE} return open({}, {});", json!(url), json!(protocols));
                let number = browser.run(&open).await;
                return Socket(Place::Page { browser, number, seen: 0 });
            }
        };
        let mut command = Command::new(program);
        command.arg(script).arg(url).args(protocols).env("NODE_PATH", NODE_PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{program} (run tests/run): {error}"));
        let input = child.stdin.take().expect("standard input is piped");
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let program = Program { input, output: output.lines(), _child: child };
        Socket(Place::Program(Box::new(program)))
    }

    /// Opens a WebSocket and checks that the origin selects the subprotocol `headwater`.
    pub async fn welcome(self, address: SocketAddr, protocols: &[&str]) -> Socket<'a> {
        let mut socket = self.open(address, protocols).await;
        assert_eq!(socket.report().await, json!(["open", "headwater"]));
        socket
    }
}

impl Socket<'_> {
    /// Sends a JSON frame as text.
    pub async fn say(&mut self, frame: Value) {
        self.order(&json!(["text", frame.to_string()])).await;
    }

    /// Sends an order to the client: `["text", text]`, `["binary", bytes]` or `["close"]`.
    pub async fn order(&mut self, order: &Value) {
        match &mut self.0 {
            Place::Program(program) => {
                let line = format!("{order}\n");
                program.input.write_all(line.as_bytes()).await.expect("the program reads");
            }
            Place::Page { browser, number, .. } => {
                browser.run(&format!("{PAGE} obey({number}, {order});")).await;
            }
        }
    }

    /// Returns the next report of the client.
    pub async fn report(&mut self) -> Value {
        let next = async {
            match &mut self.0 {
                Place::Program(program) => {
                    let line = program.output.next_line().await.expect("text");
                    serde_json::from_str(&line.expect("the program runs")).expect("a report")
                }
                Place::Page { browser, number, seen } => loop {
                    let ask = format!("return window.sockets[{number}].seen[{seen}];");
                    let report = browser.run(&ask).await;
                    if !report.is_null() {
                        *seen += 1;
                        return report;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                },
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a report comes")
    }

    /// Returns the next report, which must be a text frame, as JSON.
    pub async fn frame(&mut self) -> Value {
        let report = self.report().await;
        assert_eq!(report[0], "text", "{report}");
        serde_json::from_str(report[1].as_str().expect("a text")).expect("an object")
    }

    /// Returns the close code and reason of the next report, which must be `closed`.
    pub async fn closed(&mut self) -> (u64, String) {
        let report = self.report().await;
        assert_eq!(report[0], "closed", "{report}");
        let reason = report[2].as_str().expect("a reason").to_owned();
        (report[1].as_u64().expect("a code"), reason)
    }

    /// Returns the next frame, which must acknowledge the frame with this `ref`.
    pub async fn ack(&mut self, reference: impl Into<Value>) -> Value {
        let frame = self.frame().await;
        assert_eq!((&frame["type"], &frame["ref"]), (&json!("ack"), &reference.into()), "{frame}");
        frame
    }

    /// Returns the id and data of the next frame, which must be an event.
    pub async fn event(&mut self) -> (String, String) {
        let frame = self.frame().await;
        assert_eq!(frame["type"], "event", "{frame}");
        let text = |member: &str| frame[member].as_str().expect("a text").to_owned();
        (text("id"), text("data"))
    }
}
