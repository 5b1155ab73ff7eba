//! The dashboard of deploy/, checked with a real Prometheus that scrapes real origins, and the metrics
//! that it and the alerts name.

use crate::kit::prometheus::{Prometheus, RULES, queries};
use crate::kit::{Origin, next_message, request};
use hyper::Method;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn every_query_of_the_dashboard_has_an_answer_and_no_alert_fires_without_a_fault() {
    let one = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let other = Origin::start();
    let prometheus = Prometheus::start(&[&one, &other]);
    let mut source = one.source("/channels/a?after=0-0", None);
    let traffic = async {
        loop {
            one.publish("a", "x").await;
            next_message(&mut source).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let answered = async {
        tokio::select! {
            () = traffic => unreachable!("the traffic does not end"),
            () = prometheus.answers_the_dashboard() => {}
        }
    };
    timeout(Duration::from_secs(60), answered).await.expect("every query has an answer");
    let firing = prometheus.firing().await;
    assert!(firing.is_empty(), "{firing:?} without any fault");
}

/// Metrics that the rules and the dashboard name exist. A query about a missing metric has no
/// answer and raises no alert.
#[tokio::test]
async fn the_rules_and_the_dashboard_use_metrics_that_exist() {
    let origin = Origin::start();
    let admin = format!("http://{}", origin.admin).parse().expect("an address");
    let known = request(&admin, Method::GET, "/metrics", &[], Default::default()).await;
    let known = known.expect("metrics").body;
    let mut text = std::fs::read_to_string(RULES).expect("the rules");
    for (_, query) in queries() {
        text.push('\n');
        text.push_str(&query);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: Vec<&str> = text.split(|c| !is_part(c)).collect();
    let used: Vec<_> = words
        .iter()
        .filter(|word| word.starts_with("headwater_") || word.starts_with("process_"))
        .collect();
    assert!(used.len() > 30, "{used:?}");
    for metric in used {
        assert!(known.contains(&format!("\n{metric}")), "there is no {metric}");
    }
}
