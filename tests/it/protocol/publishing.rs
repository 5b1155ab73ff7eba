//! The request bodies that a publisher may send, and the refusals of all others.

use crate::kit::{BINARY, Origin};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Method;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("a Vec takes all");
    encoder.finish().expect("a Vec takes all")
}

/// Returns the data of all events of a channel.
async fn data(origin: &Origin, channel: &str) -> Vec<String> {
    origin.log(channel).await.into_iter().map(|(_, data)| data).collect()
}

// protocol §12.2
#[tokio::test]
async fn every_content_type_of_a_batch_is_accepted() {
    let origin = Origin::start();
    for kind in [
        "application/x-ndjson",
        "application/ndjson; charset=utf-8",
        "application/jsonl",
        "Application/JSONLines",
        "application/x-jsonlines",
    ] {
        let lines = "{\"data\":1}\n{\"data\":2}\n";
        let answer = origin.post("/channels/a", &[("content-type", kind)], lines).await;
        assert_eq!(answer.json()["ids"].as_array().map(Vec::len), Some(2), "{kind}");
    }
    let kind = [("content-type", "application/json-seq")];
    let sequence = "\u{1e}{\"data\":\n 3}\n\u{1e}{\"data\":4}\n";
    let answer = origin.post("/channels/a", &kind, sequence).await;
    assert_eq!(answer.json()["ids"].as_array().map(Vec::len), Some(2));
    assert_eq!(data(&origin, "a").await[8..], ["1", "2", "3", "4"]);
    // A JSON array is refused: its elements do not stand for members by their position.
    let answer = origin.post("/channels/a", &kind, "\u{1e}[\"x\",\"type\",\"key\"]").await;
    assert_eq!(answer.assert_problem(400, "bad-field")["line"], 1);
    let lines = "{\"data\":1}\n[\"x\",\"type\",\"key\"]\n";
    let kind = [("content-type", "application/ndjson")];
    let answer = origin.post("/channels/a", &kind, lines).await;
    assert_eq!(answer.assert_problem(400, "bad-field")["line"], 2);
    assert_eq!(origin.log("a").await.len(), 12);
}

#[tokio::test]
async fn a_compressed_body_is_decoded_within_the_limits() {
    let flags = ["--store", "memory", "--max-event", "64KiB", "--max-batch", "128KiB"];
    let origin = Origin::with(&flags);
    let send = async |coding: &str, body: Vec<u8>, kind: &str| {
        let headers = [("content-encoding", coding), ("content-type", kind)];
        origin.request(Method::POST, "/channels/a", &headers, body).await
    };
    let plain = "text/plain";
    assert_eq!(send("gzip", gzip("Grüße".as_bytes()), plain).await.status, 201);
    assert_eq!(send("x-gzip", gzip(b"two"), plain).await.status, 201);
    assert_eq!(send("identity", b"three".to_vec(), plain).await.status, 201);
    let two = [gzip(b"fo"), gzip(b"ur")].concat();
    assert_eq!(send("GZIP", two, plain).await.status, 201);
    let lines = b"{\"data\":\"five\"}\n{\"data\":\"six\"}\n";
    assert_eq!(send("gzip", gzip(lines), "application/x-ndjson").await.status, 201);
    let expected = ["Grüße", "two", "three", "four", "five", "six"];
    assert_eq!(data(&origin, "a").await, expected);

    let refused = send("br", b"x".to_vec(), plain).await;
    assert_eq!(refused.header("accept-encoding"), Some("gzip"));
    let problem = refused.assert_problem(415, "content-encoding");
    assert!(problem["detail"].as_str().unwrap().contains("br"), "{problem}");
    send("gzip, gzip", b"x".to_vec(), plain).await.assert_problem(415, "content-encoding");
    let refused = send("gzip", b"no gzip".to_vec(), plain).await;
    assert_eq!(refused.assert_problem(400, "bad-field")["field"], "Content-Encoding");
    let cut = gzip(&[b'x'; 1_000]);
    let refused = send("gzip", cut[..cut.len() - 5].to_vec(), plain).await;
    assert_eq!(refused.assert_problem(400, "bad-field")["field"], "Content-Encoding");
    // The decoded body is a thousand times larger: the limit applies to the decoded size.
    let bomb = gzip(&vec![b'x'; 32 * 1024 * 1024]);
    assert!(bomb.len() < 64 * 1024, "{} bytes", bomb.len());
    let before = origin.metric("process_resident_memory_bytes").await;
    send("gzip", bomb.clone(), plain).await.assert_problem(413, "too-large");
    send("gzip", bomb, "application/x-ndjson").await.assert_problem(413, "too-large");
    let grown = origin.metric("process_resident_memory_bytes").await - before;
    assert!(grown < 16.0 * 1024.0 * 1024.0, "{grown} bytes more");
    assert_eq!(data(&origin, "a").await, expected);
}

// protocol §12.1
#[tokio::test]
async fn a_misspelt_parameter_stores_nothing() {
    let origin = Origin::start();
    for (query, expected) in [
        ("evnt=x", "did you mean \"event\"?"),
        ("kye=x", "did you mean \"key\"?"),
        ("after=0-0", "it takes event, key, remove"),
        ("event=x&event=y", "stands there twice"),
    ] {
        let refused = origin.post(&format!("/channels/a?{query}"), &[], "x").await;
        let problem = refused.assert_problem(400, "bad-field");
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
    }
    let kind = [("content-type", "application/x-ndjson")];
    let refused = origin.post("/channels/a?key=k", &kind, "{\"data\":1}").await;
    assert_eq!(refused.assert_problem(400, "bad-field")["field"], "key");
    let refused = origin.request(Method::DELETE, "/channels/a?repoen=1", &[], "").await;
    let problem = refused.assert_problem(400, "bad-field");
    assert!(problem["detail"].as_str().unwrap().contains("reopen"), "{problem}");
    // On a stream, unknown parameters are ignored, because a 400 would end an `EventSource`.
    origin.publish("a", "x").await;
    let answer = origin.get("/channels/a?mode=hold&after=0-0&_=17&evnt=x&after=9").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("data: x\n"), "{}", answer.body);
}

#[tokio::test]
async fn ending_an_unknown_channel_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", directory.path().display());
    let redis = crate::kit::redis::RedisServer::start();
    for store in ["memory", &store, &redis.url()] {
        let origin = Origin::with(&["--store", store, "--max-channels", "1"]);
        for query in ["", "?reopen=1"] {
            let path = format!("/channels/ghost{query}");
            let refused = origin.request(Method::DELETE, &path, &[], "").await;
            refused.assert_problem(404, "no-channel");
        }
        // The refused requests stored nothing: the single channel that `--max-channels` allows is
        // still available.
        origin.publish("real", "x").await;
        let ended = origin.request(Method::DELETE, "/channels/real", &[], "").await;
        assert_eq!(ended.status, 200, "{store}");
        let again = origin.request(Method::DELETE, "/channels/real?reopen=1", &[], "").await;
        assert_eq!(again.status, 200, "{store}");
    }
}

#[tokio::test]
async fn an_invalid_name_is_refused_with_the_reason() {
    let origin = Origin::start();
    for (name, expected) in [
        ("-bad", "may not begin with '-'"),
        ("a%20b", "may not hold ' '"),
        ("1,2,3,4,5,6,7,8,9", "at most 8 channels"),
        ("a,a", "named twice"),
    ] {
        let refused = origin.get(&format!("/channels/{name}")).await;
        let problem = refused.assert_problem(400, "bad-field");
        assert_eq!(problem["field"], "channel");
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
    }
}

/// Runs `headwater publish` with this standard input, and returns its standard error.
fn publish_lines(origin: &Origin, input: &[u8]) -> String {
    let mut command = Command::new(BINARY);
    command.args(["publish", "a"]).env("HEADWATER_URL", origin.address().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn publish_stores_the_lines_before_a_bad_one_and_says_so() {
    let origin = Origin::with(&["--store", "memory", "--max-event", "1KiB"]);
    let said = publish_lines(&origin, b"1\n2\n3\n4\n5\nsix\xff\n7\n");
    assert!(said.contains("line 6 was not published: it is not UTF-8 from its byte 4"), "{said}");
    assert!(said.contains("lines 1 to 5 were stored"), "{said}");
    assert_eq!(data(&origin, "a").await, ["1", "2", "3", "4", "5"]);
    // In this input the origin refuses the line, not the command.
    let said = publish_lines(&origin, format!("6\n{}\n8\n", "x".repeat(2_000)).as_bytes());
    assert!(
        said.contains("line 2 was not published") && said.contains("line 1 was stored"),
        "{said}"
    );
    assert_eq!(data(&origin, "a").await, ["1", "2", "3", "4", "5", "6"]);
    let said = publish_lines(&origin, b"\xff\n");
    assert!(
        said.contains("line 1 was not published") && said.contains("nothing was stored"),
        "{said}"
    );
}

#[tokio::test]
async fn two_runs_of_bench_do_not_disturb_each_other() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    for _ in 0..2 {
        let mut bench = Command::new(BINARY);
        bench.args(["bench", "--subscribers", "3", "--rate", "50", "--duration", "1s", "--json"]);
        let output = bench.env("HEADWATER_URL", origin.address().to_string()).output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let counts = ["delivered", "duplicates", "gaps"].map(|name| result[name].as_u64());
        assert_eq!(counts, [Some(150), Some(0), Some(0)], "{result}");
    }
}
