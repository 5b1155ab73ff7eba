//! Shared helpers of the tests: they run the real binary on free ports, and send requests to it.

pub mod authority;
pub mod client;
pub mod collector;
pub mod edge;
pub mod engine;
pub mod history;
mod load;
pub mod machine;
pub mod prometheus;
pub mod redis;
pub mod socket;
pub mod visitor;
pub mod websocket;

pub use load::{alone, quiet};

use bytes::Bytes;
use headwater::client::EventSource;
use headwater::client::http::{Address, Connection, HttpError, text};
use headwater::client::{Message, Signal};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeBounds;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Passes the socket with the number `$0` to a program as systemd's socket activation does.
const ACTIVATE: &str = "exec 3<&$0 && LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";

pub const BINARY: &str = env!("CARGO_BIN_EXE_headwater");
/// The time limit for everything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running `headwater serve`. The process is killed when the value is dropped.
pub struct Origin {
    child: Child,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    logged: Arc<Mutex<Vec<String>>>,
}

/// The metrics of an origin at an instant, as text.
pub struct Metrics(String);

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Origin {
    /// Starts an origin with a store in memory and the default settings.
    pub fn start() -> Self {
        Self::with(&["--store", "memory"])
    }

    /// Starts an origin with these flags, on free ports.
    pub fn with(flags: &[&str]) -> Self {
        Self::wrapped(&[], flags)
    }

    /// As `with`, but the machine's clock appears to be off by this amount (`-1h`, `+0.2s`).
    pub fn with_clock(off: &str, flags: &[&str]) -> Self {
        // The command `faketime` is not used: it stays as a parent process, and a kill would hit it
        // instead of the origin.
        let library = "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1";
        let off = format!("FAKETIME={off}");
        Self::wrapped(&["env", library, &off, "FAKETIME_DONT_FAKE_MONOTONIC=1"], flags)
    }

    /// As `with`, but the origin inherits the socket that clients connect to. This process keeps it
    /// while no origin runs.
    pub fn inheriting(socket: &TcpListener, flags: &[&str]) -> Self {
        fcntl_setfd(socket, FdFlags::empty()).expect("a descriptor");
        let number = socket.as_raw_fd().to_string();
        let origin = Self::wrapped(&["bash", "-c", ACTIVATE, &number], flags);
        assert_eq!(origin.listen, socket.local_addr().expect("an address"));
        origin
    }

    /// As `with`, but started through another command that executes the binary in its own process.
    pub fn wrapped(wrapper: &[&str], flags: &[&str]) -> Self {
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let arguments = fixed.iter().chain(flags).map(|flag| flag.to_string()).collect();
        let wrapper = wrapper.iter().map(|word| word.to_string()).collect();
        if flags.windows(2).any(|pair| pair == ["--segment", "10m"]) {
            wait_for_a_young_segment();
        }
        Self::launch(wrapper, arguments)
    }

    fn launch(wrapper: Vec<String>, arguments: Vec<String>) -> Self {
        let mut words = wrapper.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().expect("a command"));
        // A configuration file of this machine shall not change the tests.
        command.args(words).args(&arguments).env("HEADWATER_CONFIG", "");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("standard error is piped")).lines();
        let (send, receive) = mpsc::channel();
        let logged = Arc::new(Mutex::new(Vec::new()));
        let log = logged.clone();
        // The thread ends with the process; it copies the log lines to the test's own output.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let address = line.split("://").nth(1).and_then(|rest| rest.split('/').next());
                if let (Some(address), true) = (address, line.starts_with("headwater: ")) {
                    send.send(address.parse::<SocketAddr>().expect("an address")).ok();
                } else {
                    println!("{line}");
                    log.lock().unwrap().push(line);
                }
            }
        });
        let address = || receive.recv_timeout(PATIENCE).expect("it says where it listens");
        let (listen, admin) = (address(), address());
        Self { child, arguments, wrapper, listen, admin, logged }
    }

    /// Starts an ended process again, on the same ports and with the same flags.
    pub fn start_again(&mut self) {
        let mut arguments = self.arguments.clone();
        arguments[2] = self.listen.to_string();
        arguments[4] = self.admin.to_string();
        *self = Self::launch(self.wrapper.clone(), arguments);
    }

    /// Returns the cursor before the first event of every channel.
    pub async fn beginning(&self) -> String {
        let state = self.get("/channels/nobody.has.published.here/state").await.json();
        state["cursor"].as_str().expect("a cursor").to_owned()
    }

    /// How many lines of the log, since the last start, contain these words.
    pub fn logged(&self, words: &str) -> usize {
        self.logged.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// Waits until a line of the log contains these words.
    pub async fn logs(&self, words: &str) {
        self.logs_times(words, 1).await;
    }

    /// Waits until so many lines of the log contain these words.
    pub async fn logs_times(&self, words: &str, count: usize) {
        let is_logged = async {
            while self.logged(words) < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, is_logged).await;
        assert!(in_time.is_ok(), "the log says: {words}");
    }

    /// Waits until `/readyz` answers with this status, and returns its body.
    pub async fn becomes(&self, status: u16) -> String {
        let becomes = async {
            loop {
                let answer = self.get("/readyz").await;
                if answer.status == status {
                    return answer.body;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, becomes).await.expect("it becomes so")
    }

    /// Checks the signs of a fault, or of its end (`Ok`), that operators see: the status and the
    /// text of `/readyz`, the gauge with the same meaning, a line of the log, and a metric.
    pub async fn shows(
        &self,
        readiness: Result<(), &str>,
        logged: &str,
        (metric, values): (&str, impl RangeBounds<f64>),
    ) {
        let status = if readiness.is_ok() { 200 } else { 503 };
        let said = self.becomes(status).await;
        assert!(said.contains(readiness.err().unwrap_or_default()), "{said}");
        assert_eq!(self.metric("headwater_ready").await, f64::from(status == 200));
        self.logs(logged).await;
        let value = self.metric(metric).await;
        assert!(values.contains(&value), "{metric} {value}");
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process with SIGKILL, and waits until it has ended.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        redis::signal(self.pid(), name);
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let waited = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waited).await.expect("it ends")
    }

    pub fn address(&self) -> Address {
        format!("http://{}", self.listen).parse().expect("an address")
    }

    pub fn source(&self, path: &str, cursor: Option<&str>) -> EventSource {
        EventSource::new(self.address(), path, cursor)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.request(Method::POST, path, headers, body.to_owned()).await
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let answer = self.try_request(method, path, headers, body.into()).await;
        answer.expect("the origin answers")
    }

    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        request(&self.address(), method, path, headers, body).await
    }

    /// Publishes one event, and returns its id.
    pub async fn publish(&self, channel: &str, data: &str) -> String {
        self.publish_with(channel, "", data).await
    }

    /// Publishes one event with query parameters, and returns its id.
    pub async fn publish_with(&self, channel: &str, query: &str, data: &str) -> String {
        let answer = self.post(&format!("/channels/{channel}?{query}"), &[], data).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Publishes a batch, and returns the ids of its events.
    pub async fn publish_lines(&self, channel: &str, lines: &str) -> Vec<String> {
        let kind = [("content-type", "application/x-ndjson")];
        let answer = self.post(&format!("/channels/{channel}"), &kind, lines).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let answer = answer.json();
        let ids = answer["ids"].as_array().expect("ids").iter();
        ids.map(|id| id.as_str().expect("an id").to_owned()).collect()
    }

    /// Reads the whole channel page by page. Returns id and data of every event without an event
    /// type. A page is requested again while the store does not answer in time, as the problem says.
    pub async fn log(&self, channel: &str) -> Vec<(String, String)> {
        let (mut events, mut after) = (Vec::new(), "0-0".to_owned());
        loop {
            let path = format!("/channels/{channel}/history?limit=1000&after={after}");
            let mut answer = self.get(&path).await;
            let first = Instant::now();
            while answer.status == StatusCode::SERVICE_UNAVAILABLE && first.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(100)).await;
                answer = self.get(&path).await;
            }
            let page = answer.json();
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let new = page["events"].as_array().expect("events");
            let is_untyped = |event: &&Value| event["type"] == "event" && event["event"].is_null();
            let untyped = new.iter().filter(is_untyped);
            events.extend(untyped.map(|event| (text(&event["id"]), text(&event["data"]))));
            if new.is_empty() {
                return events;
            }
            after = text(&page["next"]);
        }
    }

    /// Opens a connection, and sends the bytes unchanged.
    pub async fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.listen).await.expect("it listens");
        stream.write_all(bytes).await.expect("it reads");
        stream
    }

    /// Returns a counter or gauge, 0 if it has not been set yet.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metrics().await.value(name)
    }

    /// Returns all metrics.
    pub async fn metrics(&self) -> Metrics {
        let admin = format!("http://{}", self.admin).parse().expect("an address");
        let answer = request(&admin, Method::GET, "/metrics", &[], Bytes::new()).await;
        Metrics(answer.expect("metrics").body)
    }
}

impl Metrics {
    /// Returns a counter or gauge, 0 if it has not been set yet.
    pub fn value(&self, name: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// Checks that the answer is a complete problem document, with a title and a detail.
    pub fn assert_problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:headwater:problem:{slug}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        problem
    }
}

pub async fn request(
    address: &Address,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(address).await?;
    let mut request = connection.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = connection.send(request, body).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    Ok(Answer { status, headers, body: text(answer).await? })
}

/// Runs a program of the repository with these arguments and variables, and returns its output. It
/// has a lower priority than the tests that look at delays.
///
/// # Panics
/// When the program fails.
pub async fn run_script(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new("nice");
    command.args(["-n", "10", program]).args(arguments).envs(variables.iter().copied());
    let output = command.kill_on_drop(true).output().await.expect("nice runs");
    let report = [output.stdout, output.stderr].concat();
    let report = String::from_utf8_lossy(&report).into_owned();
    assert!(output.status.success(), "{program}: {}\n{report}", output.status);
    report
}

/// Returns the next event that is neither a `segment` event nor a `shed` event.
pub async fn next_message(source: &mut EventSource) -> Message {
    let next = async {
        loop {
            match source.next().await {
                Signal::Message(message) if !["segment", "shed"].contains(&&*message.kind) => {
                    return message;
                }
                Signal::Closed { status, why } => panic!("closed: {status:?} {why}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("an event comes")
}

/// Reads until `enough` is true of all received text, or the stream ends. Fails after [`PATIENCE`].
pub async fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut buffer = [0; 16 * 1024];
        while !enough(&String::from_utf8_lossy(&all)) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, read).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(outcome.is_ok(), "too little came: {text:?}");
    text
}

/// Returns the request for a stream, as bytes.
pub fn get(path: &str, cursor: Option<&str>) -> Vec<u8> {
    let cursor = cursor.map(|cursor| format!("Last-Event-ID: {cursor}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{cursor}\r\n").into_bytes()
}

/// Decodes a chunked body. Returns it, and whether its last chunk came.
pub fn unchunk(answer: &str) -> (String, bool) {
    let mut rest = answer.split_once("\r\n\r\n").expect("a head").1;
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    headwater::sync::clock::Clock::default().machine_now()
}

/// Waits until the time since the last multiple of `length` is in `after..before`; all are in ms.
pub async fn wait_for_phase(length: u64, after: u64, before: u64) {
    while !(after..before).contains(&(now_ms() % length)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the boundary of a segment of ten minutes is at least 90 s away. A test sets this length
/// when its streams shall run on until it ends.
fn wait_for_a_young_segment() {
    while now_ms() % 600_000 > 510_000 {
        #[expect(clippy::disallowed_methods, reason = "no runtime here")]
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A generator of pseudo-random numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number below `limit`, by Marsaglia's xorshift64.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
