//! A real Prometheus with the rules of deploy/, and the queries of the dashboard.

use crate::kit::{Origin, PATIENCE};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

pub const RULES: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/headwater.json";

/// A Prometheus that scrapes origins twice a second. Dropping the value ends it.
pub struct Prometheus {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with the example of deploy/prometheus, for these origins.
    pub fn start(origins: &[&Origin]) -> Self {
        let targets: Vec<_> =
            origins.iter().map(|origin| format!("\"{}\"", origin.admin)).collect();
        let targets = ("\"127.0.0.1:8081\"", targets.join(", "));
        Self::with("deploy/prometheus/prometheus.yml", &[targets])
    }

    /// As `start`, and waits until every origin was scraped: only what happens after that is a
    /// change for an alert.
    pub async fn of(origins: &[&Origin]) -> Self {
        let prometheus = Self::start(origins);
        let scraped = async {
            while prometheus.series("headwater_build_info").await.len() < origins.len() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, scraped).await.expect("the origins are scraped");
        prometheus
    }

    /// Starts Prometheus with a configuration in which addresses are replaced, and with our rules,
    /// in which every waiting time is one second.
    pub fn with(config: &str, addresses: &[(&str, String)]) -> Self {
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
        let port = crate::kit::redis::free_port();
        let config = std::fs::read_to_string(config).expect("a file");
        // Prometheus may scrape itself.
        let config = config
            .replace("interval: 15s", "interval: 500ms")
            .replace("127.0.0.1:9090", &format!("127.0.0.1:{port}"));
        let config = addresses.iter().fold(config, |config, (from, to)| {
            assert!(config.contains(from), "{from} is not in {config}");
            config.replace(from, to)
        });
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("a file");
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
    pub async fn series(&self, query: &str) -> Vec<Value> {
        let answer = timeout(PATIENCE, self.ask("query", query)).await.expect("an answer");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("series").clone()
    }

    pub async fn firing(&self) -> Vec<String> {
        let firing = self.series("ALERTS{alertstate=\"firing\"}").await;
        let name = |series: &Value| series["metric"]["alertname"].as_str().map(str::to_owned);
        firing.iter().filter_map(name).collect()
    }

    pub async fn fires(&self, alert: &str) {
        let fires = async {
            while !self.firing().await.iter().any(|name| name == alert) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, fires).await.unwrap_or_else(|_| panic!("{alert} does not fire"));
    }
}

impl Prometheus {
    /// Waits until every query of the dashboard has an answer. A rate needs two samples, and a
    /// quantile a rate above zero.
    pub async fn answers_the_dashboard(&self) {
        for (title, query) in queries() {
            loop {
                let series = self.series(&query).await;
                let has_value = series.iter().any(|series| series["value"][1] != "NaN");
                if has_value {
                    break;
                }
                println!("{title}: no answer yet to {query}");
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The queries of the dashboard, with its variables replaced.
pub fn queries() -> Vec<(String, String)> {
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
