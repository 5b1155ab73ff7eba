//! Headless Chromium for a test, driven by `chromedriver` over its plain HTTP WebDriver API.

use crate::kit::{PATIENCE, request};
use hyper::Method;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tempfile::TempDir;

const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
/// How often to try to start it: an attempt fails only if a port is in use.
const STARTS_MAX: usize = 5;
/// No sandbox and no /dev/shm, as in a container, and no network traffic but that of the test.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    // A host name of another site that resolves to this machine.
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
];

/// A browser with one page. The browser ends when the value is dropped.
pub struct Browser {
    session: String,
    // Fields are dropped in this order: when the profile is removed, no process writes to it any
    // more.
    driver: Driver,
    _profile: TempDir,
}

/// A running `chromedriver`. It ends when the value is dropped; the processes that it started do
/// not.
struct Driver {
    child: Child,
    listen: SocketAddr,
}

impl Browser {
    /// Starts the browser with a fresh profile and an empty page.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As `start`, with further flags.
    pub async fn start_with(more: &[&str]) -> Self {
        let driver = Driver::start();
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let data = format!("--user-data-dir={}", profile.path().display());
        let flags: Vec<&str> =
            FLAGS.into_iter().chain([data.as_str()]).chain(more.iter().copied()).collect();
        let patience = PATIENCE.as_millis() as u64;
        let wanted = json!({
            "goog:chromeOptions": { "binary": CHROMIUM, "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "pageLoad": patience, "script": patience },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let opened = driver.command(Method::POST, "/session", &wanted).await;
        let session = opened["sessionId"].as_str().expect("a session").to_owned();
        Self { session, driver, _profile: profile }
    }

    /// Opens a page, and waits until it has loaded.
    pub async fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url })).await;
    }

    /// Runs the body of a function in the page, and returns its result.
    pub async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true in the page.
    pub async fn wait_for(&self, condition: &str) {
        let script = format!("return Boolean({condition})");
        let wait = async {
            while self.run(&script).await != true {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let shown = self.run("return document.body.innerText").await;
            panic!("the page does not come to {condition}; it shows {shown}");
        }
    }

    /// Runs the body of a function in the page, which passes its result to the function
    /// `arguments[0]`.
    pub async fn run_async(&self, script: &str) -> Value {
        self.post("execute/async", &json!({ "script": script, "args": [] })).await
    }

    /// Opens an empty tab, and goes on in it. Returns the name of the tab that was used before.
    pub async fn open_tab(&self) -> String {
        let before = self.get("window").await;
        let opened = self.post("window/new", &json!({ "type": "tab" })).await;
        self.switch_to(opened["handle"].as_str().expect("a name")).await;
        before.as_str().expect("a name").to_owned()
    }

    /// Goes on in another tab.
    pub async fn switch_to(&self, tab: &str) {
        self.post("window", &json!({ "handle": tab })).await;
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    /// The errors in the console since the last call.
    pub async fn console_errors(&self) -> Vec<String> {
        let lines = self.post("se/log", &json!({ "type": "browser" })).await;
        let lines = lines.as_array().expect("lines").iter();
        let errors = lines.filter(|line| line["level"] == "SEVERE");
        errors.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn get(&self, command: &str) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        self.driver.command(Method::GET, &path, &json!({})).await
    }

    async fn post(&self, command: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        self.driver.command(Method::POST, &path, body).await
    }
}

impl Drop for Browser {
    /// Ends Chromium, which would otherwise outlive its driver.
    fn drop(&mut self) {
        if let Err(error) = self.driver.end(&self.session) {
            eprintln!("chromedriver does not end its session, Chromium may live on: {error}");
        }
    }
}

impl Driver {
    fn start() -> Self {
        (0..STARTS_MAX).find_map(|_| Self::try_start()).expect("chromedriver finds a free port")
    }

    /// Returns `None` if the driver ended at once. It picks a free port on IPv6 and needs the same
    /// port on IPv4, where a connection of another test may use it.
    fn try_start() -> Option<Self> {
        let mut command = Command::new(CHROMEDRIVER);
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{CHROMEDRIVER} does not start (apt-get install chromium-driver): {error}")
        });
        let lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let (send, receive) = mpsc::channel();
        // The thread ends with the process, whose standard output must stay open.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match port(&line) {
                    Some(port) => drop(send.send(port)),
                    None => println!("chromedriver: {line}"),
                }
            }
        });
        let mut driver = Self { child, listen: (Ipv4Addr::LOCALHOST, 0).into() };
        match receive.recv_timeout(PATIENCE) {
            Ok(port) => driver.listen.set_port(port),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("chromedriver does not say where it listens"),
        }
        Some(driver)
    }

    async fn command(&self, method: Method, path: &str, body: &Value) -> Value {
        let address = format!("http://{}", self.listen).parse().expect("an address");
        let answer = request(&address, method, path, &[], body.to_string().into()).await;
        let answer = answer.expect("chromedriver answers");
        let value = answer.json()["value"].take();
        assert!(answer.status.is_success(), "chromedriver refuses {path}: {}", value["message"]);
        value
    }

    /// Works without a runtime, because `Drop` has none. The answer arrives when Chromium has
    /// ended.
    fn end(&self, session: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.listen)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = self.listen;
        write!(stream, "DELETE /session/{session} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status)?;
        if &status != b"HTTP/1.1 200" {
            return Err(io::Error::other(String::from_utf8_lossy(&status)));
        }
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads the port from `ChromeDriver was started successfully on port 4444.`
fn port(line: &str) -> Option<u16> {
    let port = line.split_once("started successfully on port ")?.1;
    Some(port.trim_end_matches('.').parse().expect("a port"))
}
