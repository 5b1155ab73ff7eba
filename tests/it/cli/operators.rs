//! How the process reacts to operators, load balancers and shells: health checks, signals, flags,
//! environment variables, listening addresses and redirects.

use crate::kit::{BINARY, Origin, PATIENCE, get, read_until, request, wait_for_phase};
use headwater::client::http::Address;
use hyper::Method;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

/// A running `headwater serve` with its own listening flags. Dropping the value kills the process.
struct Process {
    child: Child,
    /// The first lines that the process writes to standard error.
    lines: Vec<String>,
}

impl Process {
    fn start(flags: &[&str], environment: &[(&str, &str)], lines: usize) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--store", "memory"]).args(flags).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let first =
            said.by_ref().map_while(Result::ok).filter(|line| line.starts_with("headwater"));
        let lines = first.take(lines).collect();
        // Standard error is read to its end, so that the process never blocks on a full pipe.
        std::thread::spawn(move || said.map_while(Result::ok).for_each(|line| println!("{line}")));
        Self { child, lines }
    }

    /// Returns the HTTP address in the line with this index.
    fn address(&self, line: usize) -> Address {
        let rest = self.lines[line].split("http://").nth(1).expect("an address");
        format!("http://{}", rest.split('/').next().unwrap()).parse().expect("an address")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn readiness_is_the_same_for_every_method_that_load_balancers_use() {
    let redis = crate::kit::redis::RedisServer::start();
    let mut redis = redis;
    let origin = Origin::with(&["--store", &redis.url(), "--store-timeout", "5s"]);
    let admin: Address = format!("http://{}", origin.admin).parse().unwrap();
    let statuses = async || {
        let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
        let asked = [origin.address(), admin.clone()].into_iter().flat_map(|address| {
            methods.clone().map(|method| {
                let address = address.clone();
                async move {
                    let answer = request(&address, method, "/readyz", &[], Default::default());
                    answer.await.expect("an answer").status.as_u16()
                }
            })
        });
        futures_util::future::join_all(asked).await
    };
    assert_eq!(statuses().await, [200; 6]);
    redis.kill();
    assert_eq!(statuses().await, [503; 6]);
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let answer = request(&admin, method, "/healthz", &[], Default::default()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn signals_that_mean_nothing_yet_do_not_end_the_process() {
    let mut origin = Origin::start();
    for name in ["HUP", "USR1", "USR2"] {
        origin.signal(name);
        assert_eq!(origin.get("/healthz").await.status, 200, "{name}");
    }
    origin.logs_times("is ignored: there is nothing that it could reopen", 2).await;
    origin.signal("INT");
    assert!(origin.ended().await.success());
    origin.logs("draining").await;
    assert_eq!(origin.logged("draining"), 1);
}

#[tokio::test]
async fn a_boolean_variable_accepts_1_yes_on_true_0_and_off() {
    for (value, is_on) in
        [("1", true), ("yes", true), ("ON", true), ("true", true), ("0", false), ("off", false)]
    {
        let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let process = Process::start(&free, &[("HEADWATER_DEMO", value)], 2 + usize::from(is_on));
        let answer = request(&process.address(0), Method::GET, "/", &[], Default::default()).await;
        let page = answer.expect("an answer").body;
        assert_eq!(page.contains("id=\"board\""), is_on, "{value}");
    }
}

/// Runs the command with these flags and variables, and returns its exit status and its standard
/// error.
fn refused(flags: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(BINARY);
    let output = command.args(flags).envs(environment.iter().copied()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it ends by itself"), text)
}

#[test]
fn a_mistake_in_flags_or_variables_is_one_exit_status_and_is_named() {
    let check = |flags: &[&str], environment: &[(&str, &str)], expected: &str| {
        let (status, said) = refused(flags, environment);
        assert!(said.contains(expected), "{flags:?}: {said:?} lacks {expected:?}");
        assert_eq!(status, 2, "{flags:?}: {said}");
    };
    check(&["serve", "--max-event", "0"], &[], "--max-event");
    check(&["serve", "--max-connections", "0"], &[], "--max-connections takes 1 or more");
    check(
        &["serve", "--long-poll-linger", "1h"],
        &[],
        "--long-poll-linger takes less than --long-poll-timeout",
    );
    check(&["serve", "--cookie-name", "a=b"], &[], "--cookie-name");
    check(&["serve", "--idle-timeout", "0"], &[], "--idle-timeout takes more than 0");
    check(&["serve", "--allowed-host", "http://a.example"], &[], "without a scheme");
    check(&["edge", "squid", "--origin", "127.0.0.1:3128"], &[], "listens itself");
    let squid = ["edge", "squid", "--origin", "127.0.0.1:3130", "--listen", "3130"];
    check(&squid, &[], "listens itself");
    let nginx = ["edge", "nginx", "--profile", "squid", "--origin", "127.0.0.1:3129"];
    check(&nginx, &[], "listens for Squid");
    check(&["serve", "--listen", "8080"], &[], "localhost:8080");
    check(&["serve", "--nonsense"], &[], "--nonsense");
    check(&["serve", "--segment", "1h"], &[], "--segment takes 1s to 10m");
    let open = ["serve", "--listen", ":0", "--admin-listen", "127.0.0.1:0", "--store", "memory"];
    check(&open, &[], "every client that reaches");
    let secret = "0123456789abcdef0123456789abcdef";
    let token = ["token", "--token-secret", secret, "--publish", "*", "--ttl", "0s"];
    check(&token, &[], "--ttl takes a second or more");
    check(&["token", "--token-secret", secret], &[], "good for nothing");
    // The message names the variable where the value does not come from a flag.
    let variable = [("HEADWATER_SEGMENT", "1h")];
    check(&["serve"], &variable, "--segment is set by HEADWATER_SEGMENT");
    let variable = [("HEADWATER_LANES", "many")];
    check(&["serve"], &variable, "--lanes is set by HEADWATER_LANES");
    check(&["serve"], &[("HEADWATER_SEGMNT", "1s")], "did you mean HEADWATER_SEGMENT?");
    check(&["tail", "a"], &[("HEADWATER_TOKN", "x")], "did you mean HEADWATER_TOKEN?");
}

#[tokio::test]
async fn it_listens_by_name_on_every_address_and_on_several() {
    let by_name = ["--listen", "localhost:0", "--admin-listen", "127.0.0.1:0"];
    let process = Process::start(&by_name, &[], 2);
    let address = process.address(0);
    let answer = request(&address, Method::GET, "/healthz", &[], Default::default()).await;
    assert_eq!(answer.expect("an answer").status, 200);

    let open = ["--open-publish", "--listen", ":0,127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let process = Process::start(&open, &[], 3);
    let port = process.lines[0].rsplit(':').next().unwrap().split('/').next().unwrap();
    let everywhere: Address = format!("http://127.0.0.1:{port}").parse().unwrap();
    for address in [&everywhere, &process.address(1)] {
        let answer = request(address, Method::GET, "/healthz", &[], Default::default()).await;
        assert_eq!(answer.expect("an answer").status, 200, "{:?}", process.lines);
    }
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_and_takes_a_left_over_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("headwater.sock");
    let listen = format!("unix:{}", path.display());
    let flags = ["--listen", &listen, "--admin-listen", "127.0.0.1:0", "--segment", "2s"];
    let mut process = Process::start(&flags, &[], 2);
    let ask = async |request: &str, enough: &str| {
        let mut stream = UnixStream::connect(&path).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut all = Vec::new();
        let read = async {
            while !String::from_utf8_lossy(&all).contains(enough) {
                assert_ne!(stream.read_buf(&mut all).await.expect("bytes"), 0, "too little came");
            }
        };
        timeout(PATIENCE, read).await.expect("an answer");
        String::from_utf8_lossy(&all).into_owned()
    };
    let posted = "POST /channels/a HTTP/1.1\r\nHost: any.example\r\nContent-Length: 1\r\n\r\nx";
    assert!(ask(posted, "\r\n\r\n").await.starts_with("HTTP/1.1 201"));
    // Reads a whole stream, over a socket whose buffer the kernel does not bound as it does for
    // TCP.
    let stream = String::from_utf8(get("/channels/a?after=0-0", None)).unwrap();
    let text = ask(&stream, "\r\n0\r\n\r\n").await;
    assert!(text.contains("data: x\n") && text.contains("retry: 100\n"), "{text}");
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert!(path.exists(), "a killed process leaves its socket");
    let _again = Process::start(&flags, &[], 2);
    assert!(ask("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "ok\n").await.contains("200"));
    let (status, said) = refused(&["serve", "--store", "memory", "--listen", &listen], &[]);
    assert_eq!(status, 1);
    assert!(said.contains("cannot listen on unix:"), "{said}");
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_as_long_as_the_flag_says() {
    let origin = Origin::with(&["--store", "memory", "--idle-timeout", "1s"]);
    let begun = tokio::time::Instant::now();
    let mut silent = origin.raw(b"").await;
    let mut used = origin.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(read_until(&mut used, |_| false).await.contains("200 OK"));
    assert_eq!(read_until(&mut silent, |_| false).await, "");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// Starts a server that answers every request with a redirect to `to`, and returns its address.
async fn redirect(status: &'static str, to: String) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let to = to.clone();
            tokio::spawn(async move { answer_with_redirect(&mut stream, status, &to).await });
        }
    });
    address
}

async fn answer_with_redirect(stream: &mut TcpStream, status: &str, to: &str) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).expect("a path");
    let answer = format!(
        "HTTP/1.1 {status}\r\nLocation: {to}{path}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok();
    let _end = stream.read(&mut [0; 1024]).await;
}

// Two threads are needed: the commands block one, and the redirects are served by this runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_follow_redirects() {
    let origin = Origin::start();
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent"]
    {
        let front = redirect(status, origin.address().to_string()).await;
        let mut publish = Command::new(BINARY);
        publish.args(["publish", "a", "x"]).env("HEADWATER_URL", front.to_string());
        let output = publish.output().expect("it starts");
        assert!(output.status.success(), "{status}: {}", String::from_utf8_lossy(&output.stderr));
        let mut tail = Command::new(BINARY);
        tail.args(["tail", "a", "--after", "0-0", "--count", "1"]);
        let output = tail.env("HEADWATER_URL", front.to_string()).output().expect("it starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n", "{status}");
    }
    // The client gives up on a redirect loop after a limited number of requests.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let own = format!("http://{}", listener.local_addr().unwrap());
    let (to, asked) = (own.clone(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            answer_with_redirect(&mut stream, "302 Found", &to).await;
        }
    });
    let address: Address = own.parse().unwrap();
    let mut agent = headwater::client::agent::Agent::new(address);
    let outcome = agent.send(Method::GET, "/", &[], Default::default()).await;
    assert!(outcome.is_err_and(|error| error.to_string().contains("redirects")));
    assert!(asked.load(std::sync::atomic::Ordering::Relaxed) <= 6);
}

#[tokio::test]
async fn tail_ends_with_the_command_that_reads_it() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    let mut shell = tokio::process::Command::new("bash");
    let line = format!("{BINARY} tail a --after 0-0 | head -n 1");
    shell.args(["-c", &line]).env("HEADWATER_URL", origin.address().to_string());
    // `tail` must end although no further event arrives whose printing would fail.
    let output = timeout(Duration::from_secs(10), shell.output()).await.expect("it ends at once");
    assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), "x\n");
}

#[tokio::test]
async fn a_lone_origin_that_drains_asks_its_clients_to_wait() {
    let redis = crate::kit::redis::RedisServer::start();
    for (store, retry) in [("memory".to_owned(), 3_000), (redis.url(), 100)] {
        let origin = Origin::with(&["--store", &store, "--segment", "2s"]);
        // The test does not start in the last part of a segment, where a stream continues into the
        // next one.
        wait_for_phase(2_000, 100, 600).await;
        let mut stream = origin.raw(&get("/channels/a", None)).await;
        let begun = read_until(&mut stream, |text| text.contains("ends_at")).await;
        origin.signal("TERM");
        let text = begun + &read_until(&mut stream, |text| text.contains("\r\n0\r\n\r\n")).await;
        let closing = text.rsplit("retry: ").next().unwrap();
        assert!(closing.starts_with(&format!("{retry}\n")), "{store}: {text}");
    }
}

#[test]
fn a_publish_buffer_that_is_too_small_for_a_batch_is_refused() {
    let output = Command::new(BINARY)
        .args(["serve", "--store", "memory", "--max-batch", "8MiB", "--publish-buffer", "8MiB"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--publish-buffer takes at least twice --max-batch"), "{said}");
}

#[tokio::test]
async fn every_reason_is_counted_from_zero_on() {
    let origin = Origin::start();
    let admin: Address = format!("http://{}", origin.admin).parse().unwrap();
    let text =
        request(&admin, Method::GET, "/metrics", &[], Default::default()).await.unwrap().body;
    for reason in headwater::core::sse::ShedReason::ALL {
        let line = format!("headwater_streams_shed_total{{reason=\"{}\"}} 0", reason.as_str());
        assert!(text.contains(&line), "{line}");
    }
    for reason in headwater::core::sse::GapReason::ALL {
        let line = format!("headwater_gaps_total{{reason=\"{}\"}} 0", reason.as_str());
        assert!(text.contains(&line), "{line}");
    }
}
