//! Runs the WebSocket codec against the Autobahn fuzzing client, the protocol's conformance suite.
//!
//! The suite needs an echo server, which `/ws` is not. A small server here echoes over the
//! product's own connection type, and it reports errors and closes as the product does. The cases
//! 12.* and 13.* are left out: they test `permessage-deflate`, which Headwater does not support.

use crate::kit::quiet;
use futures_util::SinkExt;
use headwater::http::WebSocketLimits;
use headwater::http::websocket::{Wire, close, failed, wire};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

/// The program of the suite; `tests/run` installs it.
const WSTEST: &str = "target/python2/bin/wstest";
/// The number of cases in 1.* to 10.*.
const CASES: usize = 301;
/// The time limit for all cases together.
const PATIENCE: Duration = Duration::from_secs(300);
const MOST: NonZeroU32 = NonZeroU32::MAX;

/// The product's limits, raised where the suite exceeds the defaults: it sends 16 MiB at once.
const LIMITS: WebSocketLimits = WebSocketLimits {
    ping: Duration::from_secs(20),
    message_bytes: 16 * 1024 * 1024,
    frames_per_second: MOST,
    bytes_per_second: MOST,
    channels: 1,
};

/// Starts the echo server. It listens until the returned tasks are dropped.
async fn start_echo() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            connections.spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                let connection =
                    builder.serve_connection(TokioIo::new(stream), service_fn(handshake));
                connection.with_upgrades().await.ok();
            });
        }
    });
    (address, tasks)
}

async fn handshake(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(answer) = create_response_with_body(&request, Full::default) else {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return Ok(answer);
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            echo(wire(upgraded, &LIMITS, None).await).await;
        }
    });
    Ok(answer)
}

/// Handles errors and closes as `Session` does, but echoes every message.
async fn echo(mut wire: Wire) {
    while let Some(message) = wire.next().await {
        let said = match message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => wire.send(message).await,
            Ok(_) => wire.flush().await,
            Err(error) => {
                if let Some(close_reason) = failed(&error, &LIMITS) {
                    close(&mut wire, close_reason).await;
                }
                return;
            }
        };
        if said.is_err() {
            return;
        }
    }
}

/// Runs the cases. Returns the behavior and the closing of each case.
async fn run_cases(url: &str, directory: &Path) -> BTreeMap<String, [String; 2]> {
    let spec = json!({
        "outdir": directory,
        "servers": [{ "agent": "headwater", "url": url }],
        "cases": ["*"],
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let file = directory.join("spec.json");
    std::fs::write(&file, spec.to_string()).expect("it is written");
    let mut command = Command::new(WSTEST);
    command.args(["-m", "fuzzingclient", "-s"]).arg(&file).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends in time");
    let output = output.unwrap_or_else(|error| panic!("{WSTEST} (run tests/run): {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let index = std::fs::read_to_string(directory.join("index.json")).expect("a report");
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let found = index["headwater"].as_object().expect("a report about us").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let outcome = |case: &Value| [text(&case["behavior"]), text(&case["behaviorClose"])];
    found.map(|(id, case)| (id.clone(), outcome(case))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codec_keeps_the_protocol() {
    let _quiet = quiet().await;
    let (address, _echo) = start_echo().await;
    let directory = tempfile::tempdir().expect("a directory");
    let found = run_cases(&format!("ws://{address}"), directory.path()).await;
    assert_eq!(found.len(), CASES, "{:?}", found.keys());
    let wrong: Vec<_> = found.iter().filter(|(id, outcome)| !is_right(id, outcome)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether the behavior and the closing of a case are correct.
fn is_right(id: &str, [behavior, closing]: &[String; 2]) -> bool {
    match id {
        // The RFC leaves the behavior open; the suite only records it.
        "7.1.6" | "7.13.1" | "7.13.2" => behavior == "INFORMATIONAL" && closing == behavior,
        // The origin refuses invalid UTF-8 when the frame is complete, not at the first wrong byte.
        // The RFC allows this (section 8.1), and the suite reports it as late.
        "6.4.3" | "6.4.4" => ["OK", "NON-STRICT"].contains(&behavior.as_str()) && closing == "OK",
        _ => behavior == "OK" && closing == "OK",
    }
}
