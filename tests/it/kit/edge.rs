//! Real caches in front of an origin, with the configurations that `headwater edge` prints, and a
//! tap between the two that records the requests to the origin.

use crate::kit::redis::{free_port, signal};
use crate::kit::{BINARY, PATIENCE, Random, now_ms};
use headwater::client::http::Address;
use headwater::client::{EventSource, Interruption, Signal};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Returns the output of `headwater edge …`.
pub fn edge(words: &[&str]) -> String {
    let output = Command::new(BINARY).arg("edge").args(words).output().expect("it starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A cache: a program, its configuration in a directory of its own, and a port. The program ends
/// when the value is dropped.
pub struct Cache {
    child: Child,
    program: &'static str,
    arguments: Vec<String>,
    _directory: TempDir,
    /// The port to which clients connect.
    pub port: u16,
    /// The port of the program that is stopped and started again.
    pub own_port: u16,
    /// The program in front of this one and behind it, if there is one.
    _front: Option<Box<Self>>,
}

impl Cache {
    /// Varnish with the shipped VCL, run with the parameters of its head.
    pub fn varnish(origin_port: u16) -> Self {
        Self::varnish_with(&edge(&["varnish", "--origin", &format!("127.0.0.1:{origin_port}")]))
    }

    /// Varnish with the given VCL.
    pub fn varnish_with(vcl: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let file = directory.path().join("headwater.vcl");
        std::fs::write(&file, vcl).expect("it is written");
        let mut arguments: Vec<String> =
            ["-F", "-j", "none", "-T", "none", "-n"].map(str::to_owned).into();
        arguments.push(directory.path().join("run").display().to_string());
        arguments.extend(["-a".to_owned(), format!("127.0.0.1:{port}")]);
        arguments.extend(["-f".to_owned(), file.display().to_string()]);
        arguments.extend(run_parameters(vcl));
        Self::launch("varnishd", arguments, directory, port)
    }

    /// Squid with the shipped file, between the listeners of an nginx with the profile for Squid.
    pub fn squid(origin_port: u16) -> Self {
        Self::squid_with(origin_port, [&[], &[]], |text| text)
    }

    /// Squid with a changed file, and additional flags for its file and for that of nginx.
    pub fn squid_with(
        origin_port: u16,
        [for_squid, for_nginx]: [&[&str]; 2],
        change: fn(String) -> String,
    ) -> Self {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let (port, squid_port, inner_port) = (free_port(), free_port(), free_port());
        let (outer, squid, inner) = (at(port), at(squid_port), at(inner_port));
        let origin = at(origin_port);
        let words = ["nginx", "--profile", "squid", "--origin", &origin, "--squid", &squid];
        let words = [&words[..], &["--listen", &outer, "--inner-listen", &inner], for_nginx];
        let directory = tempfile::tempdir().expect("a directory");
        // nginx starts first, because Squid checks at its start whether its peer listens.
        let nginx = Self::nginx_of(&edge(&words.concat()), directory, port);
        let words = ["squid", "--origin", &inner, "--listen", &squid];
        let text = change(edge(&[&words[..], for_squid].concat()));
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("squid.conf");
        // Several Squids run at once, so they may not share a pid file.
        let own = "pid_filename none\ncache_log /dev/null\n";
        std::fs::write(&file, text + own).expect("it is written");
        let arguments = ["-N", "-d", "1", "-f", &file.display().to_string()];
        let arguments = arguments.map(str::to_owned).into();
        let mut cache = Self::launch("squid", arguments, directory, squid_port);
        cache._front = Some(Box::new(nginx));
        cache.port = port;
        cache
    }

    /// nginx with one of the shipped profiles that accept plain HTTP.
    pub fn nginx(profile: &str, origin_port: u16) -> Self {
        Self::nginx_before(profile, &[origin_port], |text| text)
    }

    /// nginx with a changed version of a shipped profile, in front of one or more origins.
    pub fn nginx_before(profile: &str, ports: &[u16], change: fn(String) -> String) -> Self {
        let (directory, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let origins: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let (origins, listen) = (origins.join(","), format!("127.0.0.1:{port}"));
        let cache = directory.path().join("cache").display().to_string();
        let words = ["nginx", "--profile", profile, "--origin", &origins, "--listen", &listen];
        let words = [&words[..], &["--cache-dir", &cache]].concat();
        Self::nginx_of(&change(edge(&words)), directory, port)
    }

    /// nginx with TLS and HTTP/2 in front of a Varnish.
    pub fn nginx_tls(varnish_port: u16, certificate: &Certificate) -> Self {
        let (directory, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let origin = format!("127.0.0.1:{varnish_port}");
        let listen = format!("127.0.0.1:{port}");
        let (chain, key) = (certificate.path("chain.pem"), certificate.path("key.pem"));
        let words = ["nginx", "--profile", "varnish", "--origin", &origin, "--listen", &listen];
        let tls = ["--certificate", &chain, "--certificate-key", &key];
        Self::nginx_of(&edge(&[&words[..], &tls].concat()), directory, port)
    }

    /// nginx with the configuration that `text` returns for its port.
    pub fn nginx_own(text: impl FnOnce(u16) -> String) -> Self {
        let port = free_port();
        Self::nginx_of(&text(port), tempfile::tempdir().expect("a directory"), port)
    }

    fn nginx_of(text: &str, directory: TempDir, port: u16) -> Self {
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, text).expect("it is written");
        // The workers of nginx give up root, and must still be able to reach their cache.
        let mut open = Command::new("chmod");
        assert!(open.arg("755").arg(directory.path()).status().expect("chmod runs").success());
        let in_directory = |name: &str| directory.path().join(name).display().to_string();
        let arguments = [
            "-c",
            &in_directory("nginx.conf"),
            "-e",
            &in_directory("error.log"),
            "-g",
            &format!("daemon off; pid {};", in_directory("pid")),
        ];
        Self::launch("nginx", arguments.map(str::to_owned).into(), directory, port)
    }

    fn launch(
        program: &'static str,
        arguments: Vec<String>,
        directory: TempDir,
        port: u16,
    ) -> Self {
        let child = start(program, &arguments, port);
        let (_directory, own_port, _front) = (directory, port, None);
        Self { child, program, arguments, _directory, port, own_port, _front }
    }

    pub fn address(&self) -> Address {
        format!("http://127.0.0.1:{}", self.port).parse().expect("an address")
    }

    pub fn source(&self, path: &str, cursor: Option<&str>) -> EventSource {
        EventSource::new(self.address(), path, cursor)
    }

    /// Stops the program, as a service manager would.
    pub fn stop(&mut self) {
        signal(self.child.id(), "TERM");
        self.child.wait().expect("it is gone");
    }

    /// Starts the stopped program again, on the same port.
    pub fn start_again(&mut self) {
        self.child = start(self.program, &self.arguments, self.own_port);
    }
}

impl Drop for Cache {
    /// Sends SIGTERM, because a killed program would leave its workers behind.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            Command::new("kill").arg(self.child.id().to_string()).status().ok();
            self.child.wait().ok();
        }
    }
}

/// Returns the parameters of the command line in the head of the VCL.
pub fn run_parameters(vcl: &str) -> Vec<String> {
    let head = vcl.split("vcl 4.1;").next().expect("a head");
    let command = head.split("varnishd -a").nth(1).expect("a command line");
    let command = command.split("#\n").next().expect("its end").replace(['#', '\\'], " ");
    let words: Vec<&str> = command.split_whitespace().collect();
    let from = words.iter().position(|word| *word == "-s").expect("parameters");
    words[from..].iter().map(|word| word.to_string()).collect()
}

fn start(program: &str, arguments: &[String], port: u16) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} starts: {error}"));
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if child.try_wait().expect("a child").is_some() || begun.elapsed() > PATIENCE {
            let mut why = String::new();
            let mut pipe = child.stderr.take().expect("standard error is piped");
            std::io::Read::read_to_string(&mut pipe, &mut why).ok();
            panic!("{program} does not serve:\n{why}");
        }
        #[expect(clippy::disallowed_methods, reason = "no runtime here")]
        std::thread::sleep(Duration::from_millis(20));
    }
    // A thread reads the pipe to its end, so that the program never blocks on a full pipe.
    let pipe = child.stderr.take().expect("standard error is piped");
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::BufReader::new(pipe), &mut std::io::sink())
    });
    child
}

/// A self-signed certificate for 127.0.0.1.
pub struct Certificate(TempDir);

impl Certificate {
    pub fn new() -> Self {
        let certificate = Self(tempfile::tempdir().expect("a directory"));
        let (key, chain) = (certificate.path("key.pem"), certificate.path("chain.pem"));
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "3", "-subj", "/CN=localhost", "-keyout", &key, "-out"])
            .args([&chain, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            // Clients trust it directly, without an authority.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .output()
            .expect("openssl runs (Debian package openssl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        certificate
    }

    pub fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.display().to_string()
    }
}

/// A request that reached the origin, and its time (ms since the Unix epoch).
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub at: u64,
    pub target: String,
    pub cursor: Option<String>,
    /// Whether the same request came before.
    is_again: bool,
    /// When the head of its answer came.
    answered_at: Option<u64>,
    /// Until when the origin lets a cache reuse the answer; `None` before the answer came.
    fresh_until: Option<u64>,
    /// The same by `max-age` alone, which has whole seconds.
    kept_until: Option<u64>,
    /// When its connection ended.
    cut_at: Option<u64>,
}

/// Forwards everything between a cache and an origin, and records each request.
pub struct Tap {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    accepting: tokio::task::AbortHandle,
}

impl Tap {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                tokio::spawn(tapped(near, port, seen.clone()));
            }
        });
        Self { port: own, asked, accepting: accepting.abort_handle() }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// The number of requests so far.
    pub fn count(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn tapped(near: TcpStream, port: u16, seen: Arc<Mutex<Vec<Asked>>>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    // A cache sends no request before the last answer is complete, so one is enough.
    let running = Mutex::new(None);
    // If either end closes, both do: an aborted answer must arrive as an aborted one.
    tokio::select! {
        () = note_requests(near_read, far_write, &seen, &running) => {}
        () = note_answers(far_read, near_write, &seen, &running) => {}
    }
    let last = *running.lock().expect("no panic");
    if let Some(last) = last {
        seen.lock().expect("no panic")[last].cut_at = Some(now_ms());
    }
}

async fn note_requests(
    mut near: OwnedReadHalf,
    mut far: OwnedWriteHalf,
    seen: &Mutex<Vec<Asked>>,
    running: &Mutex<Option<usize>>,
) {
    let (mut heads, mut buffer) = (String::new(), [0; 16 * 1024]);
    while let Ok(count @ 1..) = near.read(&mut buffer).await {
        heads.push_str(&String::from_utf8_lossy(&buffer[..count]));
        while let Some((head, rest)) = heads.split_once("\r\n\r\n") {
            let mut seen = seen.lock().expect("no panic");
            *running.lock().expect("no panic") = Some(seen.len());
            let mut asked = Asked::parse(head);
            asked.is_again = seen.iter().any(|earlier| earlier.is_for_the_same(&asked));
            seen.push(asked);
            heads = rest.to_owned();
        }
        if far.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn note_answers(
    mut far: OwnedReadHalf,
    mut near: OwnedWriteHalf,
    seen: &Mutex<Vec<Asked>>,
    running: &Mutex<Option<usize>>,
) {
    let (mut head, mut noted, mut buffer) = (String::new(), None, [0; 16 * 1024]);
    while let Ok(count @ 1..) = far.read(&mut buffer).await {
        let running = *running.lock().expect("no panic");
        if noted != running {
            head.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if let (true, Some(running)) = (head.contains("\r\n\r\n"), running) {
                let asked = &mut seen.lock().expect("no panic")[running];
                asked.answered_at = Some(now_ms());
                asked.kept_until = fresh_for(&head, "max-age=");
                asked.fresh_until = fresh_for(&head, "headwater-fresh: ").or(asked.kept_until);
                (noted, head) = (Some(running), String::new());
            }
        }
        if near.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Returns the instant until which an answer is fresh, by its head.
fn fresh_for(head: &str, word: &str) -> Option<u64> {
    let (_, seconds) = head.split_once(word)?;
    let seconds = seconds.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    Some(now_ms() + (seconds.parse::<f64>().ok()? * 1_000.0) as u64)
}

impl Asked {
    /// Whether the request is for a client that was disconnected inside a segment.
    pub fn is_straggler(&self) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| !cursor.contains('.'))
    }

    /// The second at which the answer was to end, by the origin's headers.
    pub fn end_s(&self) -> Option<u64> {
        self.fresh_until.map(|until| (until + 500) / 1_000)
    }

    /// Whether a cache should have answered `later` with the answer to this request.
    pub fn answers(&self, later: &Self) -> bool {
        self.is_whole_until(self.fresh_until, later, 100)
    }

    /// As `answers`, for a cache that uses `max-age` and counts in whole seconds.
    pub fn answers_by_max_age(&self, later: &Self) -> bool {
        // When an answer has expired, Squid looks it up first, and only then checks whether a new
        // one is being fetched. A request between whose two lookups the new answer arrives finds
        // neither and is forwarded (seen in Squid's own log). It still counts for the bound.
        let is_crossing = self.answered_at.is_some_and(|at| later.at < at + 20);
        // Squid drops a request whose client leaves before the answer, and sends one for the next
        // client. Within a millisecond, the tap may record the two in either order.
        let is_given_up =
            later.answered_at.is_none() && later.cut_at.is_some_and(|cut| cut < later.at + 20);
        let is_expected = is_given_up || self.is_again && is_crossing;
        !is_expected && self.is_whole_until(self.kept_until, later, 1_100)
    }

    /// `apart` is the difference in ms between the clocks by which the cache and the tap read the
    /// head.
    fn is_whole_until(&self, until: Option<u64>, later: &Self, apart: u64) -> bool {
        self.is_for_the_same(later)
            && until.is_some_and(|until| later.at + apart < until)
            && self.cut_at.is_none_or(|cut| later.at + 100 < cut)
    }

    /// Whether both requests have the same cache key.
    pub fn is_for_the_same(&self, other: &Self) -> bool {
        self.target == other.target && self.cursor == other.cursor
    }

    fn parse(head: &str) -> Self {
        let target = head.split(' ').nth(1).expect("a target").to_owned();
        let cursor = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("last-event-id").then(|| value.trim().to_owned())
        });
        Self { at: now_ms(), target, cursor, ..Self::default() }
    }
}

/// Observations of a group of clients beside its events.
#[derive(Default)]
pub struct Notes {
    /// Channel and cursor of each client that was disconnected.
    pub broken: Mutex<HashSet<(String, String)>>,
    /// How often a client disconnected or was disconnected.
    pub breaks: AtomicUsize,
}

/// One of many clients: it follows a channel, whose events are 1, 2, 3 …, to the last event.
pub struct Follower {
    pub channel: String,
    pub source: EventSource,
    pub random: Random,
    /// The percentage of clients that disconnect in each second.
    pub abort: u64,
    pub notes: Arc<Notes>,
}

impl Follower {
    /// Runs until the client has event number `last`, whenever that is published. Each event must
    /// come once and in order, and the source may never close. Returns the number of planned
    /// reconnects.
    pub async fn follow(mut self, mut last: watch::Receiver<Option<u64>>) -> u64 {
        let (mut seen, mut planned) = (None, 0);
        // The clients do not disconnect all at once, since they would have the same cursor.
        let first = Duration::from_millis(self.random.below(1_000));
        let first = tokio::time::Instant::now() + first;
        let mut seconds = tokio::time::interval_at(first, Duration::from_secs(1));
        while last.borrow().is_none() || *last.borrow() != seen {
            tokio::select! {
                signal = self.source.next() => planned += self.take(signal, &mut seen),
                // Each tick also cancels a connection that is being opened.
                _ = seconds.tick(), if self.abort > 0 => {
                    if self.random.below(100) < self.abort {
                        self.note_break();
                        let pause = Duration::from_millis(self.random.below(300));
                        self.source.disconnect(pause);
                    }
                }
                changed = last.changed() => changed.expect("somebody publishes"),
            }
        }
        planned
    }

    fn take(&mut self, signal: Signal, seen: &mut Option<u64>) -> u64 {
        match signal {
            Signal::Message(message) if message.kind == "message" => {
                let number: u64 = message.data.parse().expect("a number");
                let expected = seen.map_or(number, |seen| seen + 1);
                assert_eq!(number, expected, "{}: after {seen:?}", self.channel);
                *seen = Some(number);
            }
            // An edge that does not reach its origin sheds its clients for a while.
            Signal::Message(message) => {
                assert!(["segment", "shed"].contains(&&*message.kind), "{}", message.data);
            }
            Signal::Opened => {}
            Signal::Reconnecting { why: Interruption::End, .. } => return 1,
            Signal::Reconnecting { why: Interruption::Broken(_), .. } => self.note_break(),
            Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
        }
        0
    }

    fn note_break(&self) {
        let cursor = self.source.last_event_id().to_owned();
        let place = (self.channel.clone(), cursor);
        self.notes.breaks.fetch_add(1, Ordering::Relaxed);
        self.notes.broken.lock().expect("no panic").insert(place);
    }
}
