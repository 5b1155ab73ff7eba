//! The clock of the machine is set to another time while an origin runs, or between two runs. Event
//! ids still only increase, no event is dropped, and the change is visible to operators.

use crate::kit::machine::SteppedClock;
use crate::kit::next_message;
use crate::stores::faults::disk;
use std::time::Duration;
use tokio::time::sleep;

const STEPPED: &str = "the wall clock was set to another time";

// protocol §2.3
#[tokio::test]
async fn a_clock_that_is_set_back_and_returns_leaves_no_trace() {
    let data = tempfile::tempdir().unwrap();
    let clock = SteppedClock::new();
    let origin = clock.origin(&["--store", &disk(data.path()), "--segment", "2s"]);
    let mut ids = vec![origin.publish("a", "0").await];
    clock.set("-25h");
    for n in 1..6 {
        sleep(Duration::from_millis(500)).await;
        ids.push(origin.publish("a", &n.to_string()).await);
    }
    let lead = ("headwater_clock_lead_seconds", 24.0 * 3600.0..);
    origin.shows(Ok(()), STEPPED, lead).await;
    assert_eq!(origin.logged(STEPPED), 1);
    clock.set("+0");
    sleep(Duration::from_millis(500)).await;
    ids.push(origin.publish("a", "6").await);
    let kept: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, ids, "nothing is dropped, and the order is that of the publishes");
    let ms = |id: &str| headwater::core::cursor::EventId::parse(id).unwrap().ms;
    let now = crate::kit::now_ms();
    let off = ms(&ids[6]).abs_diff(now);
    assert!(off < 10_000, "ids are {off} ms off the clock");
    assert!(origin.metric("headwater_clock_lead_seconds").await < 2.0);
    origin.shows(Ok(()), STEPPED, ("headwater_clock_steps", 2.0..=2.0)).await;
}

#[tokio::test]
async fn a_clock_that_is_set_forward_drops_nothing_also_across_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let clock = SteppedClock::new();
    let mut origin = clock.origin(&["--store", &disk(data.path()), "--segment", "2s"]);
    let mut ids = vec![origin.publish("a", "0").await];
    clock.set("+25h");
    sleep(Duration::from_millis(2_500)).await;
    ids.push(origin.publish("a", "1").await);
    origin.shows(Ok(()), STEPPED, ("headwater_clock_steps", 1.0..=1.0)).await;
    origin.kill();
    origin.start_again();
    sleep(Duration::from_millis(2_500)).await;
    ids.push(origin.publish("a", "2").await);
    // The clock is set back: ids continue from the last one until the clock has caught up.
    clock.set("+0");
    origin.kill();
    origin.start_again();
    sleep(Duration::from_millis(2_500)).await;
    ids.push(origin.publish("a", "3").await);
    let kept: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, ids);
    let id = |text: &String| headwater::core::cursor::EventId::parse(text).unwrap();
    assert!(ids.iter().map(id).is_sorted());
    let mut source = origin.source("/channels/a", Some(&ids[1]));
    assert_eq!(next_message(&mut source).await.data, "2");
    assert_eq!(next_message(&mut source).await.data, "3");
}
