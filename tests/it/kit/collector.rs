//! A real collector of OpenTelemetry (tests/otelcol), which writes the spans that it receives to a
//! file.

use crate::kit::redis::free_port;
use crate::kit::{Origin, PATIENCE};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const PROGRAM: &str = "target/otelcol/headwater-tests-otelcol";

/// A collector. Dropping the value ends it.
pub struct Collector {
    child: Option<Child>,
    port: u16,
    directory: TempDir,
}

/// A span, as far as the tests look at it.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// The name of the service that has exported it.
    pub service: String,
    /// Start and end, in ns.
    pub times: (u64, u64),
    pub attributes: Value,
}

impl Collector {
    /// Starts a collector, and waits until it listens.
    pub async fn start() -> Self {
        let mut collector = Self::stopped();
        collector.run().await;
        collector
    }

    /// A collector that does not run yet, but has its address.
    pub fn stopped() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { child: None, port: free_port(), directory }
    }

    /// Starts the program, and waits until it listens.
    pub async fn run(&mut self) {
        let (port, file) = (self.port, self.file());
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}\n\
             exporters: {{file: {{path: \"{}\", flush_interval: 50ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n",
            file.display()
        );
        let mut command = Command::new(PROGRAM);
        command.arg(format!("--config=yaml:{config}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("the collector runs"));
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listens).await.expect("the collector listens");
    }

    /// An origin that exports to this collector, with this name of its service. Spans are sent
    /// within 100 ms and not within five seconds.
    pub fn origin(&self, service: &str, flags: &[&str]) -> Origin {
        let name = format!("OTEL_SERVICE_NAME={service}");
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let flags = [flags, &["--otlp-endpoint", &endpoint]].concat();
        Origin::wrapped(&["env", "OTEL_BSP_SCHEDULE_DELAY=100", &name], &flags)
    }

    /// All spans that have arrived.
    pub fn spans(&self) -> Vec<Span> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        // The last line may not be complete yet.
        let batches = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        batches.flat_map(|batch| spans_of(&batch)).collect()
    }

    /// Waits until the spans satisfy a condition, and returns them.
    pub async fn receives(&self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let received = async {
            loop {
                let spans = self.spans();
                if enough(&spans) {
                    return spans;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let received = timeout(PATIENCE, received).await;
        received.unwrap_or_else(|_| panic!("more spans come: {:?}", self.spans()))
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("spans.json")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn spans_of(batch: &Value) -> Vec<Span> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut spans = Vec::new();
    for resource in list(&batch["resourceSpans"]) {
        let service = attributes(&resource["resource"])["service.name"].clone();
        let scopes = list(&resource["scopeSpans"]);
        let found = scopes.iter().flat_map(|scope| list(&scope["spans"]));
        spans.extend(found.map(|span| span_of(&span, service.as_str().expect("a name"))));
    }
    spans
}

fn span_of(span: &Value, service: &str) -> Span {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let time = |name: &str| text(name).parse().expect("a time");
    Span {
        name: text("name"),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        service: service.to_owned(),
        times: (time("startTimeUnixNano"), time("endTimeUnixNano")),
        attributes: attributes(span),
    }
}

/// The attributes of a span or a resource as an object. All values are text.
fn attributes(of: &Value) -> Value {
    let all = of["attributes"].as_array().cloned().unwrap_or_default();
    let pair = |one: &Value| {
        let value = one["value"].as_object().and_then(|value| value.values().next().cloned());
        (one["key"].as_str().expect("a key").to_owned(), value.unwrap_or_default())
    };
    all.iter().map(pair).collect()
}
