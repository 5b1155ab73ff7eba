//! Origins that share a Redis are restarted one after the other behind one Varnish.

use crate::kit::edge::{Cache, edge};
use crate::kit::history::{ClientHistory, History};
use crate::kit::redis::RedisServer;
use crate::kit::{Origin, PATIENCE, alone, request};
use headwater::client::http::Address;
use headwater::client::{EventSource, Interruption, Signal};
use headwater_hunt::history::MayLose;
use hyper::Method;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const CLIENTS: usize = 1_000;
/// So many of them have their part in the history.
const RECORDED: usize = 30;
/// The time from one publish to the next.
const PACE: Duration = Duration::from_millis(10);
const SEGMENT: Duration = Duration::from_secs(5);
/// The longest time for which a client may be without a stream: one segment, and the reconnection
/// time after a planned end at most.
const PAUSE_MAX: Duration = Duration::from_secs(5 + 3);
const LAST: &str = "the last";

/// What one client received.
struct Trace {
    data: Vec<String>,
    /// The longest pause between two events.
    longest: Duration,
    /// When each response began.
    opened: Vec<Instant>,
}

/// Reads to the last event.
async fn read(address: Address, history: Option<ClientHistory>) -> Trace {
    let mut source = EventSource::new(address, "/channels/a?after=0-0", None);
    let mut trace = Trace { data: Vec::new(), longest: Duration::ZERO, opened: Vec::new() };
    let mut at = Instant::now();
    loop {
        let signal = source.next().await;
        history.iter().for_each(|history| history.note(&signal));
        match signal {
            Signal::Message(message) if message.kind == "message" => {
                trace.longest = trace.longest.max(at.elapsed());
                at = Instant::now();
                trace.data.push(message.data);
                if trace.data.last().is_some_and(|data| data == LAST) {
                    return trace;
                }
            }
            // A client that was shed would be told so by another event.
            Signal::Message(message) => assert_eq!(message.kind, "segment", "{message:?}"),
            Signal::Opened => trace.opened.push(Instant::now()),
            Signal::Reconnecting { why: Interruption::End, .. } => {}
            Signal::Reconnecting { why: Interruption::Broken(why), .. } => panic!("cut off: {why}"),
            Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_origins_are_restarted_one_after_the_other_behind_varnish() {
    let _alone = alone().await;
    headwater::telemetry::process::raise_file_limit();
    let redis = RedisServer::start();
    let segment = format!("{}s", SEGMENT.as_secs());
    let url = redis.url();
    let times = ["--drain-delay", "5s", "--store-timeout", "10s"];
    let flags = [&["--store", &*url, "--segment", &*segment], &times[..]].concat();
    let mut origins = [Origin::with(&flags), Origin::with(&flags)];
    let [one, other] = [0, 1].map(|index| origins[index].listen.to_string());
    let varnish = Cache::varnish_with(&edge(&["varnish", "--origin", &one, "--origin", &other]));
    let mut clients = JoinSet::new();
    let history = History::begin();
    for number in 0..CLIENTS {
        let recorded = (number < RECORDED).then(|| history.client("a"));
        clients.spawn(read(varnish.address(), recorded));
    }
    let (stop, stopped) = watch::channel(false);
    let publish = history.clone().publish_until(varnish.address(), PACE, stopped, LAST);
    let publisher = tokio::spawn(publish);
    sleep(2 * SEGMENT).await;
    for _ in 0..2 {
        for origin in &mut origins {
            origin.signal("TERM");
            assert!(origin.ended().await.success());
            origin.start_again();
            origin.becomes(200).await;
            // Varnish asks an origin twice before it sends requests there again.
            sleep(Duration::from_secs(3)).await;
        }
    }
    stop.send_replace(true);
    let published = publisher.await.expect("every publish is accepted");
    let mut opened: Vec<Instant> = Vec::new();
    for trace in clients.join_all().await {
        assert_eq!(trace.data, published);
        assert!(trace.longest < PAUSE_MAX, "a client waited for {:?}", trace.longest);
        opened.extend(&trace.opened[1..]);
    }
    let summary = history.judge(&origins[0], &["a"], MayLose::Nothing).await;
    assert_eq!((summary.clients, summary.logged), (RECORDED, published.len()));
    // After its first response each client comes back once at a boundary. No wave is larger.
    opened.sort_unstable();
    let window = SEGMENT / 2;
    let wave = opened
        .iter()
        .enumerate()
        .map(|(index, first)| opened[index..].partition_point(|opened| *opened < *first + window));
    let largest = wave.max().unwrap_or_default();
    assert!(largest <= CLIENTS, "{largest} responses began within {window:?}");
}

/// These origins share no store, so what one of them has stored is missing at the other one.
#[tokio::test]
async fn all_requests_for_a_channel_go_to_one_origin() {
    let origins = [0, 1].map(|_| Origin::with(&["--store", "memory"]));
    let [one, other] = [0, 1].map(|index: usize| origins[index].listen.to_string());
    let varnish = Cache::varnish_with(&edge(&["varnish", "--origin", &one, "--origin", &other]));
    let address = varnish.address();
    let mut publishes = Vec::new();
    for number in 0..12 {
        let path = format!("/channels/channel-{number}");
        let publish = format!("{path}?key=k");
        let answer = request(&address, Method::POST, &publish, &[], "the event".into()).await;
        assert_eq!(answer.expect("an answer").status, 201);
        for read in ["/history", "/state", "?mode=hold&after=0-0"] {
            let read = format!("{path}{read}");
            let answer = request(&address, Method::GET, &read, &[], "".into()).await;
            let body = answer.expect("an answer").body;
            assert!(body.contains("the event"), "{read}: {body}");
        }
    }
    for origin in &origins {
        publishes.push(origin.metric("headwater_events_in_total").await);
    }
    assert!(publishes.iter().all(|count| *count > 0.0), "one origin got all: {publishes:?}");
}

#[tokio::test]
async fn nginx_goes_on_with_the_origin_that_is_left() {
    for profile in ["stream", "collapse"] {
        let redis = RedisServer::start();
        let mut origins = [0, 1].map(|_| Origin::with(&["--store", &redis.url()]));
        let ports = [0, 1].map(|index: usize| origins[index].listen.port());
        let nginx = Cache::nginx_before(profile, &ports, |text| text);
        let address = nginx.address();
        let mut source = EventSource::new(address.clone(), "/channels/a?after=0-0", None);
        let history = History::begin();
        let client = history.client("a");
        for number in 0..20 {
            // Each of them is gone for some of the events.
            match number {
                5 => origins[0].kill(),
                10 => {
                    origins[0].start_again();
                    origins[0].becomes(200).await;
                    // nginx does not try a server for a second after it failed, and counts in whole
                    // seconds.
                    sleep(Duration::from_millis(2_100)).await;
                }
                15 => origins[1].kill(),
                _ => {}
            }
            // A dead origin refuses the connection, so its publishes go to the other one.
            let data = number.to_string();
            let body = data.clone().into();
            history.published("a", &data);
            let answer = request(&address, Method::POST, "/channels/a", &[], body).await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 201, "{profile}: {data} is refused: {}", answer.body);
            history.acknowledged("a", answer.json()["id"].as_str().expect("an id"), &data);
            let arrives = client.read_to(&mut source, &data);
            timeout(PATIENCE, arrives).await.unwrap_or_else(|_| panic!("{profile}: no {data}"));
        }
        let summary = history.judge(&origins[0], &["a"], MayLose::Nothing).await;
        assert_eq!((summary.received, summary.logged), (20, 20), "{profile}");
    }
}

/// An origin that has received a publish may have stored it, so the other one does not get it too.
#[tokio::test]
async fn nginx_repeats_no_publish_that_it_has_sent() {
    const PUBLISHES: usize = 12;
    let redis = RedisServer::start();
    let mut origins = [0, 1].map(|_| Origin::with(&["--store", &redis.url()]));
    let ports = [0, 1].map(|index: usize| origins[index].listen.port());
    let nginx = Cache::nginx_before("collapse", &ports, |text| text);
    origins[0].signal("STOP");
    let mut publishes = JoinSet::new();
    for number in 0..PUBLISHES {
        let (address, body) = (nginx.address(), number.to_string().into());
        publishes.spawn(async move {
            let answer = request(&address, Method::POST, "/channels/a", &[], body).await;
            answer.expect("an answer").status.as_u16()
        });
    }
    // Each process of nginx alternates between the origins, so about half of the publishes are with
    // the origin that hangs. The others are answered.
    let mut stored = 0;
    while stored < PUBLISHES / 3 {
        assert_eq!(publishes.join_next().await.expect("some are answered").expect("no panic"), 201);
        stored += 1;
    }
    origins[0].kill();
    let rest = publishes.join_all().await;
    assert!(rest.iter().all(|status| [201, 503].contains(status)), "{rest:?}");
    let refused = rest.iter().filter(|status| **status == 503).count();
    assert!(refused > 0, "none was with the origin that was killed");
    assert_eq!(origins[1].log("a").await.len(), PUBLISHES - refused);
}
