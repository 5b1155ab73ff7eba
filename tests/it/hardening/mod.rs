//! Attacks and faulty clients; each test is named for its attack. After every attack the origin
//! still publishes and serves, has every event that it acknowledged, and holds no resources for the
//! attacker.

mod console;
mod container;
mod edges;
mod floods;
mod frames;
mod host;
mod http11;
mod injection;
mod limits;
mod memory;
mod open_origin;
mod operators;
mod pages;
mod peers;
mod publishers;
mod requests;
mod sheds;
mod sockets;
mod tokens;

use crate::kit::{self, Origin, get, read_until};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Settings under which no heartbeat and no end of a segment can help a test to pass.
pub const QUIET: [&str; 6] = ["--store", "memory", "--heartbeat", "10m", "--segment", "10m"];

/// Checks that the origin stores events in `channel`, streams them, and still has `acknowledged`.
pub async fn assert_sane(origin: &Origin, channel: &str, acknowledged: &[String]) {
    let after = origin.publish(channel, "still here").await;
    let path = format!("/channels/{channel}");
    let mut stream = origin.raw(&get(&path, Some("0-0"))).await;
    let until = format!("id: {after}\ndata: still here\n\n");
    let text = read_until(&mut stream, |text| text.contains(&until)).await;
    let history = origin.get(&format!("{path}/history?limit=1000")).await.body;
    for id in acknowledged {
        assert!(text.contains(&format!("id: {id}\n")), "{id} is not streamed: {text}");
        assert!(history.contains(&format!("\"{id}\"")), "{id} is not in {history}");
    }
}

/// Sends bytes that the origin may refuse to read to the end, and returns all that it answers.
async fn attack(origin: &Origin, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
    // The origin may answer and close before it has read everything.
    let _cut = stream.write_all(bytes).await;
    read_until(&mut stream, |_| false).await
}

/// Waits until a condition is true.
pub async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(kit::PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn wait_until_no_stream_is_open(origin: &Origin) {
    let is_free = async || origin.metric("headwater_streams_open").await == 0.0;
    wait_for("a stream is still held", is_free).await;
}

/// Checks that the origin has no open connections, streams and sockets. The test must have closed
/// its own before.
async fn assert_calm(origin: &Origin) {
    for name in ["connections", "streams", "websockets"] {
        let gauge = format!("headwater_{name}_open");
        let is_free = async || origin.metric(&gauge).await == 0.0;
        wait_for(&format!("{name} are still held"), is_free).await;
    }
}

/// Returns the memory in use, in MiB.
pub async fn memory(origin: &Origin) -> f64 {
    origin.metric("process_resident_memory_bytes").await / (1024.0 * 1024.0)
}
