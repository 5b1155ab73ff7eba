//! The examples that run until they are stopped: the receiver of webhooks, the outbox of
//! PostgreSQL, and a program that contains an origin.

use super::postgres::Postgres;
use super::program::{Program, within_patience};
use super::relay::Relay;
use super::{Durable, command, command_with};
use crate::kit::{next_message, request};
use headwater::client::EventSource;
use headwater::client::http::Address;
use hyper::Method;
use serde_json::json;

/// GitHub documents this secret with this payload and its signature ("Validating webhook
/// deliveries").
const SECRET: &str = "It's a Secret to Everybody";
const PAYLOAD: &str = "Hello, World!";
const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

/// Sends a webhook as GitHub does, and returns the status of the answer.
async fn deliver(receiver: &Address, id: &str, payload: &str, signature: &str) -> u16 {
    let headers = [
        ("x-github-event", "push"),
        ("x-github-delivery", id),
        ("x-hub-signature-256", signature),
        ("content-type", "application/json"),
    ];
    let payload = payload.to_owned().into();
    let answer = request(receiver, Method::POST, "/", &headers, payload).await;
    answer.expect("the receiver answers").status.as_u16()
}

#[tokio::test]
async fn a_signed_webhook_is_published_once_also_when_it_is_sent_again() {
    let mut durable = Durable::start();
    let relay = Relay::start(durable.origin.listen).await;
    let url = format!("http://127.0.0.1:{}/channels/github", relay.port);
    let command = command_with("webhook.mjs", &url);
    let (_, without_secret) = command.split_once(' ').expect("a variable before the program");
    let variables = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("PORT", "0".to_owned())];
    let mut program = Program::start(without_secret, &variables);
    let lines = program.until(|lines| !lines.is_empty()).await;
    let receiver: Address = lines[0].parse().expect("a URL");

    for wrong in ["", "sha256=00", &SIGNATURE.replace("757107", "757108")] {
        assert_eq!(deliver(&receiver, "0", PAYLOAD, wrong).await, 401);
    }
    assert_eq!(deliver(&receiver, "0", "Hello, World?", SIGNATURE).await, 401);
    let large = "x".repeat(2 << 20);
    let too_large = request(&receiver, Method::POST, "/", &[], large.into()).await;
    // The connection may be closed before the whole payload is sent.
    assert!(too_large.is_err() || too_large.is_ok_and(|answer| answer.status == 413));

    assert_eq!(deliver(&receiver, "1", PAYLOAD, SIGNATURE).await, 201);
    assert_eq!(deliver(&receiver, "1", PAYLOAD, SIGNATURE).await, 200);
    // The first answer does not arrive, so the receiver repeats.
    relay.withhold_every(relay.answers() + 1);
    assert_eq!(deliver(&receiver, "2", PAYLOAD, SIGNATURE).await, 200);
    relay.withhold_every(0);
    durable
        .outage(async { assert_eq!(deliver(&receiver, "3", PAYLOAD, SIGNATURE).await, 503) })
        .await;
    assert_eq!(deliver(&receiver, "3", PAYLOAD, SIGNATURE).await, 201);

    let page = durable.origin.get("/channels/github/history").await.json();
    let events = page["events"].as_array().expect("events").iter();
    let events: Vec<_> =
        events.map(|event| (event["event"].clone(), event["data"].clone())).collect();
    assert_eq!(events, vec![(json!("push"), json!(PAYLOAD)); 3]);
}

#[tokio::test]
async fn the_outbox_publishes_each_change_of_the_table_once_and_in_order() {
    let mut durable = Durable::start();
    let postgres = Postgres::start().await;
    Program::start(&command("outbox.sql"), &postgres.variables()).ends().await;
    let relay = Relay::start(durable.origin.listen).await;
    let url = format!("http://127.0.0.1:{}/channels/orders", relay.port);
    let start = || Program::start(&command_with("outbox.py", &url), &postgres.variables());
    let mut expected = Vec::new();
    let mut change = |sql: &str, data: &[&str]| {
        postgres.run(sql);
        expected.extend(data.iter().map(|data| data.to_string()));
        expected.len()
    };

    let program = start();
    change("BEGIN; INSERT INTO orders VALUES (7, 'new'); ROLLBACK", &[]);
    let count = change(
        "INSERT INTO orders VALUES (1, 'new'), (2, 'ü & %')",
        &[r#"{"id":1,"status":"new"}"#, r#"{"id":2,"status":"ü & %"}"#],
    );
    durable.has("orders", count).await;

    // The event is stored, and the program ends before it knows that.
    relay.withhold_every(1);
    let count =
        change("UPDATE orders SET status = 'paid' WHERE id = 1", &[r#"{"id":1,"status":"paid"}"#]);
    within_patience("an answer is withheld", relay.withholds(1)).await;
    durable.has("orders", count).await;
    drop(program);
    relay.withhold_every(0);
    let _program = start();
    // A second program waits until the first one has ended.
    let _standby = start();

    let outage = async {
        change("UPDATE orders SET status = 'sent' WHERE id = 1", &[r#"{"id":1,"status":"sent"}"#]);
        relay.refuses(2).await;
    };
    durable.outage(within_patience("the program meets the outage", outage)).await;
    relay.withhold_every(2);
    let count = change("DELETE FROM orders WHERE id = 2", &[r#"{"id":2,"status":"ü & %"}"#]);
    durable.has("orders", count).await;
    let is_empty = async {
        while postgres.run("SELECT count(*) FROM outbox") != ["0"] {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    within_patience("the outbox is empty", is_empty).await;
    assert_eq!(durable.data("orders").await, expected);
    let state = durable.origin.get("/channels/orders/state").await.json();
    let rows = state["events"].as_array().expect("events").iter();
    let rows: Vec<_> = rows.map(|event| event["data"].as_str().expect("data")).collect();
    assert_eq!(rows, postgres.run("SELECT row_to_json(orders) FROM orders"));
}

#[tokio::test]
async fn a_program_that_contains_an_origin_publishes_and_stops() {
    let on_a_free_port = command("embed.rs").replace("127.0.0.1:8080", "127.0.0.1:0");
    let mut program = Program::start(&on_a_free_port, &[]);
    let said = program.until_error(|lines| !lines.is_empty()).await;
    let url = said[0].split(' ').next_back().expect("a URL");
    let (address, _) = url.split_once("/channels/").expect("a channel");
    let address = address.parse().expect("an address");
    let mut source = EventSource::new(address, "/channels/counter", Some("0-0"));
    for number in 1..=3 {
        assert_eq!(next_message(&mut source).await.data, number.to_string());
    }
    drop(source);
    program.signal("INT");
    program.ends().await;
}
