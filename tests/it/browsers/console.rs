//! The console of the admin listener in real browsers: it shows channels and events, publishes with
//! and without a token, gives commands that work, and draws what the metrics say.

use super::demo_audit::{AXE, PICTURES, SIZES, audit, findings, show};
use crate::browsers::browser::Browser;
use crate::kit::engine::Engine;
use crate::kit::visitor::Visitor;
use crate::kit::{BINARY, Origin, PATIENCE, alone, get, wait_for_phase};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::Duration;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn url(origin: &Origin, query: &str) -> String {
    format!("http://{}/console{query}", origin.admin)
}

async fn works(engine: Engine) {
    let origin = Origin::with(&["--store", "memory", "--demo", "--segment", "2s"]);
    let path = "/console?channel=ticker";
    let mut visitor = Visitor::open_at(engine, origin.admin.port(), path).await;
    // The channels of the demo, the events of the history, and new ones.
    let shown =
        visitor.until("live events", |shown| shown.status == "Connected" && shown.rows > 60).await;
    assert!(shown.faults.is_empty(), "{engine:?}: {:?}", shown.faults);
}

#[tokio::test]
async fn the_console_works_in_chromium() {
    let _alone = alone().await;
    works(Engine::Chromium).await;
}

#[tokio::test]
async fn the_console_works_in_firefox() {
    let _alone = alone().await;
    works(Engine::Firefox).await;
}

#[tokio::test]
async fn the_console_works_in_webkit() {
    let _alone = alone().await;
    works(Engine::WebKit).await;
}

/// Fills in the form, and publishes.
async fn publish(browser: &Browser, fields: &[(&str, &str)]) {
    for (field, text) in fields {
        let text = json!(text);
        browser.run(&format!("document.querySelector('#publish-{field}').value = {text}")).await;
    }
    browser.run("document.querySelector('#publish-form button').click()").await;
}

/// Waits until the answer to a publish has this outcome, and returns its text.
async fn answered(browser: &Browser, outcome: &str) -> String {
    browser
        .wait_for(&format!("document.querySelector('#answer').dataset.outcome == '{outcome}'"))
        .await;
    text(browser, "#answer").await
}

async fn text(browser: &Browser, selector: &str) -> String {
    let shown =
        browser.run(&format!("return document.querySelector('{selector}').textContent")).await;
    shown.as_str().expect("a text").to_owned()
}

/// Waits until an event with this data is shown.
async fn shows_event(browser: &Browser, data: &str) {
    let shown = "[...document.querySelectorAll('#events .data')].map((one) => one.textContent)";
    browser.wait_for(&format!("{shown}.includes({})", json!(data))).await;
}

/// Runs a snippet in a shell. A stream goes on until it is stopped.
async fn run(snippet: &str) -> Output {
    let mut timeout = tokio::process::Command::new("timeout");
    timeout.args(["-s", "KILL", "5", "bash", "-ec", snippet]).output().await.expect("it runs")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Runs the three snippets that the console shows: in a shell, in a page of the public listener, and
/// in Node.js. Returns what they have printed until it has `enough`.
async fn run_snippets(browser: &Browser, origin: &Origin, enough: &str) -> [String; 3] {
    let mut snippets = Vec::new();
    for name in ["curl", "browser", "node"] {
        snippets.push(text(browser, &format!("#snippet-{name}")).await);
    }
    let before = browser.open_tab().await;
    browser.open(&format!("http://{}/", origin.listen)).await;
    // The test listens to the console of the page.
    let script = format!(
        "window.printed = ''; console.log = (...values) =>
            (window.printed += values.map((one) => JSON.stringify(one)).join(' ') + '\\n');
        (async () => {{ {} }})();",
        snippets[1]
    );
    browser.run(&script).await;
    browser.wait_for(&format!("window.printed.includes({})", json!(enough))).await;
    let in_page = browser.run("return window.printed").await;
    browser.switch_to(&before).await;
    let in_page = in_page.as_str().expect("a text").to_owned();
    let (in_shell, in_node) = tokio::join!(run(&snippets[0]), run(&snippets[2]));
    [printed(&in_shell), in_page, printed(&in_node)]
}

#[tokio::test]
async fn an_operator_reads_and_publishes_and_the_snippets_work() {
    let _alone = alone().await;
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    origin.publish("news.sport", "first").await;
    origin.publish("prices", "1.07").await;
    let browser = Browser::start().await;
    browser.open(&url(&origin, "")).await;
    browser.wait_for("document.querySelectorAll('#channels tr').length == 2").await;
    let rows = "return [...document.querySelectorAll('#channels tr')].map((one) => one.innerText)";
    let rows = browser.run(rows).await.to_string();
    assert!(rows.contains("prices") && rows.contains("9 B"), "{rows}");
    browser
        .run(
            "document.querySelector('#prefix').value = 'news.';
            document.querySelector('#prefix').dispatchEvent(new Event('input', { bubbles: true }))",
        )
        .await;
    browser.wait_for("document.querySelectorAll('#channels tr').length == 1").await;
    browser.run("document.querySelector('#channels button').click()").await;
    shows_event(&browser, "first").await;
    for transport in ["stream", "websocket"] {
        browser.run(&format!("document.querySelector('[value={transport}]').click()")).await;
        browser.wait_for("document.querySelector('#events-part').dataset.status == 'live'").await;
        origin.publish_with("news.sport", "event=goal&key=match-7", transport).await;
        shows_event(&browser, transport).await;
        let head = text(&browser, "#events li:first-child .event-head").await;
        assert!(head.contains("goal") && head.contains("match-7"), "{head}");
    }
    let read = run_snippets(&browser, &origin, "websocket");
    let late = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..200 {
            origin.publish("news.sport", "websocket").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let read = tokio::select! {
        biased;
        read = read => read,
        () = late => panic!("the snippets read nothing"),
    };
    for printed in read {
        assert!(printed.contains("websocket"), "{printed}");
    }
    // What needs quotes in a shell and in a program.
    let data = "it's \"here\"\nEND\n$(id) `id` \\ </script>";
    let fields = [("type", "a & b"), ("key", "k/1"), ("idempotency", "once"), ("data", data)];
    publish(&browser, &fields).await;
    let stored = answered(&browser, "stored").await;
    shows_event(&browser, data).await;
    let id = stored.split("the id ").nth(1).expect("an id").trim_end_matches('.').to_owned();
    // Each snippet repeats the publish with its key, so the event is stored once.
    for printed in run_snippets(&browser, &origin, &id).await {
        assert!(printed.contains(&id), "{id}: {printed}");
    }
    publish(&browser, &[]).await;
    assert!(answered(&browser, "duplicate").await.contains(&id));
    publish(&browser, &[("data", "other")]).await;
    let refused = answered(&browser, "refused").await;
    assert!(refused.contains("Idempotency-Key stands for another publish"), "{refused}");
    // A browser logs each refused request. The page of the public listener has no icon.
    let errors = browser.console_errors().await;
    let mut errors = errors.iter().filter(|error| !error.contains("/favicon.ico"));
    assert!(errors.all(|error| error.contains("422")), "{errors:?}");
}

/// A token with the rights to read and to publish.
fn token() -> String {
    let mut command = Command::new(BINARY);
    command.args([
        "token",
        "--token-secret",
        SECRET,
        "--publish",
        "desk.*",
        "--subscribe",
        "desk.*",
    ]);
    String::from_utf8(command.output().expect("it starts").stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn a_private_channel_needs_the_token_of_the_visitor() {
    let _alone = alone().await;
    let flags = ["--token-secret", SECRET, "--private", "desk.*", "--store", "memory"];
    let origin = Origin::with(&flags);
    let browser = Browser::start().await;
    browser.open(&url(&origin, "?channel=desk.a")).await;
    browser.wait_for("document.querySelector('#events-part').dataset.status == 'denied'").await;
    assert!(text(&browser, "#stream-status").await.starts_with("Not allowed. A token is needed"));
    publish(&browser, &[("data", "for some")]).await;
    let refused = answered(&browser, "refused").await;
    assert!(refused.starts_with("Not stored. A token is needed"), "{refused}");
    browser.wait_for("!document.querySelector('#token-part').hidden").await;
    let enter = format!("document.querySelector('#token').value = '{}'", token());
    browser.run(&enter).await;
    browser.run("document.querySelector('#token-form button').click()").await;
    browser.wait_for("document.querySelector('#events-part').dataset.status == 'live'").await;
    publish(&browser, &[]).await;
    answered(&browser, "stored").await;
    shows_event(&browser, "for some").await;
    browser.wait_for("document.querySelector('#channels').textContent.includes('private')").await;
    browser.run("document.querySelector('[value=websocket]').click()").await;
    browser.wait_for("document.querySelector('#events-part').dataset.status == 'live'").await;
    shows_event(&browser, "for some").await;
    let curl = text(&browser, "#snippet-curl").await;
    assert!(printed(&run(&curl).await).contains("\"id\""), "{curl}");
    // The token is in this tab alone.
    browser.open_tab().await;
    browser.open(&url(&origin, "?channel=desk.a")).await;
    browser.wait_for("document.querySelector('#events-part').dataset.status == 'denied'").await;
}

#[tokio::test]
async fn a_page_of_another_web_origin_reads_and_publishes_nothing() {
    let _alone = alone().await;
    let origin = Origin::with(&["--store", "memory"]);
    origin.publish("desk.a", "kept").await;
    let browser = Browser::start().await;
    let admin = format!("http://{}", origin.admin);
    let script = format!(
        r#"const done = arguments[0];
        const at = (path) => "{admin}/console/api" + path;
        const tried = async (path, options) => {{
            try {{
                return (await fetch(at(path), options)).type;
            }} catch {{
                return "failed";
            }}
        }};
        const marked = {{ method: "POST", body: "x", headers: {{ "Headwater-Console": "1" }} }};
        const socket = new Promise((resolve) => {{
            const socket = new WebSocket(at("/ws").replace("http", "ws"));
            socket.onopen = () => resolve("open");
            socket.onerror = () => resolve("failed");
        }});
        Promise.all([
            tried("/channels/desk.a/history"),
            tried("/channels/desk.a", marked),
            tried("/channels/desk.a", {{ method: "POST", body: "x", mode: "no-cors" }}),
            tried("/../origin.json"),
            socket,
        ]).then(done);"#
    );
    // The public listener is another origin of the same site, and `evil.example` another site.
    for host in ["127.0.0.1", "localhost", "evil.example"] {
        let page = format!("http://{host}:{}/headwater.js", origin.listen.port());
        browser.open(&page).await;
        let results = browser.run_async(&script).await;
        assert_eq!(results, json!(["failed", "failed", "opaque", "failed", "failed"]), "{host}");
    }
    assert_eq!(origin.log("desk.a").await.len(), 1);
}

/// Waits until each of these figures has the value of the metrics.
async fn agrees(browser: &Browser, origin: &Origin) {
    let first = "headwater_shareable_requests_total{kind=\"first\"}";
    let repeat = "headwater_shareable_requests_total{kind=\"repeat\"}";
    let opened = |kind: &str| format!("headwater_streams_opened_total{{kind=\"{kind}\"}}");
    let agrees = async {
        loop {
            let (first, repeat) = (origin.metric(first).await, origin.metric(repeat).await);
            let open = origin.metric("headwater_streams_open").await;
            let wanted = [
                ("all", (first + repeat).to_string()),
                ("first", first.to_string()),
                ("ratio", format!("{:.2}", (first + repeat) / first)),
                ("open", open.to_string()),
                ("fresh", origin.metric(&opened("fresh")).await.to_string()),
                ("reconnects", origin.metric(&opened("cursor")).await.to_string()),
            ];
            let mut shown = Vec::new();
            for (name, _) in &wanted {
                shown.push((*name, text(browser, &format!("#figure-{name}")).await));
            }
            if shown == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, agrees).await.expect("the figures agree with the metrics");
}

#[tokio::test]
async fn the_picture_agrees_with_the_metrics_and_the_page_says_when_the_origin_is_gone() {
    let _alone = alone().await;
    wait_for_phase(600_000, 0, 560_000).await;
    let mut origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    let id = origin.publish("prices", "1.07").await;
    let browser = Browser::start().await;
    browser.open(&url(&origin, "?channel=prices")).await;
    browser.wait_for("document.querySelector('#events-part').dataset.status == 'live'").await;
    let mut readers = Vec::new();
    for (channel, cursor) in
        [("prices", None), ("prices", None), ("prices", Some(&*id)), ("a", None)]
    {
        readers.push(origin.raw(&get(&format!("/channels/{channel}"), cursor)).await);
    }
    browser.wait_for("document.querySelector('#figure-all').textContent == '4'").await;
    agrees(&browser, &origin).await;
    assert_eq!(text(&browser, "#figure-ratio").await, "1.33");
    assert!(text(&browser, "#meaning").await.contains("1.33 times"));
    // The console reads the channel, too.
    browser.wait_for("document.querySelector('#figure-subscribers').textContent == '4'").await;
    let bars =
        "return ['all', 'first'].map((name) => [...document.querySelectorAll(`#picture .${name}`)]
        .reduce((sum, bar) => sum + Number(bar.getAttribute('height')), 0))";
    let bars = browser.run(bars).await;
    let height = |index: usize| bars[index].as_f64().expect("a number");
    assert!((height(0) / height(1) - 4.0 / 3.0).abs() < 0.01, "{bars}");
    let table = text(&browser, "#segments tr:last-child").await;
    assert!(table.ends_with("1431.3"), "{table}");
    drop(readers);
    browser
        .wait_for("document.querySelector('[data-reason=client_gone]').textContent == '4'")
        .await;
    agrees(&browser, &origin).await;
    origin.kill();
    let gone = r"/^No answer from the origin since \d+:\d+:\d+/";
    browser.wait_for(&format!("{gone}.test(document.querySelector('#status').textContent)")).await;
    assert_eq!(browser.run("return document.body.dataset.status").await, "reconnecting");
    publish(&browser, &[("data", "x")]).await;
    assert!(answered(&browser, "refused").await.contains("the event may be stored or not"));
    origin.start_again();
    browser.wait_for("document.querySelector('#status').textContent == 'Connected'").await;
    browser.wait_for("document.querySelector('#events-part').dataset.status == 'live'").await;
}

/// The elements that the Tab key reaches, with the style of their outlines.
async fn tab_stops(browser: &Browser, count: usize) -> Vec<Value> {
    let mut reached = Vec::new();
    for _ in 0..count {
        for kind in ["rawKeyDown", "keyUp"] {
            let key =
                json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            browser.devtools("Input.dispatchKeyEvent", key).await;
        }
        let name = "const { id, value, textContent } = document.activeElement;
            return [id || value || textContent.trim(),
                getComputedStyle(document.activeElement).outlineStyle]";
        reached.push(browser.run(name).await);
    }
    reached
}

#[tokio::test]
async fn the_console_is_accessible_in_each_theme_and_width_and_by_keyboard() {
    let _alone = alone().await;
    let axe = std::fs::read_to_string(AXE).expect("tests/run installs axe-core");
    std::fs::create_dir_all(PICTURES).expect("a directory");
    let flags = ["--token-secret", SECRET, "--private", "desk.*", "--store", "memory", "--demo"];
    let origin = Origin::with(&[&flags[..], &["--segment", "2s"]].concat());
    let browser = Browser::start().await;
    browser.open(&url(&origin, "?channel=jobs")).await;
    let _readers = [
        origin.raw(&get("/channels/ticker", None)).await,
        origin.raw(&get("/channels/ticker", None)).await,
    ];
    browser.wait_for("document.body.dataset.status == 'live'").await;
    browser.wait_for("document.querySelectorAll('#channels tr').length >= 4").await;
    let stops = tab_stops(&browser, 34).await;
    assert_eq!(stops[0][0], "Skip to the content");
    for name in
        ["prefix", "subscribed", "jobs", "events", "pause", "token", "publish-data", "address"]
    {
        let stop = stops.iter().find(|stop| stop[0] == name);
        let stop = stop.unwrap_or_else(|| panic!("{name} is not reached: {stops:?}"));
        assert_ne!(stop[1], "none", "{name} shows no focus");
    }
    publish(&browser, &[("data", "x"), ("key", "eur")]).await;
    answered(&browser, "refused").await;
    browser.wait_for("document.querySelectorAll('#events li').length >= 5").await;
    browser.wait_for("document.querySelector('#figure-all').textContent == '2'").await;
    browser.run("document.querySelector('summary').click(); scrollTo(0, 0)").await;
    audit(&browser, &axe, "console", true).await;
    show(&browser, SIZES[1], &[("forced-colors", "active"), ("prefers-reduced-motion", "reduce")])
        .await;
    assert_eq!(findings(&browser, &axe).await["found"], json!([]));
    let border = "return getComputedStyle(document.querySelector('.swatch.all')).borderTopStyle";
    assert_eq!(browser.run(border).await, "solid");
    let errors = browser.console_errors().await;
    assert!(errors.iter().all(|error| error.contains("401")), "{errors:?}");
}
