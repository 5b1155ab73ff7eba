//! A page with a native `EventSource` in a real browser engine, which reports to the test
//! everything that it observes.
//!
//! The page runs by itself and posts its record. No driver stands between it and the cache, so all
//! three engines run the same way. All processes of a browser end when its value is dropped, and
//! they connect to this machine only.

use crate::kit::edge::{Cache, edge};
use crate::kit::now_ms;
use crate::kit::redis::signal;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

const SCRIPT: &str = include_str!("engine_page.js");
/// The page loads the script that its URL names. It contains no `'` and no `$`, because nginx could
/// not quote them.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>EventSource</title><body><script>
document.body.append(Object.assign(document.createElement("script"), { src: location.hash.slice(1) }));
</script>"#;
/// A browser starts slowly on a busy machine, and EventSource itself waits some seconds to
/// reconnect.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each browser is a dozen processes; more than two at once would slow down each other and the
/// other tests.
pub(super) static TURNS: Semaphore = Semaphore::const_new(2);

#[derive(Clone, Copy, Debug)]
pub enum Engine {
    Chromium,
    Firefox,
    WebKit,
}

/// The observations of a page so far; instants are ms since the Unix epoch.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Seen {
    pub opened: Vec<u64>,
    /// The id and the data of each event.
    pub messages: Vec<(String, String)>,
    /// The numbers of the segments that the page received.
    pub segments: BTreeSet<u64>,
    pub gaps: Vec<String>,
    /// The instant and the `readyState` of each error.
    pub errors: Vec<(u64, u8)>,
    /// The id and the data of each event that the client module delivered.
    pub module: Vec<(String, String)>,
    /// Each status of the client module.
    pub statuses: Vec<String>,
    /// In a page that was opened with `open_for_pauses`.
    #[serde(default)]
    pub pauses: Pauses,
}

/// The times from each event to the next one, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pauses {
    /// Those from the last event of a segment to the first one of the next.
    pub boundaries: Vec<f64>,
    /// For each number of milliseconds, how many of the other times are about that long.
    pub others: Vec<u64>,
    /// The number of all events.
    pub events: usize,
    /// The ids of the first and of the last event.
    pub first: Option<String>,
    pub last: Option<String>,
}

/// The web origin of the page that follows the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// The web origin of the cache.
    Same,
    /// Another web origin of the same site, so that CORS applies.
    Other,
    /// The web origin of another site.
    Cross,
}

/// The web server of a page that is not open yet.
pub struct Home(TcpListener);

impl Home {
    pub async fn start() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port"))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// The web origin of a page that is opened from this server.
    pub fn origin(&self, site: Site) -> String {
        let host = if site == Site::Cross { "localhost" } else { "127.0.0.1" };
        format!("http://{host}:{}", self.address().port())
    }
}

/// A browser with a page that follows one stream. The browser ends when the value is dropped.
pub struct Page {
    engine: Engine,
    /// The period in which connections are refused, for an engine that closes the source then; the
    /// page opens another source.
    pub refused: Range<u64>,
    reports: watch::Receiver<Seen>,
    // Fields are dropped in this order: the next browser starts when all of this one has ended.
    _browser: Browser,
    _collecting: JoinSet<()>,
    _turn: SemaphorePermit<'static>,
}

impl Seen {
    /// The number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.messages.last().map_or(0, |(_, data)| data.parse().expect("a number"))
    }

    pub fn newest_segment(&self) -> u64 {
        self.segments.last().copied().unwrap_or_default()
    }

    /// Whether the stream has ended at or after `instant`, and a further attempt has failed.
    pub fn has_tried_in_vain_since(&self, instant: u64) -> bool {
        self.errors.iter().filter(|(at, _)| *at >= instant).count() > 1
    }

    /// Whether the source was closed for another reason than a refused connection.
    fn was_closed(&self, refused: &Range<u64>) -> bool {
        const CLOSED: u8 = 2;
        let mut closed = self.errors.iter().filter(|(_, state)| *state == CLOSED);
        closed.any(|(at, _)| {
            let is_answered = self.opened.iter().any(|opened| (refused.end..=*at).contains(opened));
            *at < refused.start || is_answered
        })
    }
}

impl Page {
    /// Waits for a free turn, and opens a page that follows a path of the cache.
    pub async fn open(engine: Engine, site: Site, cache: &Cache, path: &str) -> Self {
        Self::open_at(Home::start().await, engine, site, cache, path, "script").await
    }

    /// As `open`, but the page sends credentials with its request.
    pub async fn open_with_credentials(
        home: Home,
        engine: Engine,
        site: Site,
        cache: &Cache,
        path: &str,
    ) -> Self {
        Self::open_at(home, engine, site, cache, path, "script-with-credentials").await
    }

    /// As `open`, but the page also follows the stream with the client module.
    pub async fn open_with_module(engine: Engine, site: Site, cache: &Cache, path: &str) -> Self {
        let home = Home::start().await;
        Self::open_at(home, engine, site, cache, path, "script-with-module").await
    }

    /// Opens a page that only measures the pauses between events, with the client module or a native
    /// `EventSource`.
    pub async fn open_for_pauses(
        engine: Engine,
        is_native: bool,
        cache: &Cache,
        path: &str,
    ) -> Self {
        let script = if is_native { "script-pauses-native" } else { "script-pauses" };
        Self::open_at(Home::start().await, engine, Site::Other, cache, path, script).await
    }

    async fn open_at(
        home: Home,
        engine: Engine,
        site: Site,
        cache: &Cache,
        path: &str,
        script: &str,
    ) -> Self {
        let turn = TURNS.acquire().await.expect("never closed");
        let own = home.address();
        let page = match site {
            Site::Same => format!("http://127.0.0.1:{}", cache.port),
            Site::Other | Site::Cross => home.origin(site),
        };
        let (send, reports) = watch::channel(Seen::default());
        let mut collecting = JoinSet::new();
        collecting.spawn(collect(home.0, send));
        let stream = format!("http://127.0.0.1:{}{path}", cache.port);
        let url = format!("{page}/page#http://{own}/{script}?{stream}");
        let browser = Browser::start(engine, &url);
        Self {
            engine,
            refused: u64::MAX..u64::MAX,
            reports,
            _browser: browser,
            _collecting: collecting,
            _turn: turn,
        }
    }

    /// Waits until `enough` is true of the page's record. Fails if the native EventSource is
    /// CLOSED.
    pub async fn until(&mut self, what: &str, enough: impl Fn(&Seen) -> bool) -> Seen {
        let is_over = |seen: &Seen| seen.was_closed(&self.refused);
        let met = self.reports.wait_for(|seen| is_over(seen) || enough(seen));
        let met = tokio::time::timeout(PATIENCE, met).await.map(|seen| seen.map(|s| s.clone()));
        let engine = self.engine;
        match met {
            Ok(Ok(seen)) if is_over(&seen) => panic!("{engine:?} is CLOSED: {seen:#?}"),
            Ok(Ok(seen)) => seen,
            _ => panic!("{engine:?}: {what}? At {}: {:#?}", now_ms(), *self.reports.borrow()),
        }
    }
}

/// Varnish with the shipped VCL, which also serves the page.
pub fn varnish_with_page(origin_port: u16) -> Cache {
    let vcl = edge(&["varnish", "--origin", &format!("127.0.0.1:{origin_port}")]);
    let asked = r#"if (req.url == "/page") { return (synth(200)); }"#;
    let with_page = vcl.replacen("sub vcl_recv {", &format!("sub vcl_recv {{ {asked}"), 1);
    assert_ne!(with_page, vcl);
    let html = format!(r#"set resp.http.Content-Type = "text/html"; synthetic("""{PAGE}""");"#);
    let answer = format!(r#"if (req.url == "/page") {{ {html} return (deliver); }}"#);
    Cache::varnish_with(&format!("{with_page}\nsub vcl_synth {{ {answer} }}\n"))
}

/// nginx with a shipped profile, which also serves the page.
pub fn nginx_with_page(profile: &str, origin_port: u16) -> Cache {
    Cache::nginx_before(profile, &[origin_port], |text| {
        let page = format!("location = /page {{ default_type text/html; return 200 '{PAGE}'; }}");
        let with_page = text.replacen("server {", &format!("server {{ {page}"), 1);
        assert_ne!(with_page, text);
        with_page
    })
}

/// Serves the page of another web origin and the script, and receives the reports.
async fn collect(listener: TcpListener, reports: watch::Sender<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let reports = reports.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &reports));
            let builder = hyper::server::conn::http1::Builder::new();
            // A browser that ends aborts its connections.
            builder.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    reports: &watch::Sender<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::default());
    match (request.method().clone(), request.uri().path()) {
        (Method::GET, "/page") => {
            *answer.body_mut() = PAGE.into();
            answer.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
        }
        (Method::GET, path) if path.starts_with("/script") => *answer.body_mut() = SCRIPT.into(),
        (Method::POST, "/") => {
            if let Ok(body) = request.into_body().collect().await {
                let report = serde_json::from_slice(&body.to_bytes()).expect("a report");
                reports.send_replace(report);
            }
        }
        // A browser also requests the icon.
        _ => *answer.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(answer)
}

/// The processes of one browser, and their home directory.
pub(super) struct Browser {
    child: Child,
    /// Disconnected when the last process of the browser has ended.
    gone: mpsc::Receiver<()>,
    _display: Option<Display>,
    _home: TempDir,
}

impl Browser {
    pub(super) fn start(engine: Engine, url: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let display = matches!(engine, Engine::WebKit).then(Display::start);
        let mut command = match engine {
            Engine::Chromium => chromium(home.path()),
            Engine::Firefox => firefox(home.path()),
            Engine::WebKit => Command::new(mini_browser()),
        };
        // The browser inherits nothing from the user: no bus, no proxy, no settings.
        command.arg(url).env_clear().env("PATH", std::env::var_os("PATH").expect("a PATH"));
        for name in ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"] {
            command.env(name, home.path());
        }
        // The crash reporter would leave the process group.
        command.env("MOZ_CRASHREPORTER_DISABLE", "1");
        command.envs(display.iter().map(|display| ("DISPLAY", &display.name)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.process_group(0).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{engine:?} starts: {error}"));
        let lines = BufReader::new(child.stderr.take().expect("standard error is piped")).lines();
        let (alive, gone) = mpsc::channel();
        // Every process of the browser keeps the pipe open until it ends.
        std::thread::spawn(move || {
            let _alive: mpsc::Sender<()> = alive;
            lines.map_while(Result::ok).for_each(|line| println!("{engine:?}: {line}"));
        });
        Self { child, gone, _display: display, _home: home }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        Command::new("kill").args(["-KILL", "--", &group]).status().ok();
        self.child.wait().ok();
        let left = self.gone.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        assert!(!left || std::thread::panicking(), "a process of the browser lives on");
    }
}

fn chromium(home: &Path) -> Command {
    let mut command = Command::new("chromium");
    // No sandbox and no /dev/shm, as in a container, and no helper that leaves the process group.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--no-first-run", "--disable-quic", "--disable-breakpad"]);
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.args([
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    ]);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    command
}

fn firefox(home: &Path) -> Command {
    let profile = home.join("profile");
    std::fs::create_dir(&profile).expect("it is created");
    let prefs = FIREFOX_PREFS.map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"));
    std::fs::write(profile.join("user.js"), prefs.concat()).expect("it is written");
    let mut command = Command::new("firefox-esr");
    command.args(["--headless", "--no-remote", "--profile"]).arg(profile);
    command
}

/// Turns off the first-run pages, updates, reports and predictions. Any other request to another
/// host goes to a proxy that does not exist; requests to this machine use no proxy.
const FIREFOX_PREFS: [(&str, &str); 28] = [
    ("app.normandy.enabled", "false"),
    ("app.update.auto", "false"),
    ("app.update.enabled", "false"),
    ("browser.aboutwelcome.enabled", "false"),
    ("browser.newtabpage.enabled", "false"),
    ("browser.region.network.url", "\"\""),
    ("browser.safebrowsing.downloads.enabled", "false"),
    ("browser.safebrowsing.malware.enabled", "false"),
    ("browser.safebrowsing.phishing.enabled", "false"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("datareporting.healthreport.uploadEnabled", "false"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("extensions.getAddons.cache.enabled", "false"),
    ("extensions.systemAddon.update.enabled", "false"),
    ("extensions.update.enabled", "false"),
    ("media.gmp-manager.updateEnabled", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("network.prefetch-next", "false"),
    ("network.proxy.allow_bypass", "false"),
    ("network.proxy.failover_direct", "false"),
    ("network.proxy.http", "\"127.0.0.1\""),
    ("network.proxy.http_port", "9"),
    ("network.proxy.ssl", "\"127.0.0.1\""),
    ("network.proxy.ssl_port", "9"),
    ("network.proxy.type", "1"),
    ("toolkit.telemetry.enabled", "false"),
    ("toolkit.telemetry.server", "\"data:,\""),
];

/// The browser that comes with WebKitGTK, wherever it is installed on this machine.
fn mini_browser() -> PathBuf {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let libraries = entries(Path::new("/usr/lib")).flat_map(|machine| entries(&machine.path()));
    let webkits = libraries.filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with("webkit2gtk-4."))
    });
    let found = webkits.map(|webkit| webkit.path().join("MiniBrowser")).find(|path| path.exists());
    found.expect("WebKit's MiniBrowser is there (Debian package webkit2gtk-driver)")
}

/// A virtual display. It ends when the value is dropped.
struct Display {
    child: Child,
    name: String,
}

impl Display {
    fn start() -> Self {
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-nolisten", "tcp"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("Xvfb runs (Debian package xvfb)");
        let mut output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut number = String::new();
        // Xvfb picks a free number and prints it when it is ready.
        output.read_line(&mut number).expect("text");
        assert!(!number.is_empty(), "Xvfb finds no display");
        Self { child, name: format!(":{}", number.trim()) }
    }
}

impl Drop for Display {
    /// Sends SIGTERM, because a killed display would leave its lock file behind.
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        self.child.wait().ok();
    }
}

/// Reserves the port of a stopped server: connections are refused, and no other program can take
/// it.
pub struct Reserved(#[expect(dead_code, reason = "held, not used")] TcpSocket);

impl Reserved {
    pub fn port(port: u16) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // The servers set this option too, so that they can bind to the same port.
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("it was just left");
        Self(socket)
    }
}
