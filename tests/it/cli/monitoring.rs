//! The dashboard and the alerts of deploy/, checked with a real Prometheus that scrapes real
//! origins.

use crate::kit::prometheus::{Prometheus, RULES, queries};
use crate::kit::{Origin, next_message, request};
use hyper::Method;
use std::process::Command;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn every_query_of_the_dashboard_has_an_answer_and_a_kill_raises_an_alert() {
    let mut one = Origin::with(&["--store", "memory", "--segment", "1s"]);
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
    one.kill();
    prometheus.fires("HeadwaterDown").await;
}

#[tokio::test]
async fn a_full_store_raises_its_alerts() {
    // Each event is more than a tenth of the store.
    let origin = Origin::with(&[
        "--store",
        "memory",
        "--max-store-bytes",
        "1MiB",
        "--retain-bytes",
        "4MiB",
        "--max-event",
        "200KiB",
    ]);
    let prometheus = Prometheus::start(&[&origin]);
    let body = "x".repeat(190 * 1024);
    for channel in 0..8 {
        let path = format!("/channels/c{channel}");
        let status = origin.post(&path, &[], &body).await.status;
        assert!(status == 201 || status == 507, "{status}");
    }
    prometheus.fires("HeadwaterStoreNearlyFull").await;
}

#[test]
fn promtool_accepts_the_rules_and_the_documents_explain_each_alert() {
    let checked = Command::new("promtool").args(["check", "rules", RULES]).output();
    let checked = checked.expect("promtool runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let rules = std::fs::read_to_string(RULES).expect("the rules");
    let document = std::fs::read_to_string("docs/operations.md").expect("the document");
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        assert!(document.contains(&format!("| `{alert}` |")), "docs/operations.md lacks {alert}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| `Headwater")).count();
    assert_eq!(rows, alerts.len(), "docs/operations.md has an alert that the rules have not");
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
