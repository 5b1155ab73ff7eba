//! Varnish with the shipped VCL: many clients cause one origin request, also through a deploy, a
//! crash and a restart of the cache.

use crate::caches::simulation::{Deployment, load};
use crate::kit::edge::{Asked, Cache, Follower, Notes, Tap};
use crate::kit::{Origin, Random, get, now_ms, read_until, unchunk, wait_for_phase};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

const CHANNELS: u64 = 4;
const SEGMENT_MS: u64 = 4_000;
/// The time after the last publish within which every client must have received every event.
const ARRIVAL: Duration = Duration::from_secs(40);

/// Clients that are spread over the channels, and their shared counters.
struct Crowd {
    clients: JoinSet<u64>,
    last: watch::Sender<Option<u64>>,
    notes: Arc<Notes>,
}

impl Crowd {
    fn join(cache: &Cache, channels: u64, count: u64, abort: u64) -> Self {
        headwater::telemetry::process::raise_file_limit();
        let (last, lasts) = watch::channel(None);
        let notes = Arc::new(Notes::default());
        let mut clients = JoinSet::new();
        for index in 0..count {
            let channel = format!("crowd{}", index % channels);
            let source = cache.source(&format!("/channels/{channel}"), None);
            let (random, notes) = (Random::new(index), notes.clone());
            let follower = Follower { channel, source, random, abort, notes };
            clients.spawn(follower.follow(lasts.clone()));
        }
        Self { clients, last, notes }
    }

    /// Waits until the counter of broken streams differs from `breaks`.
    async fn notices(&self, breaks: usize) {
        let lost = async {
            while self.notes.breaks.load(Ordering::Relaxed) == breaks {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(ARRIVAL, lost).await.expect("it is noticed");
    }

    /// Waits until every client has the last event, and returns the number of planned reconnects of
    /// all clients.
    async fn all_have(mut self, last: u64) -> u64 {
        self.last.send_replace(Some(last));
        let mut planned = 0;
        let all = async {
            while let Some(outcome) = self.clients.join_next().await {
                planned += outcome.expect("no client complains");
            }
        };
        timeout(ARRIVAL, all).await.expect("everyone has the last event");
        planned
    }
}

/// Publishes a number to every channel, and repeats each request with the same idempotency key
/// until the origin answers.
async fn publish(origin: &Origin, channels: u64, number: u64) {
    for channel in 0..channels {
        let path = format!("/channels/crowd{channel}");
        let key = format!("{channel}-{number}");
        let body = bytes::Bytes::from(number.to_string());
        let begun = Instant::now();
        loop {
            let headers = [("idempotency-key", key.as_str())];
            let answer = origin.try_request(hyper::Method::POST, &path, &headers, body.clone());
            match answer.await {
                Ok(answer) if answer.status.is_success() => break,
                _ => assert!(begun.elapsed() < ARRIVAL, "the origin comes back"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

// protocol §16.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_are_one_request_a_channel_and_segment() {
    crowd_is_one_request_a_channel_and_segment(Cache::varnish, 2_000, 5).await;
}

/// Counts the origin requests of undisturbed clients over `segments` whole segments.
pub async fn crowd_is_one_request_a_channel_and_segment(
    cache: fn(u16) -> Cache,
    clients: u64,
    segments: u64,
) {
    let _alone = crate::kit::alone().await;
    let origin = Origin::with(&["--store", "memory", "--segment", "4s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = cache(tap.port);
    wait_for_phase(SEGMENT_MS, 100, 1_000).await;
    let crowd = Crowd::join(&cache, CHANNELS, clients, 0);
    let mut number = 0;
    let first_boundary = now_ms() / SEGMENT_MS * SEGMENT_MS + SEGMENT_MS;
    publish_until(&origin, CHANNELS, &mut number, first_boundary - 500).await;
    let joined = tap.count();
    let end = first_boundary + segments * SEGMENT_MS + 2_000;
    publish_until(&origin, CHANNELS, &mut number, end).await;
    let planned = crowd.all_have(number).await;
    assert!(planned >= clients * segments, "{planned} reconnects prove little");
    let requests = tap.count() - joined;
    println!("{requests} requests for {CHANNELS} channels");
    // The test includes one more boundary than whole segments: the one that ends the first segment.
    let allowed = (CHANNELS * (segments + 1)) as f64 * 1.1;
    assert!(
        requests as f64 <= allowed,
        "{requests} requests, {allowed} allowed: {:?}",
        tap.asked()
    );
    // The origin's own metrics show that, too.
    let metric = "headwater_shareable_requests_total";
    let first = origin.metric(&format!("{metric}{{kind=\"first\"}}")).await;
    let repeat = origin.metric(&format!("{metric}{{kind=\"repeat\"}}")).await;
    assert!(
        first >= CHANNELS as f64 * segments as f64 && repeat <= first * 0.1,
        "{first} {repeat}"
    );
}

/// Returns the beginning of a segment, some seconds from now, in ms. A client that is disconnected
/// there reconnects after the 3 s of `retry`, within the same segment; in the next segment the same
/// cursor needs another response.
fn early_in_a_segment() -> u64 {
    (now_ms() + 5_000).next_multiple_of(SEGMENT_MS) + 100
}

/// Publishes to every channel four times a second until `until` (ms). `number` is the last
/// published one.
async fn publish_until(origin: &Origin, channels: u64, number: &mut u64, until: u64) {
    let mut ticks = interval(Duration::from_millis(250));
    while now_ms() < until {
        ticks.tick().await;
        *number += 1;
        publish(origin, channels, *number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_costs_nobody_an_event_and_the_origin_one_request_a_distinct_cursor() {
    let (asked, cursors) = storm(Cache::varnish, 2_000, Asked::answers).await;
    assert!(asked <= cursors, "{asked} requests, {cursors} allowed");
}

/// Runs a deploy, a crash of the origin and a restart of the cache, while one client in twenty
/// disconnects each second. Returns the number of origin requests and the allowed number, which is
/// that of the distinct cursors of the channels. Checks that the cache makes no request while an
/// earlier one `answers` it.
pub async fn storm(
    cache: fn(u16) -> Cache,
    clients: u64,
    answers: fn(&Asked, &Asked) -> bool,
) -> (usize, usize) {
    let _alone = crate::kit::alone().await;
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "4s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let mut cache = cache(tap.port);
    let begun = now_ms();
    let crowd = Crowd::join(&cache, CHANNELS, clients, 5);
    let mut number = 0;
    publish_until(&origin, CHANNELS, &mut number, early_in_a_segment()).await;
    // A deploy: every stream reaches its boundary, then no origin runs for a moment.
    origin.signal("TERM");
    assert!(origin.ended().await.success());
    origin.start_again();
    publish_until(&origin, CHANNELS, &mut number, early_in_a_segment()).await;
    let breaks = crowd.notes.breaks.load(Ordering::Relaxed);
    origin.kill();
    crowd.notices(breaks).await;
    origin.start_again();
    publish_until(&origin, CHANNELS, &mut number, early_in_a_segment()).await;
    cache.stop();
    let forgotten = tap.count();
    cache.start_again();
    publish_until(&origin, CHANNELS, &mut number, now_ms() + 8_000).await;
    let notes = crowd.notes.clone();
    crowd.all_have(number).await;
    let segments = (now_ms() - begun) / SEGMENT_MS + 2;
    let broken = notes.broken.lock().unwrap().len();
    assert!(broken > 100, "{broken} cursors prove little");
    let asked = tap.asked();
    let again =
        |later: usize| asked[..later].iter().any(|earlier| earlier.is_for_the_same(&asked[later]));
    let twice = (0..asked.len()).filter(|index| again(*index)).count();
    let (count, allowed) = (asked.len(), (CHANNELS * segments) as usize + broken);
    println!(
        "{count} requests, {twice} again, {segments} segments, {broken} cursors of aborted streams"
    );
    for half in [&asked[..forgotten], &asked[forgotten..]] {
        for (index, later) in half.iter().enumerate() {
            let known = half[..index].iter().find(|earlier| answers(earlier, later));
            assert!(known.is_none(), "{later:?} was asked though {known:?} is fresh");
        }
    }
    (count, allowed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_rejoin_tick_the_origin_never_has_more_open_than_the_ticks_of_a_segment() {
    let _alone = crate::kit::alone().await;
    let flags = ["--store", "memory", "--segment", "4s", "--rejoin-tick", "1s"];
    let origin = Origin::with(&flags);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::varnish(tap.port);
    // The clients join so early that a fresh join ends with the segment. After that, no client
    // joins afresh.
    wait_for_phase(SEGMENT_MS, 100, 1_000).await;
    let crowd = Crowd::join(&cache, 1, 500, 5);
    let mut number = 0;
    let joined = now_ms().next_multiple_of(SEGMENT_MS) + 100;
    most_open(&origin, &mut number, joined).await;
    let open = most_open(&origin, &mut number, joined + 18_000).await;
    crowd.all_have(number).await;
    assert_bounded(open, &tap);
    let simulated = load(Deployment {
        clients: 500,
        pops: 1,
        has_shield: false,
        segment: SEGMENT_MS,
        rejoin_tick: 1_000,
        abort: 50 * 60,
        away: (0, 300),
        events: 20,
        duration: 22_000,
    });
    println!("{} requests, {} simulated", tap.count(), simulated.requests);
    let (real, simulated) = (tap.count() as f64, simulated.requests as f64);
    assert!((0.6..1.6).contains(&(real / simulated)), "{real} requests, {simulated} simulated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_rejoin_tick_a_storm_opens_no_more_either() {
    let _alone = crate::kit::alone().await;
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "4s", "--rejoin-tick", "1s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let mut cache = Cache::varnish(tap.port);
    wait_for_phase(SEGMENT_MS, 100, 1_000).await;
    let crowd = Crowd::join(&cache, 1, 500, 5);
    let mut number = 0;
    let joined = now_ms().next_multiple_of(SEGMENT_MS) + 100;
    most_open(&origin, &mut number, joined).await;
    let mut open = vec![most_open(&origin, &mut number, now_ms() + 5_000).await];
    let breaks = crowd.notes.breaks.load(Ordering::Relaxed);
    origin.kill();
    crowd.notices(breaks).await;
    origin.start_again();
    open.push(most_open(&origin, &mut number, now_ms() + 9_000).await);
    cache.stop();
    cache.start_again();
    open.push(most_open(&origin, &mut number, now_ms() + 9_000).await);
    origin.signal("TERM");
    assert!(origin.ended().await.success());
    origin.start_again();
    open.push(most_open(&origin, &mut number, now_ms() + 9_000).await);
    crowd.all_have(number).await;
    println!("{open:?}");
    assert_bounded(open.into_iter().max().expect("some"), &tap);
}

/// Returns the largest number of streams that are open at the origin until `until` (ms), with 20
/// events a second. The time around the end of a tick is not measured, because there the streams of
/// one tick close while those of the next open.
async fn most_open(origin: &Origin, number: &mut u64, until: u64) -> usize {
    let mut ticks = interval(Duration::from_millis(25));
    let mut most = 0;
    while now_ms() < until {
        for _ in 0..2 {
            ticks.tick().await;
            if (50..980).contains(&(now_ms() % 1_000)) {
                most = most.max(origin.metric("headwater_streams_open").await as usize);
            }
        }
        *number += 1;
        publish(origin, 1, *number).await;
    }
    most
}

/// Checks the number of open streams for ticks of a second: at most one for each tick of a segment,
/// and the stragglers of one tick.
fn assert_bounded(open: usize, tap: &Tap) {
    let mut stragglers = std::collections::HashMap::new();
    for asked in tap.asked().iter().filter(|asked| asked.is_straggler()) {
        *stragglers.entry(asked.end_s()).or_insert(0usize) += 1;
    }
    let all: usize = stragglers.values().sum();
    let of_a_tick = stragglers.into_values().max().unwrap_or_default();
    println!("{open} open at most, {of_a_tick} stragglers in a tick, {all} in all");
    assert!(all > 100, "{all} stragglers prove little");
    let allowed = (SEGMENT_MS / 1_000) as usize + of_a_tick;
    assert!(open <= allowed, "{open} open, {allowed} allowed");
}

// protocol §16.2, §16.6
#[tokio::test]
async fn a_late_joiner_gets_the_backlog_at_once_and_from_the_same_origin_request() {
    let origin = Origin::with(&["--store", "memory", "--segment", "6s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::varnish(tap.port);
    wait_for_phase(6_000, 100, 1_000).await;
    let mut first = open(&cache, "/channels/a", None).await;
    read_until(&mut first, |text| text.contains("event: segment")).await;
    for number in 1..=5 {
        origin.publish("a", &number.to_string()).await;
    }
    let mut late = open(&cache, "/channels/a", None).await;
    let backlog = read_until(&mut late, |text| text.contains("data: 5\n")).await;
    assert!(backlog.contains("data: 1\n"), "{backlog}");
    // The stream is still running: a clean end would have sent a last chunk.
    assert!(!unchunk(&backlog).1);
    origin.publish("a", "6").await;
    read_until(&mut late, |text| text.contains("data: 6\n")).await;
    assert_eq!(tap.count(), 1);
}

// protocol §16.3
#[tokio::test]
async fn an_aborted_body_is_never_served_again() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "10s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::varnish(tap.port);
    let cursor = origin.publish("a", "0").await;
    wait_for_phase(10_000, 100, 1_000).await;
    origin.publish("a", "1").await;
    let mut stream = open(&cache, "/channels/a", Some(&cursor)).await;
    read_until(&mut stream, |text| text.contains("data: 1\n")).await;
    origin.kill();
    let rest = read_until(&mut stream, |_| false).await;
    assert!(!rest.contains("0\r\n\r\n"), "a killed origin looks like a planned end: {rest}");
    origin.start_again();
    origin.publish("a", "2").await;
    // According to its max-age, the truncated response would be fresh for more than five more
    // seconds.
    let mut again = open(&cache, "/channels/a", Some(&cursor)).await;
    let body = read_until(&mut again, |text| text.contains("data: 2\n")).await;
    assert!(body.contains("data: 1\n"), "{body}");
    assert_eq!(tap.count(), 2);
}

/// Opens a stream through a cache, and returns the connection before its response is read.
async fn open(cache: &Cache, path: &str, cursor: Option<&str>) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", cache.port)).await;
    let mut stream = stream.expect("the cache listens");
    stream.write_all(&get(path, cursor)).await.expect("it reads");
    stream
}

/// Returns the largest number of requests per segment that any of five idle clients makes.
pub async fn requests_of_idle_clients(cache: &Cache, segments: u32) -> u32 {
    let mut clients = JoinSet::new();
    for _ in 0..5 {
        let mut source = cache.source("/channels/idle", None);
        clients.spawn(async move {
            let mut opened = 0;
            let all = async {
                loop {
                    match source.next().await {
                        headwater::client::Signal::Opened => opened += 1,
                        headwater::client::Signal::Closed { status, why } => {
                            panic!("closed for good: {status:?} {why}")
                        }
                        _ => {}
                    }
                }
            };
            let _: Result<(), _> = timeout(Duration::from_secs(2) * segments, all).await;
            opened
        });
    }
    let opened = clients.join_all().await;
    // A client whose stream never ended would make few requests too.
    assert!(opened.iter().all(|opened| *opened > segments / 4), "{opened:?}");
    opened.into_iter().max().expect("clients").div_ceil(segments)
}

#[tokio::test]
async fn an_idle_channel_does_not_loop() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let cache = Cache::varnish(origin.listen.port());
    assert!(requests_of_idle_clients(&cache, 10).await <= 2);
}

#[tokio::test]
async fn an_idle_channel_does_not_loop_behind_a_cache_that_keeps_all_too_long() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let vcl = crate::kit::edge::edge(&["varnish", "--origin", &origin.listen.to_string()]);
    // The lifetime is set whatever the headers say.
    let too_long = "set beresp.ttl = 10s; set beresp.grace = 10s;";
    let too_late = "# Otherwise beresp.ttl stays";
    let vcl = vcl.replacen(too_late, &format!("{too_long} {too_late}"), 1);
    assert!(vcl.contains(too_long));
    let cache = Cache::varnish_with(&vcl);
    assert!(requests_of_idle_clients(&cache, 10).await <= 2);
}

/// Runs the checks of the VCL that are written in Varnish's own test language.
#[test]
fn the_vcl_keeps_its_promises_in_varnishtest() {
    let output = std::process::Command::new("tests/varnish/run").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("promises are kept"), "{text}");
}
