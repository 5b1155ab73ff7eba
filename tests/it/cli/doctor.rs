//! `headwater doctor` finds configuration errors of operators, and reports nothing if there are
//! none.

use crate::kit::edge::{Cache, Certificate, edge};
use crate::kit::{BINARY, Origin};
use serde_json::Value;
use std::process::Stdio;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Runs the doctor on a URL. Returns its report and its exit status.
async fn examine(origin: &Origin, url: &str, flags: &[&str]) -> (Value, i32) {
    let mut command = Command::new(BINARY);
    command.args(["doctor", url, "--json", "--publish-url", &origin.address().to_string()]);
    // Each run uses a channel of its own, because the runs are concurrent.
    let channel = format!("doctor{}", url.rsplit(':').next().expect("a port"));
    command.args(["--channel", &channel]).args(flags).stdin(Stdio::null());
    output(command).await
}

async fn output(mut command: Command) -> (Value, i32) {
    let output = command.output().await.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{error}"));
    (report, output.status.code().expect("it ends by itself"))
}

fn problems(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let problems = findings.filter(|finding| finding["problem"] == true);
    problems.map(|finding| finding["code"].as_str().expect("a code").to_owned()).collect()
}

fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the shipped file");
    text.replace(from, to)
}

/// Mistakes in the shipped VCL: the code of the finding, the original text, and its replacement.
const PLANTED_IN_VARNISH: [(&str, &str, &str); 6] = [
    ("grace", "set beresp.grace = 0s;", "set beresp.grace = 10s;"),
    ("ttl", "# Otherwise beresp.ttl stays", "set beresp.ttl = 120s; #"),
    ("key-without-cursor", "hash_data(req.http.Last-Event-ID);", ""),
    ("compression", "set beresp.do_gzip = false;", "set beresp.do_gzip = true;"),
    ("buffering", "set beresp.do_stream = true;", "set beresp.do_stream = false;"),
    ("cookies", "unset req.http.Cookie;", "if (req.http.Cookie) { return (pass); }"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_finds_what_is_wrong_with_a_varnish() {
    let _quiet = crate::kit::quiet().await;
    let origin = Origin::with(&["--store", "memory", "--segment", "6s"]);
    let shipped = edge(&["varnish", "--origin", &origin.listen.to_string()]);
    let mut caches = Vec::new();
    for (code, from, to) in PLANTED_IN_VARNISH {
        let mut vcl = changed(&shipped, from, to);
        if code == "key-without-cursor" {
            // Varnish also obeys Vary, which would put the cursor into the cache key.
            vcl = changed(&vcl, "unset beresp.http.Set-Cookie;", "unset beresp.http.Vary;");
        }
        if code == "compression" {
            vcl = changed(&vcl, "unset req.http.Accept-Encoding;", "");
        }
        caches.push((code, Cache::varnish_with(&vcl)));
    }
    let origin = std::sync::Arc::new(origin);
    let mut examinations = JoinSet::new();
    for (code, cache) in caches {
        let origin = origin.clone();
        examinations.spawn(async move {
            let (report, status) = examine(&origin, &cache.address().to_string(), &[]).await;
            assert!(problems(&report).contains(&code.to_owned()), "{code}: {report:#}");
            assert_eq!(status, 1, "{code}");
        });
    }
    while let Some(examined) = examinations.join_next().await {
        examined.expect("it is found");
    }
}

/// Mistakes in the shipped nginx files, with the code of the finding for each.
fn planted_in_nginx(port: u16) -> [(&'static str, Cache); 6] {
    [
        (
            "buffering",
            // The default buffering of nginx, with the origin's X-Accel-Buffering header ignored.
            // Over HTTP/1.1 nginx passes chunks on even then.
            Cache::nginx_before("stream", &[port], |text| {
                let ignored = "proxy_ignore_headers X-Accel-Buffering;";
                let text =
                    changed(&text, "proxy_buffering off;\n            proxy_cache off;", ignored);
                changed(&text, "proxy_http_version 1.1;", "proxy_http_version 1.0;")
            }),
        ),
        (
            "buffering",
            // Live streams behind nginx's cache, which delivers only complete bodies.
            Cache::nginx_before("collapse", &[port], |text| {
                changed(&text, "?mode=hold", "?mode=stream")
            }),
        ),
        (
            "ttl",
            Cache::nginx_before("collapse", &[port], |text| {
                let kept = "proxy_ignore_headers Cache-Control; proxy_cache_valid 200 5m;";
                changed(&text, "proxy_ignore_client_abort on;", kept)
            }),
        ),
        (
            "dead-on-error",
            Cache::nginx_before("stream", &[port], |text| {
                changed(&text, "proxy_intercept_errors on;", "")
            }),
        ),
        (
            "http-1.0-upstream",
            Cache::nginx_before("stream", &[port], |text| {
                changed(&text, "proxy_http_version 1.1;", "proxy_http_version 1.0;")
            }),
        ),
        (
            "query-dropped",
            Cache::nginx_before("stream", &[port], |text| {
                let text = changed(
                    &text,
                    "headwater_streams$uri$headwater_query",
                    "headwater_streams$uri",
                );
                changed(
                    &text,
                    "Last-Event-ID $headwater_cursor",
                    "Last-Event-ID $http_last_event_id",
                )
            }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_finds_what_is_wrong_with_an_nginx() {
    let _quiet = crate::kit::quiet().await;
    let origin = std::sync::Arc::new(Origin::with(&["--store", "memory", "--segment", "6s"]));
    let port = origin.listen.port();
    let planted = planted_in_nginx(port);
    let mut examinations = JoinSet::new();
    for (code, cache) in planted {
        let origin = origin.clone();
        examinations.spawn(async move {
            let url = cache.address().to_string();
            let (report, status) = examine(&origin, &url, &["--direct"]).await;
            assert!(problems(&report).contains(&code.to_owned()), "{code}: {report:#}");
            assert_eq!(status, 1, "{code}");
        });
    }
    while let Some(examined) = examinations.join_next().await {
        examined.expect("it is found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_silent_on_the_shipped_files() {
    // A machine that is busy for seconds delays responses and events, which the doctor reports.
    let _alone = crate::kit::alone().await;
    let origin = std::sync::Arc::new(Origin::with(&["--store", "memory", "--segment", "6s"]));
    let port = origin.listen.port();
    let caches: [(Cache, &[&str]); 3] = [
        (Cache::varnish(port), &[]),
        (Cache::nginx("collapse", port), &[]),
        (Cache::nginx("stream", port), &["--direct"]),
    ];
    let mut examinations = JoinSet::new();
    for (cache, flags) in caches {
        let origin = origin.clone();
        examinations.spawn(async move {
            let (report, status) = examine(&origin, &cache.address().to_string(), flags).await;
            assert_eq!(problems(&report), [""; 0], "{report:#}");
            assert_eq!(status, 0);
            let shared = report["measured"]["clients_an_origin_request"].as_f64().expect("a ratio");
            assert_eq!(shared > 1.0, flags.is_empty(), "{report:#}");
        });
    }
    while let Some(examined) = examinations.join_next().await {
        examined.expect("nothing is found");
    }
}

#[tokio::test]
async fn other_channels_may_be_busy() {
    let _quiet = crate::kit::quiet().await;
    let flags = ["--store", "memory", "--segment", "4s", "--publish-rate", "0"];
    let origin = Origin::with(&flags);
    let lines = "{\"data\":\"x\"}\n".repeat(100);
    let busy = async {
        loop {
            origin.publish_lines("busy", &lines).await;
        }
    };
    let url = origin.address().to_string();
    let (report, _) = tokio::select! {
        examined = examine(&origin, &url, &["--direct"]) => examined,
        () = busy => unreachable!("the publisher has no end"),
    };
    // The examined channel is new, and the ids before its first event belong to the other channel.
    assert_eq!(problems(&report), ["dead-on-error"], "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_looks_through_tls_and_http_2_in_front_of_varnish() {
    let _quiet = crate::kit::quiet().await;
    let origin = Origin::with(&["--store", "memory", "--segment", "6s"]);
    let varnish = Cache::varnish(origin.listen.port());
    let certificate = Certificate::new();
    let nginx = Cache::nginx_tls(varnish.port, &certificate);
    let mut command = Command::new(BINARY);
    let url = format!("https://127.0.0.1:{}", nginx.port);
    command.args(["doctor", &url, "--json", "--publish-url", &url, "--admin-url"]);
    command.arg(format!("http://{}", origin.admin));
    command.env("SSL_CERT_FILE", certificate.path("chain.pem"));
    let (report, status) = output(command).await;
    // Without a key at the origin, every client may publish: a note for the operator, but no
    // problem here.
    let found = report["findings"].as_array().expect("findings");
    assert_eq!(found.len(), 1, "{report:#}");
    assert_eq!(found[0]["code"], "open-publish");
    assert_eq!(report["measured"]["http_version"], "HTTP/2.0");
    assert!(report["measured"]["origin_streams_opened"].as_u64() < Some(20), "{report:#}");
    assert_eq!(status, 0);
}

#[tokio::test]
async fn it_says_when_there_is_nobody_to_look_at() {
    let port = crate::kit::redis::free_port();
    let mut command = Command::new(BINARY);
    let output = command.args(["doctor", &format!("http://127.0.0.1:{port}")]).output().await;
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot reach"), "{error}");
}

#[tokio::test]
async fn an_answer_for_a_failing_origin_says_when_to_come_back() {
    let _quiet = crate::kit::quiet().await;
    let origin = Origin::with(&["--store", "memory", "--segment", "4s"]);
    let cache = Cache::nginx_before("stream", &[origin.listen.port()], |text| {
        let outage = text.find("return 200 \"retry:").expect("the outage's answer");
        let end = outage + text[outage..].find(';').expect("its end");
        text.replace(&text[outage..end], r#"return 200 '{"error":"unavailable"}'"#)
    });
    let (report, status) = examine(&origin, &cache.address().to_string(), &["--direct"]).await;
    assert_eq!(problems(&report), ["no-retry"], "{report:#}");
    assert_eq!(status, 1);
}

#[tokio::test]
async fn a_probe_that_is_refused_is_a_problem() {
    let _quiet = crate::kit::quiet().await;
    let secret = ["--token-secret", crate::protocol::access::SECRET];
    let origin = Origin::with(&[&["--store", "memory", "--segment", "4s"], &secret[..]].concat());
    let url = origin.address().to_string();
    let (report, status) = examine(&origin, &url, &["--direct"]).await;
    assert!(problems(&report).contains(&"probe-refused".to_owned()), "{report:#}");
    assert_eq!(status, 1);
}

#[tokio::test]
async fn doctor_does_not_wait_for_a_stream_that_was_shed() {
    let mut redis = crate::kit::redis::RedisServer::start();
    let origin = Origin::with(&["--store", &redis.url(), "--store-timeout", "500ms"]);
    redis.kill();
    let mut command = Command::new(BINARY);
    let url = origin.address().to_string();
    command.args(["doctor", &url, "--direct", "--json"]).stdin(Stdio::null());
    let examined = tokio::time::timeout(crate::kit::PATIENCE, command.output()).await;
    let output = examined.expect("it does not wait for a first block").expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(problems(&report), ["shed"], "{report:#}");
    // If the output cannot show a progress bar, each step is printed as a line.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("asking once (2 of 8)"), "{said}");
}
