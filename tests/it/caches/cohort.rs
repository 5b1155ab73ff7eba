//! A thousand clients, many of them unreliable, follow a channel over many segment boundaries. Each
//! receives every event after its first exactly once and in order.

use crate::kit::{Origin, Random};
use headwater::client::{EventSource, Signal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

const CLIENTS: u64 = 1_000;
const RATE: u64 = 50;
const SECONDS: u64 = 30;
const LAST: u64 = RATE * SECONDS;
/// The time after the last publish within which every client must have received all events.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A behavior that makes a client hard to serve.
#[derive(Clone, Copy, PartialEq)]
enum Habit {
    Steady,
    /// Loses its connection from time to time.
    Flighty,
    /// Stops reading from time to time.
    Slow,
    /// Joins when between a quarter and three quarters of the events are published.
    Late,
}

// protocol §2.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_has_every_event_after_its_first_once_and_in_order() {
    let _alone = crate::kit::alone().await;
    headwater::telemetry::process::raise_file_limit();
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let flags = ["--segment", "2s", "--store", &store, "--store-timeout", "20s"];
    let origin = Arc::new(Origin::with(&flags));
    let (published, progress) = watch::channel(0);
    let mut clients = JoinSet::new();
    for index in 0..CLIENTS {
        let habit = [Habit::Steady, Habit::Flighty, Habit::Slow, Habit::Late][index as usize % 4];
        let source = origin.source("/channels/crowd", None);
        clients.spawn(client(habit, source, Random::new(index), progress.clone()));
    }
    publish_all(&origin, &published).await;
    let mut reconnects = 0;
    let all = async {
        while let Some(outcome) = clients.join_next().await {
            reconnects += outcome.expect("no client complains");
        }
    };
    timeout(ARRIVAL, all).await.expect("everyone has the last event");
    assert!(reconnects > CLIENTS * SECONDS / 4, "{reconnects} reconnects prove little");
    assert_eq!(origin.metric("headwater_streams_ended_total{reason=\"fell_behind\"}").await, 0.0);
    assert_eq!(origin.metric("headwater_streams_ended_total{reason=\"store_lost\"}").await, 0.0);
}

async fn publish_all(origin: &Origin, published: &watch::Sender<u64>) {
    let mut ticks = interval(Duration::from_millis(1_000 / RATE));
    for number in 1..=LAST {
        ticks.tick().await;
        origin.publish("crowd", &number.to_string()).await;
        published.send_replace(number);
    }
}

/// Follows the channel to the last event. Returns the number of reconnects.
async fn client(
    habit: Habit,
    mut source: EventSource,
    mut random: Random,
    mut progress: watch::Receiver<u64>,
) -> u64 {
    if habit == Habit::Late {
        let joins_at = LAST / 4 + random.below(LAST / 2);
        progress.wait_for(|published| *published >= joins_at).await.expect("it is published");
    }
    let (mut seen, mut reconnects) = (None, 0);
    let mut next_fault = Instant::now() + fault_pause(&mut random);
    while seen != Some(LAST) {
        match source.next().await {
            Signal::Message(message) if message.kind == "message" => {
                let number: u64 = message.data.parse().expect("a number");
                let expected = seen.map_or(number, |seen| seen + 1);
                assert_eq!(number, expected, "after {seen:?}, at {}", message.last_event_id);
                seen = Some(number);
            }
            Signal::Message(message) => assert_eq!(message.kind, "segment", "{}", message.data),
            Signal::Opened => {}
            Signal::Reconnecting { .. } => reconnects += 1,
            Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
        }
        if Instant::now() < next_fault {
            continue;
        }
        match habit {
            Habit::Flighty => source.disconnect(Duration::from_millis(random.below(300))),
            Habit::Slow => sleep(Duration::from_millis(random.below(4_000))).await,
            Habit::Steady | Habit::Late => {}
        }
        next_fault = Instant::now() + fault_pause(&mut random);
    }
    reconnects
}

fn fault_pause(random: &mut Random) -> Duration {
    Duration::from_millis(100 + random.below(3_000))
}
