//! Runs fifteen SSE libraries in four languages, each with the settings of docs/clients.md, over
//! segment boundaries and a crash of the origin. No event may be lost or doubled, and no message
//! may be empty.

use crate::kit::client::{Follower, LIBRARIES, Library, Message, Outcome};
use crate::kit::engine::Reserved;
use crate::kit::{Origin, now_ms, read_until, request, wait_for_phase};
use bytes::Bytes;
use headwater::client::http::Address;
use hyper::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

const PATH: &str = "/channels/matrix";
const SEGMENT_MS: u64 = 4000;
const HEARTBEAT: Duration = Duration::from_secs(1);
const OUTAGE: Duration = Duration::from_secs(4);
/// Fifteen programs start slowly on a busy machine, and some libraries reconnect after 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes numbered events in bursts, with pauses in between, until `stop` is called.
struct Publisher {
    published: Arc<Mutex<Vec<Message>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Publisher {
    fn start(origin: Address) -> Self {
        const IN_A_BURST: usize = 4;
        let published: Arc<Mutex<Vec<Message>>> = Arc::default();
        let (stop, mut stopped) = watch::channel(false);
        let log = published.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                let data = event(number);
                let id = publish(&origin, number, &data).await;
                log.lock().expect("no panic").push((id, data));
                let ends_burst = number % IN_A_BURST == IN_A_BURST - 1;
                let pause = if ends_burst { 2 * HEARTBEAT } else { HEARTBEAT / 10 };
                if timeout(pause, stopped.wait_for(|stopped| *stopped)).await.is_ok() {
                    return;
                }
            }
        });
        Self { published, stop, task }
    }

    /// The number of events published so far.
    fn count(&self) -> usize {
        self.published.lock().expect("no panic").len()
    }

    /// Stops publishing, and returns all published events.
    async fn stop(self) -> Vec<Message> {
        self.stop.send_replace(true);
        self.task.await.expect("it published");
        self.published.lock().expect("no panic").clone()
    }
}

/// Returns the data of an event: some data have several lines, some are not ASCII, and one is
/// large.
fn event(number: usize) -> String {
    match number % 5 {
        1 => format!("{{\n\"n\": {number}\n}}"),
        2 => json!({ "n": number, "city": "Zürich, 東京" }).to_string(),
        _ if number == 8 => json!({ "n": number, "map": "x".repeat(1_000_000) }).to_string(),
        _ => json!({ "n": number }).to_string(),
    }
}

/// Publishes a number exactly once, with as many attempts as needed. Returns the event's id.
async fn publish(origin: &Address, number: usize, data: &str) -> String {
    let key = number.to_string();
    let headers = [("idempotency-key", key.as_str())];
    loop {
        let answer = request(origin, Method::POST, PATH, &headers, data.to_owned().into()).await;
        if let Some(answer) = answer.ok().filter(|answer| answer.status.is_success()) {
            return answer.json()["id"].as_str().expect("an id").to_owned();
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until each library has delivered the newest event. A library that never delivers it is
/// reported at the end, together with all others that fail.
async fn catch_up(followers: &mut [Follower], publisher: &Publisher) {
    let published = publisher.published.lock().expect("no panic").clone();
    let Some((id, _)) = published.last() else { return };
    let all = async {
        for follower in followers {
            follower.until(|messages| messages.iter().any(|(got, _)| got == id)).await;
        }
    };
    timeout(PATIENCE, all).await.ok();
}

/// Waits until a response of the origin has a heartbeat in it.
async fn wait_for_heartbeat(origin: &Origin) {
    let has_comment = |answer: &str| answer.lines().any(|line| line.starts_with(':'));
    let ends = |answer: &str| answer.ends_with("\r\n0\r\n\r\n");
    let mut answer = String::new();
    while !has_comment(&answer) {
        let mut stream = ask(origin, PATH).await;
        answer = read_until(&mut stream, |answer| has_comment(answer) || ends(answer)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Sends the request for a stream.
async fn ask(origin: &Origin, path: &str) -> TcpStream {
    origin.raw(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.listen).as_bytes()).await
}

#[test]
fn the_document_lists_every_library_in_the_version_that_is_installed() {
    let read = |path| std::fs::read_to_string(path).unwrap();
    let document = read("docs/clients.md");
    let installed = [read("tests/run"), read("tests/clients/go/go.mod")].concat();
    for Library { name, version, .. } in &LIBRARIES {
        let row = format!("| `{name}` | {version} | ");
        assert!(document.contains(&row), "docs/clients.md has no row {row}");
        let forms = [" v", "@", "=="].map(|between| format!("{name}{between}{version}"));
        assert!(forms.iter().any(|form| installed.contains(form)), "{name} {version}");
    }
}

#[tokio::test]
async fn other_peoples_clients_get_every_event_once_and_in_order() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let flags = ["--store", &store, "--segment", "4s", "--heartbeat", "1s"];
    let mut origin = Origin::with(&flags);
    // A URL keeps its query at every reconnect; the cursor of the client has precedence over it.
    let url = format!("http://{}{PATH}?after=0-0", origin.listen);
    let publisher = Publisher::start(origin.address());
    let start = |library| Follower::start(library, &url);
    let mut followers: Vec<Follower> = LIBRARIES.iter().map(start).collect();
    catch_up(&mut followers, &publisher).await;
    // An event published after three boundaries has passed them all.
    let start = now_ms();
    while now_ms() / SEGMENT_MS < start / SEGMENT_MS + 3 {
        sleep(Duration::from_millis(50)).await;
    }
    catch_up(&mut followers, &publisher).await;

    // At this point, each client has read a comment line and no event after it.
    wait_for_phase(SEGMENT_MS, 200, 1500).await;
    wait_for_heartbeat(&origin).await;
    origin.kill();
    let ports = [origin.listen, origin.admin].map(|listen| Reserved::port(listen.port()));
    sleep(OUTAGE).await;
    origin.start_again();
    drop(ports);
    let before = publisher.count();
    while publisher.count() < before + 2 {
        sleep(Duration::from_millis(50)).await;
    }
    catch_up(&mut followers, &publisher).await;
    wait_for_phase(SEGMENT_MS, 0, 1000).await;
    catch_up(&mut followers, &publisher).await;

    let published = publisher.stop().await;
    end(&origin).await;
    println!("{} events", published.len());
    let followers = followers.into_iter().map(|follower| (follower, published.clone()));
    compare(followers.collect(), 1).await;
}

#[tokio::test]
async fn other_peoples_clients_get_no_empty_message_from_an_origin_that_sheds_them() {
    const SHED: &str = r#"headwater_streams_shed_total{reason="connections"}"#;
    let (mut origins, mut followers) = (Vec::new(), Vec::new());
    for library in &LIBRARIES {
        // Each client has an origin of its own, whose metric shows that the client was shed.
        let origin = Origin::with(&["--store", "memory", "--max-connections", "1"]);
        let mut published = Vec::new();
        for number in 0..3 {
            let data = event(number);
            published.push((publish(&origin.address(), number, &data).await, data));
        }
        end(&origin).await;
        let held = hold_the_only_connection(&origin).await;
        let shed = origin.metric(SHED).await;
        let url = format!("http://{}{PATH}?after=0-0", origin.listen);
        followers.push((Follower::start(library, &url), published));
        origins.push((origin, shed, held));
    }
    for (origin, before, held) in &mut origins {
        let is_shed = async {
            while origin.metric(SHED).await <= *before {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, is_shed).await.expect("the client is shed");
        // The next request of the client is served.
        *held = None;
    }
    compare(followers, 0).await;
}

/// Opens the only stream that the origin serves at a time.
async fn hold_the_only_connection(origin: &Origin) -> Option<TcpStream> {
    loop {
        let mut stream = ask(origin, "/channels/other").await;
        let head = read_until(&mut stream, |answer| answer.contains("\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        if !head.contains("headwater-shed") {
            return Some(stream);
        }
        // The origin may still count the connection of the previous request, so try again.
    }
}

/// Ends the channel, with as many attempts as needed.
async fn end(origin: &Origin) {
    loop {
        let answer = origin.try_request(Method::DELETE, PATH, &[], Bytes::new()).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for all programs to end, and fails if the messages of any differ from the published ones.
/// The connection of each was cut `cuts` times.
async fn compare(followers: Vec<(Follower, Vec<Message>)>, cuts: usize) {
    let mut finishing = JoinSet::new();
    for (place, (follower, published)) in followers.into_iter().enumerate() {
        finishing.spawn(async move { (place, follower.finish(PATIENCE, &published).await) });
    }
    let outcomes: BTreeMap<usize, Outcome> = finishing.join_all().await.into_iter().collect();
    outcomes.values().for_each(|outcome| println!("{outcome}"));
    let bad = outcomes.values().filter(|outcome| !outcome.is_good(cuts));
    let bad: Vec<String> = bad.map(Outcome::report).collect();
    assert!(bad.is_empty(), "{} of {} clients\n{}", bad.len(), outcomes.len(), bad.join("\n"));
}
