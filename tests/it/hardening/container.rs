//! A container with little memory and the default flags: clients and publishers that fill every
//! buffer at once do not make the process larger than its limit.

use super::{assert_sane, memory, wait_for};
use crate::kit::{Origin, get, next_message, read_until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const LIMIT_MIB: f64 = 200.0;
const CHANNELS: usize = 60;
/// Connections that have served a request and stay open.
const IDLE: usize = 1_000;
/// Clients that read nothing of a large response.
const DEAF: usize = 100;
/// Publishers that send most of a large body and then stop.
const STUCK: usize = 30;
const MEGABYTE: usize = 1_000_000;

/// Starts an origin that sees the limit of a container in the place where the kernel shows it. The
/// limit is not enforced: the test compares the memory of the process with it.
fn in_a_container(flags: &[&str]) -> Origin {
    let limit = (LIMIT_MIB as u64) << 20;
    let script = format!(
        "mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory && \
         echo {limit} | tee /sys/fs/cgroup/memory.max >/sys/fs/cgroup/memory/memory.limit_in_bytes \
         && exec \"$@\""
    );
    Origin::wrapped(&["unshare", "-m", "sh", "-c", &script, "sh"], flags)
}

/// Opens connections and sends the same bytes over each of them.
async fn open(origin: &Origin, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
        // The origin may refuse the rest of a body.
        stream.write_all(bytes).await.ok();
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_container_that_is_filled_with_the_default_flags() {
    let _alone = crate::kit::alone().await;
    headwater::telemetry::process::raise_file_limit();
    let data = tempfile::tempdir().unwrap();
    let origin = in_a_container(&["--store", &format!("disk:{}", data.path().display())]);
    let kept = origin.publish("kept", "x").await;
    let begun = memory(&origin).await;
    let mut idle = open(&origin, IDLE, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    for stream in &mut idle {
        read_until(stream, |text| text.ends_with("ok\n")).await;
    }
    let idling = memory(&origin).await;
    let mut most = idling;
    // Every channel has a reader, so its newest events stay in memory.
    let padding = "y".repeat(MEGABYTE);
    for channel in 0..CHANNELS {
        let name = format!("c{channel}");
        let mut reader = origin.source(&format!("/channels/{name}?after=0-0"), None);
        for _ in 0..4 {
            let id = origin.publish(&name, &padding).await;
            assert_eq!(next_message(&mut reader).await.last_event_id, id);
        }
        most = most.max(memory(&origin).await);
    }
    let filled = memory(&origin).await;
    let mut deaf = Vec::new();
    for channel in 0..DEAF {
        let path = format!("/channels/c{}/history?limit=1000", channel % CHANNELS);
        deaf.extend(open(&origin, 1, &get(&path, None)).await);
        most = most.max(memory(&origin).await);
    }
    let head = "POST /channels/large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7900000\r\n\
                Content-Type: application/x-ndjson\r\n\r\n";
    let body = format!("{head}{{\"data\":\"{}\"}}\n", "z".repeat(900_000));
    let stuck = open(&origin, STUCK, body.as_bytes()).await;
    for _ in 0..20 {
        most = most.max(memory(&origin).await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    println!("{begun} MiB, {idling} with connections, {filled} with channels, {most} at most");
    assert!(most < LIMIT_MIB, "{most} MiB");
    drop((deaf, stuck, idle));
    let closed = async || origin.metric("headwater_connections_open").await < 5.0;
    wait_for("closed connections are still held", closed).await;
    assert_sane(&origin, "kept", &[kept]).await;
}
