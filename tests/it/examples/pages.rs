//! The example pages in Chromium. The command of each page in examples/README.md starts the web
//! server that serves it.

use super::program::Program;
use super::{Durable, command};
use crate::browsers::browser::Browser;
use hyper::Method;
use serde_json::json;
use std::path::Path;

/// Where `tests/run` has installed the packages of the page with React and Vite.
const VITE: &str = "target/vite";

/// Starts a web server on a free port, and returns its URL when it has printed that.
async fn serve(directory: &Path, command: &str, variables: &[(&str, String)]) -> (Program, String) {
    let mut server = Program::start_in(directory, command, variables);
    let lines = server.until(|lines| lines.iter().any(|line| line.contains("http://"))).await;
    let line = lines.iter().find(|line| line.contains("http://")).expect("just seen");
    let url = &line[line.find("http://").expect("just seen")..];
    let end = url.find([')', ' ']).unwrap_or(url.len());
    (server, url[..end].to_owned())
}

#[tokio::test]
async fn the_page_shows_each_event_once_and_says_when_it_has_no_connection() {
    let mut durable = Durable::start();
    let on_a_free_port = command("page.html").replace("3000", "0");
    let unbuffered = [("PYTHONUNBUFFERED", "1".to_owned())];
    let (_server, home) = serve(Path::new("."), &on_a_free_port, &unbuffered).await;
    let browser = Browser::start().await;
    let stream = format!("{}/channels/page?format=json&after=0-0", durable.origin.address());
    browser.open(&format!("{home}page.html#{stream}")).await;
    let status = r##"document.querySelector("#status").textContent"##;
    let items = r##"[...document.querySelectorAll("#events li")].map((item) => item.textContent)"##;

    durable.origin.publish("page", "<b>one</b>").await;
    browser.wait_for(&format!("{items}.length === 1")).await;
    durable.outage(browser.wait_for(&format!("{status} === 'Reconnecting…'"))).await;
    durable.origin.publish("page", "two").await;
    browser.wait_for(&format!("{items}.length === 2 && {status} === 'Connected.'")).await;
    durable.origin.publish("page", "three").await;
    durable.origin.request(Method::DELETE, "/channels/page", &[], "").await;
    browser.wait_for(&format!("{status} === 'The channel has ended.'")).await;
    let shown = browser.run(&format!("return {items}")).await;
    assert_eq!(shown, json!(["<b>one</b>", "two", "three"]));
}

#[tokio::test]
async fn the_page_with_react_shows_the_state_and_whether_it_is_live() {
    let mut durable = Durable::start();
    install("examples/vite", VITE);
    // The copy that npm has installed may be older than the module of this build.
    install("src/client_js", &format!("{VITE}/node_modules/headwater"));
    let command = command("vite");
    let (_, after_install) = command.split_once("npm install && ").expect("it installs");
    let command = format!("{after_install} --force --host 127.0.0.1 --port 0");
    let variables = [
        ("VITE_HEADWATER_URL", durable.origin.address().to_string()),
        ("NO_COLOR", "1".to_owned()),
    ];
    let (_server, home) = serve(Path::new(VITE), &command, &variables).await;
    let publish = async |durable: &Durable, key: &str, status: &str| {
        let data = json!({ "status": status }).to_string();
        durable.origin.publish_with("orders", &format!("key={key}"), &data).await;
    };
    publish(&durable, "1", "new").await;
    publish(&durable, "2", "new").await;
    let browser = Browser::start().await;
    browser.open(&home).await;
    let shows = |status: &str, rows: &str| {
        let text = r#"document.body.innerText.split("\n").filter(Boolean).join()"#;
        format!("{text} === '{status},{rows}'")
    };
    browser.wait_for(&shows("live", "1: new,2: new")).await;
    durable.outage(browser.wait_for(&shows("reconnecting", "1: new,2: new"))).await;
    publish(&durable, "1", "paid").await;
    durable.origin.publish_with("orders", "key=2&remove=true", "").await;
    browser.wait_for(&shows("live", "1: paid")).await;
}

/// Copies the files of a directory into another one, which exists.
fn install(from: &str, to: &str) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a name");
            let copied = std::fs::copy(&path, Path::new(to).join(name));
            copied.unwrap_or_else(|error| panic!("{to} (run tests/run): {error}"));
        }
    }
}
