//! What the pages of `serve --demo` promise: they work in each engine, heal after an outage, share
//! one connection between tabs, and show late visitors the state of jobs and rooms.

use crate::browsers::browser::Browser;
use crate::kit::edge::Cache;
use crate::kit::engine::Engine;
use crate::kit::visitor::Visitor;
use crate::kit::{BINARY, Origin, PATIENCE, alone};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// The pages, each with the number of rows, prices, jobs or messages that it soon shows.
const PAGES: [(&str, usize); 5] = [
    ("/", 15),
    ("/demo/departures", 14),
    ("/demo/ticker", 12),
    ("/demo/jobs", 1),
    ("/demo/chat", 1),
];
const OUTAGE: Duration = Duration::from_secs(5);

/// An origin with the demo and a store that survives it.
fn demo(flags: &[&str]) -> (Origin, TempDir) {
    let directory = tempfile::tempdir().expect("a directory for the store");
    let store = format!("disk:{}", directory.path().display());
    let flags = [&["--demo", "--segment", "2s", "--store", &store], flags].concat();
    (Origin::with(&flags), directory)
}

fn url(origin: &Origin, path: &str) -> String {
    format!("http://{}{path}", origin.listen)
}

/// Opens each page, and follows it over a boundary.
async fn every_page_works(engine: Engine) {
    let (origin, _directory) = demo(&[]);
    let mut visitor = Visitor::open(engine, &origin, "/").await;
    for (path, rows) in PAGES {
        visitor.go(path);
        let shown = visitor
            .until("a live board", |shown| shown.status == "Live" && shown.rows >= rows)
            .await;
        let needed = shown.events + if path == "/demo/chat" { 0 } else { 5 };
        let shown = visitor.until("more events", |shown| shown.events >= needed).await;
        assert_eq!((shown.missing, shown.repeated), (0, 0), "{engine:?} {path}");
        assert!(shown.faults.is_empty(), "{engine:?} {path}: {:?}", shown.faults);
    }
}

#[tokio::test]
async fn every_page_works_in_chromium() {
    let _alone = alone().await;
    every_page_works(Engine::Chromium).await;
}

#[tokio::test]
async fn every_page_works_in_firefox() {
    let _alone = alone().await;
    every_page_works(Engine::Firefox).await;
}

#[tokio::test]
async fn every_page_works_in_webkit() {
    let _alone = alone().await;
    every_page_works(Engine::WebKit).await;
}

#[tokio::test]
async fn two_tabs_share_a_connection_and_heal_after_an_outage() {
    let _alone = alone().await;
    let (mut origin, _directory) = demo(&[]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/ticker")).await;
    browser.wait_for("headwater.channels.ticker?.events > 5").await;
    let first = browser.open_tab().await;
    browser.open(&url(&origin, "/demo/ticker")).await;
    browser.wait_for("headwater.channels.ticker?.events > 5").await;
    // The second tab begins with a connection of its own, and gives it up after a boundary.
    let shared = async {
        while origin.metric("headwater_streams_open").await != 1.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shared).await.expect("the tabs share one stream");
    assert!(browser.console_errors().await.is_empty());
    origin.kill();
    let tabs = [browser.open_tab().await, first];
    for tab in &tabs {
        browser.switch_to(tab).await;
        browser.wait_for("document.body.dataset.status == 'reconnecting'").await;
        let shown =
            "document.querySelector('#status').textContent.startsWith('Reconnecting since ')";
        browser.wait_for(shown).await;
        browser
            .wait_for("/^[1-9][0-9]* s$/.test(document.querySelector('#clock').textContent)")
            .await;
    }
    tokio::time::sleep(OUTAGE).await;
    origin.start_again();
    for tab in &tabs {
        browser.switch_to(tab).await;
        browser.wait_for("document.querySelector('#status').textContent == 'Live'").await;
        let before = browser.run("return headwater.channels.ticker.events").await;
        browser.wait_for(&format!("headwater.channels.ticker.events > {before} + 5")).await;
        let report = r"/^Back after \d+ s: 0 missing, 0 twice\.$/";
        browser
            .wait_for(&format!("{report}.test(document.querySelector('#outage').textContent)"))
            .await;
    }
}

#[tokio::test]
async fn a_page_goes_on_with_the_log_of_a_server_that_has_lost_its_store() {
    let _alone = alone().await;
    let mut origin = Origin::with(&["--demo", "--segment", "2s", "--store", "memory"]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/ticker")).await;
    browser.wait_for("headwater.channels.ticker?.events > 20").await;
    origin.kill();
    browser.wait_for("document.body.dataset.status == 'reconnecting'").await;
    origin.start_again();
    let report = r"/^Back after \d+ s: 0 missing, 0 twice, [1-9]\d* gaps announced\.$/";
    browser
        .wait_for(&format!("{report}.test(document.querySelector('#outage').textContent)"))
        .await;
    let before = browser.run("return headwater.drawn.prices").await;
    browser.wait_for(&format!("headwater.drawn.prices > {before} + 10")).await;
}

#[tokio::test]
async fn a_board_whose_channel_has_ended_says_so() {
    let _alone = alone().await;
    let (origin, _directory) = demo(&[]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/departures")).await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    let answer = origin.request(Method::DELETE, "/channels/departures", &[], "").await;
    assert!(answer.status.is_success(), "{}", answer.body);
    let text = "document.querySelector('#status').textContent";
    browser.wait_for(&format!("{text} == 'Ended: the channels are closed'")).await;
    assert!(browser.console_errors().await.is_empty());
}

/// Runs a command of a page in a shell, for at most two seconds.
fn run(command: &str, directory: &Path) -> Output {
    let binary = Path::new(BINARY).parent().expect("a directory").display();
    let path = format!("{binary}:{}", std::env::var("PATH").expect("a PATH"));
    let shell = ["-s", "KILL", "2", "bash", "-ec", command];
    let mut timeout = Command::new("timeout");
    timeout.args(shell).env("PATH", path).current_dir(directory).output().expect("it runs")
}

#[tokio::test]
async fn the_commands_of_the_pages_work_when_they_are_pasted() {
    let _alone = alone().await;
    let (origin, directory) = demo(&[]);
    let browser = Browser::start().await;
    let mut counted = 0;
    for (path, _) in PAGES {
        browser.open(&url(&origin, path)).await;
        browser.wait_for("document.querySelector('.copy')").await;
        let texts =
            "return [...document.querySelectorAll('.command')].map((one) => one.textContent)";
        let commands = browser.run(texts).await;
        let commands = commands.as_array().expect("commands").iter().filter_map(Value::as_str);
        // The servers of the caches have tests of their own.
        let in_shell = |text: &&str| !text.starts_with("new ") && !text.contains(" serve ");
        for command in commands.filter(in_shell) {
            let command =
                command.split("\nvarnishd ").next().and_then(|one| one.split("\nnginx ").next());
            let command = command.expect("a command");
            let output = run(command, directory.path());
            let (said, error) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
            // A stream goes on until it is stopped.
            let is_stream = command.starts_with("curl -N");
            assert!(output.status.success() || is_stream, "{command}: {error}");
            assert!(!said.is_empty() || command.contains(" > "), "{command}: {error}");
            counted += 1;
        }
    }
    assert!(counted >= 12, "{counted} commands");
}

#[tokio::test]
async fn a_late_visitor_sees_a_job_that_another_one_has_started() {
    let _alone = alone().await;
    let (origin, _directory) = demo(&[]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/jobs")).await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    browser.run("document.querySelector('#kind').value = 'photos'").await;
    browser.run("document.querySelector('#start button').click()").await;
    let photos = |status: &str| {
        format!(
            "[...document.querySelectorAll('#jobs [data-status={status}]')]
                .some((job) => job.textContent.includes('Resize 24 photos'))"
        )
    };
    let runs = &photos("running");
    browser.wait_for(runs).await;
    let first = browser.open_tab().await;
    browser.open(&url(&origin, "/demo/jobs")).await;
    browser.wait_for(runs).await;
    browser.switch_to(&first).await;
    browser.wait_for(&photos("done")).await;
    assert!(browser.console_errors().await.is_empty());
}

#[tokio::test]
async fn the_overview_counts_the_requests_that_reach_the_origin() {
    let _alone = alone().await;
    let origin = Origin::with(&["--demo", "--store", "memory"]);
    let cache = Cache::varnish(origin.listen.port());
    let browser = Browser::start().await;
    let through = [
        (origin.listen.port(), "100 origin requests", "none"),
        (cache.port, "1 origin request", "varnish"),
    ];
    for (port, requests, name) in through {
        browser.open(&format!("http://127.0.0.1:{port}/")).await;
        browser.wait_for("document.body.dataset.status == 'live'").await;
        browser
            .wait_for(&format!("document.querySelector('#cache').textContent == '{name}'"))
            .await;
        // Behind a cache the page asks by itself.
        if name == "none" {
            browser.run("document.querySelector('#ask').click()").await;
        }
        let counted = format!("100 clients, {requests}.");
        let text = "document.querySelector('#asked').textContent";
        browser.wait_for(&format!("{text}.startsWith('{counted}')")).await;
        assert!(browser.console_errors().await.is_empty());
    }
}

#[tokio::test]
async fn a_busy_ticker_is_drawn_once_for_each_frame_and_not_for_each_price() {
    let _alone = alone().await;
    const PRICES: u64 = 500;
    let (origin, _directory) = demo(&[]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/ticker")).await;
    browser.wait_for("headwater.channels.ticker?.events > 1").await;
    let before = browser.run("return { ...headwater.drawn }").await;
    // These numbers are so high that the page takes no later price of the demo.
    let price = |n| json!({ "n": 1_000_000_000 + n, "symbol": "GOLD", "price": 2000 + n });
    let line = |n| json!({ "key": "GOLD", "data": price(n).to_string() }).to_string() + "\n";
    let body: String = (0..PRICES).map(line).collect();
    let kind = [("content-type", "application/x-ndjson")];
    let answer = origin.post("/channels/ticker", &kind, &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let newest = (2000 + PRICES - 1).to_string();
    browser.wait_for(&format!("document.body.textContent.includes('{newest}')")).await;
    let after = browser.run("return { ...headwater.drawn }").await;
    let counted = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    let (prices, frames) = (counted("prices"), counted("frames"));
    assert!(prices >= PRICES, "{prices} prices");
    assert!(frames > 0 && frames < PRICES / 5, "{frames} frames for {prices} prices");
}

/// The job with this key in the state of the channel.
async fn job(origin: &Origin, key: &str) -> Option<Value> {
    let state = origin.get("/channels/jobs/state").await.json();
    let events = state["events"].as_array().expect("events").iter();
    let mut found = events.filter(|event| event["key"] == key);
    found.next().map(|event| serde_json::from_str(event["data"].as_str().unwrap()).expect("JSON"))
}

/// Waits until a job is so far.
async fn job_becomes(origin: &Origin, key: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let becomes = async {
        loop {
            if let Some(job) = job(origin, key).await.filter(&enough) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, becomes).await.expect("the job goes on")
}

#[tokio::test]
async fn a_job_goes_on_after_a_restart_and_is_not_started_again() {
    let _alone = alone().await;
    let (mut origin, _directory) = demo(&[]);
    let command = r#"{"start":"photos"}"#;
    let answer = origin.post("/channels/jobs.commands", &[], command).await.json();
    let key = format!("job-{}", answer["id"].as_str().expect("an id"));
    let done = |job: &Value| job["done"].as_u64().expect("a number");
    let before = done(&job_becomes(&origin, &key, |job| done(job) >= 3).await);
    origin.kill();
    origin.start_again();
    // A job that was started again would begin at step 0.
    let after = job_becomes(&origin, &key, |_| true).await;
    assert!(done(&after) >= before && after["attempt"] == 1, "{before} steps, then {after}");
    let end = job_becomes(&origin, &key, |job| job["status"] == "done").await;
    assert_eq!((done(&end), &end["attempt"]), (24, &json!(1)));
}

#[tokio::test]
async fn a_command_from_before_the_worker_started_is_carried_out() {
    let _alone = alone().await;
    let directory = tempfile::tempdir().expect("a directory for the store");
    let store = format!("disk:{}", directory.path().display());
    let mut before = Origin::with(&["--store", &store]);
    let id = before.publish("jobs.commands", r#"{"start":"photos"}"#).await;
    before.kill();
    let origin = Origin::with(&["--demo", "--store", &store]);
    let job = job_becomes(&origin, &format!("job-{id}"), |_| true).await;
    assert_eq!(job["kind"], "photos");
}

/// Says something in the chat, over the transport of the page.
async fn say(browser: &Browser, text: &str) {
    browser.run(&format!("document.querySelector('#text').value = '{text}'")).await;
    browser.run("document.querySelector('#say button').click()").await;
    browser
        .wait_for(&format!("document.querySelector('#messages').textContent.includes('{text}')"))
        .await;
}

#[tokio::test]
async fn visitors_over_websocket_and_sse_read_the_same_room() {
    let _alone = alone().await;
    let (origin, _directory) = demo(&[]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/chat?room=ops&transport=websocket")).await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    say(&browser, "over a socket").await;
    let first = browser.open_tab().await;
    browser.open(&url(&origin, "/demo/chat?room=ops&transport=stream")).await;
    browser.wait_for("document.querySelectorAll('#messages li').length == 1").await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    say(&browser, "over a request").await;
    let shown = "return [...document.querySelectorAll('#messages time')].map(({ title }) => title)";
    let over_sse = browser.run(shown).await;
    browser.switch_to(&first).await;
    browser.wait_for("document.querySelectorAll('#messages li').length == 2").await;
    let over_socket = browser.run(shown).await;
    let history = origin.get("/channels/chat.ops/history").await.json();
    let logged: Vec<_> =
        history["events"].as_array().expect("events").iter().map(|event| &event["id"]).collect();
    assert_eq!(json!(logged), over_sse);
    assert_eq!(over_sse, over_socket);
    assert!(browser.console_errors().await.is_empty());
}

/// A token with the right to start jobs.
fn token(secret: &str) -> String {
    let mut command = Command::new(BINARY);
    command.args(["token", "--token-secret", secret, "--publish", "jobs.commands"]);
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn a_page_asks_for_a_token_where_publishing_needs_one() {
    let _alone = alone().await;
    let secret = "0123456789abcdef0123456789abcdef";
    let (origin, _directory) = demo(&["--token-secret", secret]);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "/demo/jobs")).await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    browser.run("document.querySelector('#start button').click()").await;
    browser.wait_for("!document.querySelector('#token-card').hidden").await;
    browser.wait_for("document.activeElement.id == 'token'").await;
    let token = token(secret);
    browser.run(&format!("document.querySelector('#token').value = '{token}'")).await;
    browser.run("document.querySelector('#token-form button').click()").await;
    browser.wait_for("document.querySelector('#token-card').hidden").await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    browser.run("document.querySelector('#start button').click()").await;
    browser.wait_for("document.querySelector('#started').textContent.includes('started')").await;
}

#[tokio::test]
async fn only_the_demo_has_its_pages_and_they_load_nothing_from_elsewhere() {
    let _alone = alone().await;
    let (with, without) = (Origin::with(&["--store", "memory", "--demo"]), Origin::start());
    for (path, _) in PAGES {
        let answer = with.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'self';"), "{policy}");
        let parts = answer.body.split('"').filter(|part| part.starts_with("/demo/"));
        for part in parts {
            assert_eq!(with.get(part).await.status, StatusCode::OK, "{part}");
            assert_eq!(without.get(part).await.status, StatusCode::NOT_FOUND, "{part}");
        }
        // The link to the console loads nothing.
        let link = format!("href=\"http://{}/console\"", with.admin);
        assert_eq!(answer.body.contains(&link), path == "/", "{path}");
        let body = answer.body.replace(&link, "");
        assert!(!body.contains("http://") && !body.contains("https://"), "{path}");
    }
    assert!(without.get("/").await.header("content-security-policy").is_none());
    assert_eq!(with.get("/demo/").await.status, StatusCode::NOT_FOUND);
}
