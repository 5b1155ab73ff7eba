//! The publishers of a soak: one for each channel. A publish without an answer is repeated with its
//! `Idempotency-Key`, so each event is stored once.

use super::Run;
use super::deployment::{RETAINED, channel_name, event_bytes};
use super::ledger::event_data;
use headwater::client::agent::Agent;
use headwater::client::http::{Address, text};
use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Longest wait for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time in which an event is published.
const PUBLISH_TIME_MAX: Duration = Duration::from_secs(60);
/// The pause before a repetition.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The size of an event of the planted growth of memory.
const FOR_NOBODY_BYTES: usize = 100_000;

/// Publishes until the run is over. Returns the channel, and the number of its last event.
pub async fn publish(run: Arc<Run>, channel: usize) -> (usize, u64) {
    let mut agents = agents(&run);
    let (path, mut number) = (format!("/channels/{}", channel_name(channel)), RETAINED);
    let mut ticks = interval(run.pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_over = run.is_over.subscribe();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = is_over.wait_for(|is_over| *is_over) => return (channel, number),
        }
        number += 1;
        let data = event_data(channel, number, event_bytes(channel));
        if !publish_surely(&run, &mut agents, &path, number, &data).await {
            run.fail(format!("event {number} of channel {channel} could not be published"));
            return (channel, number);
        }
    }
}

/// Publishes large events, each to a channel of its own. Returns a channel behind all others.
pub async fn publish_for_nobody(run: Arc<Run>) -> (usize, u64) {
    let mut agents = agents(&run);
    for number in 1.. {
        let path = format!("/channels/nobody{number}");
        publish_surely(&run, &mut agents, &path, number, &"x".repeat(FOR_NOBODY_BYTES)).await;
        sleep(run.pause / 4).await;
        if *run.is_over.borrow() {
            break;
        }
    }
    (usize::MAX, 0)
}

/// A publisher for each origin.
fn agents(run: &Run) -> Vec<Agent> {
    let address = |server| format!("http://{server}").parse::<Address>().expect("an address");
    run.addresses.iter().map(|server| Agent::new(address(server))).collect()
}

/// Publishes an event, in turn at each origin until one of them confirms it. Returns whether one did.
async fn publish_surely(
    run: &Run,
    agents: &mut [Agent],
    path: &str,
    number: u64,
    data: &str,
) -> bool {
    let (begun, key) = (Instant::now(), number.to_string());
    let mut turn = number as usize;
    while begun.elapsed() < PUBLISH_TIME_MAX {
        let count = agents.len();
        let agent = &mut agents[turn % count];
        let headers = [(IDEMPOTENCY_KEY, key.as_str())];
        let sent = agent.send(Method::POST, path, &headers, data.to_owned().into());
        match timeout(ANSWER_TIME_MAX, async { text_of(sent.await.ok()?).await }).await {
            Ok(Some((StatusCode::CREATED, _))) => {
                run.counts.published.fetch_add(1, Relaxed);
                return true;
            }
            Ok(Some((StatusCode::OK, _))) => {
                run.counts.published.fetch_add(1, Relaxed);
                run.counts.repeated.fetch_add(1, Relaxed);
                return true;
            }
            Ok(Some((StatusCode::SERVICE_UNAVAILABLE, _))) => {}
            Ok(Some((status, answer))) => {
                run.fail(format!("{path} is refused: {status} {answer}"));
                return false;
            }
            Ok(None) | Err(_) => agent.disconnect(),
        }
        run.counts.retries.fetch_add(1, Relaxed);
        turn += 1;
        sleep(RETRY_PAUSE).await;
    }
    false
}

async fn text_of(answer: hyper::Response<hyper::body::Incoming>) -> Option<(StatusCode, String)> {
    let status = answer.status();
    Some((status, text(answer).await.ok()?))
}
