//! How long a page receives no event at the end of a segment, with the client module and with a
//! native `EventSource`, in each engine and behind Varnish. The test checks that each event arrives
//! once; it prints the times (`--nocapture`), which docs/performance.md has.

use crate::kit::edge::Cache;
use crate::kit::engine::{Engine, Page, Pauses};
use crate::kit::{Origin, quiet};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const CHANNEL: &str = "pauses";
/// 50 events a second.
const PAUSE: Duration = Duration::from_millis(20);
/// The boundaries of a run, unless the variable `PAUSES_BOUNDARIES` has another number. A p99 needs
/// some hundreds of them.
const BOUNDARIES: usize = 4;

/// Publishes until the future is dropped.
async fn publish(origin: &Origin) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        origin.publish(CHANNEL, "x").await;
    }
}

fn boundaries() -> usize {
    let number = std::env::var("PAUSES_BOUNDARIES");
    number.map_or(BOUNDARIES, |number| number.parse().expect("a number"))
}

/// The times at 50, 99 and 100 percent.
fn percentiles(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [50, 99, 100].map(|percent| times[(times.len() * percent).div_ceil(100) - 1])
}

fn report(engine: Engine, name: &str, pauses: &Pauses) -> String {
    let counted = pauses.others.iter().enumerate();
    let others = counted.flat_map(|(ms, count)| vec![ms as f64; *count as usize]).collect();
    let [p50, p99, max] = percentiles(pauses.boundaries.clone());
    let [other_p50, other_p99, other_max] = percentiles(others);
    format!(
        "{engine:?}, {name}, {} boundaries: p50 {p50:.0}, p99 {p99:.0}, max {max:.0} ms; between \
         other events: p50 {other_p50:.0}, p99 {other_p99:.0}, max {other_max:.0} ms",
        pauses.boundaries.len()
    )
}

async fn pauses(engine: Engine) {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let cache = Cache::varnish(origin.listen.port());
    for (name, is_native) in [("headwater.js", false), ("EventSource", true)] {
        let path = format!("/channels/{CHANNEL}");
        let mut page = Page::open_for_pauses(engine, is_native, &cache, &path).await;
        let mut goal = 1;
        let measured = async {
            // The page has to go on within a minute.
            while goal < boundaries() {
                goal = boundaries().min(goal + 10);
                let what = format!("it crosses {goal} boundaries");
                page.until(&what, |seen| seen.pauses.boundaries.len() >= goal).await;
            }
            page.until("it has a report", |seen| seen.pauses.last.is_some()).await.pauses
        };
        let pauses = tokio::select! {
            pauses = measured => pauses,
            () = publish(&origin) => unreachable!("it publishes without end"),
        };
        println!("{}", report(engine, name, &pauses));
        let logged = origin.log(CHANNEL).await;
        let place =
            |id: &Option<String>| logged.iter().position(|(one, _)| Some(one) == id.as_ref());
        let (first, last) = (place(&pauses.first), place(&pauses.last));
        let received = last.expect("it is logged") - first.expect("it is logged") + 1;
        assert_eq!(received, pauses.events, "{engine:?}, {name}");
    }
}

#[tokio::test]
async fn no_event_is_lost_at_a_boundary_in_chromium() {
    let _quiet = quiet().await;
    pauses(Engine::Chromium).await;
}

#[tokio::test]
async fn no_event_is_lost_at_a_boundary_in_firefox() {
    let _quiet = quiet().await;
    pauses(Engine::Firefox).await;
}

#[tokio::test]
async fn no_event_is_lost_at_a_boundary_in_webkit() {
    let _quiet = quiet().await;
    pauses(Engine::WebKit).await;
}
