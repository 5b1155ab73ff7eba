//! TLS of the origin itself: HTTP/2 and HTTP/1.1, certificates of edges, and a certificate that is
//! replaced. curl is the client, beside the commands of Headwater.

use crate::kit::authority::Authority;
use crate::kit::edge::Certificate;
use crate::kit::{BINARY, Origin, PATIENCE};
use std::process::Output;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// An authority, and a certificate for an edge that it has signed: `edge.pem` and `edge.key`.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.sign("edge", "basicConstraints=CA:FALSE");
    authority
}

fn serving(certificate: &Certificate, more: &[&str]) -> Origin {
    let (chain, key) = (certificate.path("chain.pem"), certificate.path("key.pem"));
    let tls = ["--store", "memory", "--tls-cert", &chain, "--tls-key", &key];
    Origin::with(&[&tls, more].concat())
}

async fn curl(certificate: &Certificate, words: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "15", "--cacert", &certificate.path("chain.pem")]);
    command.args(words).kill_on_drop(true).output().await.expect("curl runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn command(certificate: &Certificate, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words).env("SSL_CERT_FILE", certificate.path("chain.pem"));
    command.kill_on_drop(true).output().await.expect("the binary runs")
}

#[tokio::test]
async fn both_versions_of_http_carry_publishes_and_whole_streams() {
    let certificate = Certificate::new();
    let origin = serving(&certificate, &["--segment", "1s"]);
    let url = format!("https://{}/channels/a", origin.listen);
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let write = ["-w", "%{http_version} %{http_code}", "-o", "/dev/null"];
        let words = [&[flag, "-d", "hello", &url][..], &write].concat();
        let published = curl(&certificate, &words).await;
        assert_eq!(text(&published.stdout), format!("{version} 201"));
        // curl fails if a stream does not end as planned.
        let from_start = format!("{url}?after=0-0");
        let read = curl(&certificate, &[flag, &from_start]).await;
        let said = text(&read.stdout);
        assert!(read.status.success(), "{}", text(&read.stderr));
        assert!(said.contains("data: hello") && said.contains("event: segment"), "{said}");
    }
    // The commands of Headwater use it too.
    let base = format!("https://{}", origin.listen);
    let published = command(&certificate, &["publish", "b", "x", "--url", &base]).await;
    assert!(published.status.success(), "{}", text(&published.stderr));
    let words = ["tail", "b", "--after", "0-0", "--count", "1", "--url", &base];
    let read = timeout(PATIENCE, command(&certificate, &words)).await.expect("it ends");
    assert!(text(&read.stdout).contains('x'), "{}", text(&read.stderr));
    // A request without TLS gets no answer.
    let plain = curl(&certificate, &[&format!("http://{}/healthz", origin.listen)]).await;
    assert!(!plain.status.success());
    // The admin listener has no TLS unless it is asked for.
    assert_eq!(origin.metric("headwater_ready").await, 1.0);
}

#[tokio::test]
async fn the_admin_listener_and_a_websocket_may_use_tls() {
    let certificate = Certificate::new();
    let origin = serving(&certificate, &["--tls-admin"]);
    let ready = curl(&certificate, &[&format!("https://{}/readyz", origin.admin)]).await;
    assert!(text(&ready.stdout).contains("ready"), "{ready:?}");
    let handshake = |from: &str| {
        let origin_header = format!("Origin: {from}");
        let url = format!("https://{}/ws", origin.listen);
        let headers = [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            &origin_header,
        ];
        let headers: Vec<String> =
            headers.iter().flat_map(|one| ["-H".to_owned(), (*one).to_owned()]).collect();
        let fixed = ["--http1.1", "-i", "--max-time", "2", &url].map(str::to_owned);
        [headers, fixed.to_vec()].concat()
    };
    let status = async |from: &str| {
        let words = handshake(from);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        text(&curl(&certificate, &words).await.stdout).lines().next().unwrap_or("").to_owned()
    };
    let own = format!("https://{}", origin.listen);
    assert!(status(&own).await.contains("101"), "a page of this origin may connect");
    let foreign = "https://evil.example";
    assert!(status(foreign).await.contains("403"), "a page of another site may not");
}

#[tokio::test]
async fn an_edge_with_a_certificate_vouches_for_its_requests() {
    let (certificate, authority, strange) = (Certificate::new(), authority(), authority());
    let authorities = authority.path("ca.pem");
    let flags = ["--tls-edge-ca", &authorities, "--private", "*"];
    let origin = serving(&certificate, &flags);
    let url = format!("https://{}/channels/a/history", origin.listen);
    let status = async |of: Option<&Authority>, version: &str| {
        let files = of.map(|of| [of.path("edge.pem"), of.path("edge.key")]);
        let mut words = vec![version, "-o", "/dev/null", "-w", "%{http_code}", &url];
        if let Some([pem, key]) = &files {
            words.extend(["--cert", pem, "--key", key]);
        }
        let output = curl(&certificate, &words).await;
        output.status.success().then(|| text(&output.stdout))
    };
    for version in ["--http2", "--http1.1"] {
        assert_eq!(status(None, version).await.as_deref(), Some("401"));
        assert_eq!(status(Some(&authority), version).await.as_deref(), Some("200"));
        // The certificate of another authority ends the connection.
        assert_eq!(status(Some(&strange), version).await, None);
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_without_ending_a_stream() {
    let (certificate, new) = (Certificate::new(), Certificate::new());
    let origin = serving(&certificate, &["--segment", "10m"]);
    let base = format!("https://{}", origin.listen);
    let mut reader = Command::new("curl");
    reader.args(["-sN", "--max-time", "30", "--cacert", &certificate.path("chain.pem")]);
    reader.arg(format!("{base}/channels/a?after=0-0")).stdout(std::process::Stdio::piped());
    let mut reader = reader.kill_on_drop(true).spawn().expect("curl runs");
    let mut lines = BufReader::new(reader.stdout.take().expect("it is piped")).lines();
    let mut next_data = async || {
        loop {
            let line = timeout(PATIENCE, lines.next_line()).await.expect("a line");
            let line = line.expect("text").expect("the stream goes on");
            if line.starts_with("data: e") {
                return line;
            }
        }
    };
    let publish = async |certificate: &Certificate, event: &str| {
        let words = ["publish", "a", event, "--url", &base];
        command(certificate, &words).await.status.success()
    };
    assert!(publish(&certificate, "e1").await);
    assert_eq!(next_data().await, "data: e1");
    for name in ["chain.pem", "key.pem"] {
        std::fs::copy(new.path(name), certificate.path(name)).expect("a copy");
    }
    let admin = format!("http://{}", origin.admin);
    let reloaded = command(&new, &["reload", "--admin-url", &admin]).await;
    assert!(reloaded.status.success(), "{}", text(&reloaded.stderr));
    // The certificate that the first connection has trusted is not there any more.
    assert!(publish(&new, "e2").await);
    assert_eq!(next_data().await, "data: e2");
    assert_eq!(origin.metric("headwater_streams_opened_total{kind=\"cursor\"}").await, 1.0);
    // Files that cannot be used change nothing.
    std::fs::write(certificate.path("key.pem"), "no key").expect("a file");
    let refused = command(&new, &["reload", "--admin-url", &admin]).await;
    assert!(text(&refused.stderr).contains("--tls-key"), "{}", text(&refused.stderr));
    assert!(publish(&new, "e3").await);
    assert_eq!(next_data().await, "data: e3");
    // A client that leaves its stream is noticed.
    reader.kill().await.expect("it ends");
    let is_gone = async {
        while origin.metric("headwater_streams_open").await > 0.0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, is_gone).await.expect("the stream is closed");
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_closed() {
    let certificate = Certificate::new();
    let origin = serving(&certificate, &["--head-timeout", "1s"]);
    let mut silent = TcpStream::connect(origin.listen).await.expect("a connection");
    let closed = timeout(PATIENCE, silent.read(&mut [0])).await.expect("it is closed");
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_mistake_in_the_files_is_named() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let (chain, key) = (certificate.path("chain.pem"), other.path("key.pem"));
    for (words, expected) in [
        (vec!["--tls-cert", chain.as_str()], "--tls-key"),
        (vec!["--tls-admin"], "--tls-admin needs --tls-cert"),
        (vec!["--tls-cert", &chain, "--tls-key", &key], "do not belong together"),
        (vec!["--tls-cert", &chain, "--tls-key", "/nowhere"], "--tls-key: no private key"),
        (vec!["--tls-cert", &key, "--tls-key", &key], "--tls-cert: no certificate"),
    ] {
        let words = [&["config", "check", "--config", ""][..], &words].concat();
        let output = command(&certificate, &words).await;
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(expected), "{words:?}: {said}");
    }
}
