//! The dashboard and the alerts of deploy/, checked with a real Prometheus that scrapes real
//! origins.

use crate::kit::{Origin, PATIENCE, next_message, request};
use hyper::Method;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const RULES: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/headwater.json";

/// A Prometheus that scrapes origins twice a second. Dropping the value ends it.
struct Prometheus {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with our rules, in which every waiting time is one second.
    fn start(origins: &[&Origin]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let rules = std::fs::read_to_string(RULES).expect("the rules");
        let is_wait = |line: &&str| line.trim_start().starts_with("for: ");
        let waits = rules.lines().filter(is_wait).count();
        assert!(waits > 10, "{waits} rules have a waiting time");
        let rules: Vec<_> = rules
            .lines()
            .map(|line| if is_wait(&line) { "        for: 1s" } else { line })
            .collect();
        std::fs::write(directory.path().join("alerts.yml"), rules.join("\n")).expect("a file");
        let targets: Vec<_> =
            origins.iter().map(|origin| format!("\"{}\"", origin.admin)).collect();
        let config = std::fs::read_to_string("deploy/prometheus/prometheus.yml").expect("a file");
        let config = config
            .replace("interval: 15s", "interval: 500ms")
            .replace("\"127.0.0.1:8081\"", &targets.join(", "));
        assert!(config.contains(&targets[0]), "{config}");
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("a file");
        let port = crate::kit::redis::free_port();
        let data = directory.path().join("data");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("prometheus runs"), port, _directory: directory }
    }

    /// Asks the HTTP API, and returns the answer once it has one.
    async fn ask(&self, path: &str, query: &str) -> Value {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let query = format!("query={query}");
        loop {
            let mut command = tokio::process::Command::new("curl");
            command.args(["-sS", "-G", "--data-urlencode", &query, &url]);
            let output = command.output().await.expect("curl runs");
            if let Ok(answer) = serde_json::from_slice(&output.stdout) {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The series of a query.
    async fn series(&self, query: &str) -> Vec<Value> {
        let answer = timeout(PATIENCE, self.ask("query", query)).await.expect("an answer");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("series").clone()
    }

    async fn firing(&self) -> Vec<String> {
        let firing = self.series("ALERTS{alertstate=\"firing\"}").await;
        let name = |series: &Value| series["metric"]["alertname"].as_str().map(str::to_owned);
        firing.iter().filter_map(name).collect()
    }

    async fn fires(&self, alert: &str) {
        let fires = async {
            while !self.firing().await.iter().any(|name| name == alert) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, fires).await.unwrap_or_else(|_| panic!("{alert} does not fire"));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The queries of the dashboard, with its variables replaced.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(DASHBOARD).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let queries = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| {
            let query = target["expr"].as_str().expect("a query");
            let query = query.replace("$__rate_interval", "5s");
            (title.clone(), query.replace("$job", ".*").replace("$instance", ".*"))
        })
    });
    queries.collect()
}

#[tokio::test]
async fn every_query_of_the_dashboard_has_an_answer_and_a_kill_raises_an_alert() {
    let mut one = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let other = Origin::start();
    let prometheus = Prometheus::start(&[&one, &other]);
    let mut source = one.source("/channels/a?after=0-0", None);
    let traffic = async {
        loop {
            one.publish("a", "x").await;
            next_message(&mut source).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let answers = async {
        for (title, query) in queries() {
            // A rate needs two samples, and a quantile a rate above zero.
            loop {
                let series = prometheus.series(&query).await;
                let has_value = series.iter().any(|series| series["value"][1] != "NaN");
                if has_value {
                    break;
                }
                println!("{title}: no answer yet to {query}");
                sleep(Duration::from_millis(500)).await;
            }
        }
    };
    let answered = async {
        tokio::select! {
            () = traffic => unreachable!("the traffic does not end"),
            () = answers => {}
        }
    };
    timeout(Duration::from_secs(60), answered).await.expect("every query has an answer");
    let firing = prometheus.firing().await;
    assert!(firing.is_empty(), "{firing:?} without any fault");
    one.kill();
    prometheus.fires("HeadwaterDown").await;
}

#[tokio::test]
async fn a_full_store_raises_its_alerts() {
    // Each event is more than a tenth of the store.
    let origin = Origin::with(&[
        "--store",
        "memory",
        "--max-store-bytes",
        "1MiB",
        "--retain-bytes",
        "4MiB",
        "--max-event",
        "200KiB",
    ]);
    let prometheus = Prometheus::start(&[&origin]);
    let body = "x".repeat(190 * 1024);
    for channel in 0..8 {
        let path = format!("/channels/c{channel}");
        let status = origin.post(&path, &[], &body).await.status;
        assert!(status == 201 || status == 507, "{status}");
    }
    prometheus.fires("HeadwaterStoreNearlyFull").await;
}

#[test]
fn promtool_accepts_the_rules_and_the_documents_explain_each_alert() {
    let checked = Command::new("promtool").args(["check", "rules", RULES]).output();
    let checked = checked.expect("promtool runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let rules = std::fs::read_to_string(RULES).expect("the rules");
    let document = std::fs::read_to_string("docs/operations.md").expect("the document");
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        assert!(document.contains(&format!("| `{alert}` |")), "docs/operations.md lacks {alert}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| `Headwater")).count();
    assert_eq!(rows, alerts.len(), "docs/operations.md has an alert that the rules have not");
}

/// Metrics that the rules and the dashboard name exist. A query about a missing metric has no
/// answer and raises no alert.
#[tokio::test]
async fn the_rules_and_the_dashboard_use_metrics_that_exist() {
    let origin = Origin::start();
    let admin = format!("http://{}", origin.admin).parse().expect("an address");
    let known = request(&admin, Method::GET, "/metrics", &[], Default::default()).await;
    let known = known.expect("metrics").body;
    let mut text = std::fs::read_to_string(RULES).expect("the rules");
    for (_, query) in queries() {
        text.push('\n');
        text.push_str(&query);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: Vec<&str> = text.split(|c| !is_part(c)).collect();
    let used: Vec<_> = words
        .iter()
        .filter(|word| word.starts_with("headwater_") || word.starts_with("process_"))
        .collect();
    assert!(used.len() > 30, "{used:?}");
    for metric in used {
        assert!(known.contains(&format!("\n{metric}")), "there is no {metric}");
    }
}
