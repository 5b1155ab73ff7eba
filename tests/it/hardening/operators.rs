//! Attacks on the tools and data of operators: logs, the admin listener, terminals, secrets.

use super::{QUIET, assert_sane};
use crate::kit::{BINARY, Origin, read_until};
use crate::websocket::raw::Peer;
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn silent_connections_to_the_admin_listener_shut_no_operator_out() {
    let origin = Origin::with(&QUIET);
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(origin.admin).await.expect("it listens"));
    }
    let mut stream = TcpStream::connect(origin.admin).await.expect("it listens");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let text = read_until(&mut stream, |text| text.contains("ok\n")).await.to_lowercase();
    assert!(text.starts_with("http/1.1 200 "), "{text}");
    // Web pages may not read from the admin listener.
    assert!(!text.contains("access-control-allow-origin"), "{text}");
}

#[tokio::test]
async fn frames_that_make_no_sense_do_not_fill_the_log() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // The acknowledgement of a ping that was never sent.
    let ping_ack = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it reads");
    stream.write_all(&settings).await.expect("it reads");
    for _ in 0..20 {
        // The origin may close the connection.
        let _cut = stream.write_all(&ping_ack.repeat(1_000)).await;
    }
    assert_sane(&origin, "a", &[kept]).await;
    drop(stream);
    assert!(origin.logged("") < 20, "{} lines", origin.logged(""));
}

#[tokio::test]
async fn the_password_of_redis_is_shown_nowhere() {
    let secret = "redis://user:hunter2@127.0.0.1:1";
    let run = |words: &[&str], store: &str| {
        let output = Command::new(BINARY).args(words).env("HEADWATER_STORE", store).output();
        let output = output.expect("it starts");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    for text in [
        run(&["serve", "--help"], secret),
        run(&["serve", "--segment", "nonsense"], secret),
        run(&["serve"], "rediss:user:hunter2@127.0.0.1:1"),
        run(&["serve"], "hunter2"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    // The store's URL may stand in a file instead.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "memory\n").unwrap();
    let origin = Origin::with(&["--store", &format!("@{}", file.path().display())]);
    origin.publish("a", "x").await;
}

#[tokio::test]
async fn an_event_does_not_write_on_the_terminal_of_a_reader() {
    let origin = Origin::with(&QUIET);
    let data = "a\u{1b}]0;title\u{7}b\u{9b}2Jc\n\td";
    origin.publish("a", data).await;
    let url = format!("http://{}", origin.listen);
    let tail = format!("{BINARY} tail a --url {url} --after 0-0 --count 1");
    // The command runs with a terminal of its own.
    let output = Command::new("script").args(["-qec", &tail, "/dev/null"]).output();
    let shown = String::from_utf8_lossy(&output.expect("script runs").stdout).into_owned();
    assert!(shown.contains(r"a\u{1b}]0;title\u{7}b\u{9b}2Jc"), "{shown:?}");
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
    // A program that reads the output receives the event unchanged.
    let words = tail.split(' ').skip(1);
    let output = Command::new(BINARY).args(words).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{data}\n"));
}

#[tokio::test]
async fn keys_of_tokens_do_not_come_over_a_network_without_tls() {
    let output = Command::new(BINARY)
        .args(["serve", "--token-jwks", "http://keys.example/jwks.json"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("use https://"), "{said}");
}

#[tokio::test]
async fn a_page_without_tls_is_not_one_of_the_host_with_it() {
    let named = ["--cors-origin", "https://pages.example", "--open-publish"];
    let origin = Origin::with(&[&QUIET[..], &named, &["--allowed-host", "live.example"]].concat());
    let connects = async |page: &str| {
        let headers = [
            ("origin", page),
            ("x-forwarded-host", "live.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "192.0.2.7"),
        ];
        let head = crate::websocket::raw::handshake("/ws", &headers);
        let stream = TcpStream::connect(origin.listen).await.expect("it listens");
        Peer::on(stream, &head).await.is_ok()
    };
    assert!(connects("https://live.example").await);
    assert!(!connects("http://live.example").await);
}
