//! `serve --demo --cache`: the real binary starts a real cache, the overview draws what it shares,
//! and both end together.

use super::demo_audit::{AXE, audit};
use crate::browsers::browser::Browser;
use crate::kit::redis::free_port;
use crate::kit::{BINARY, Origin, PATIENCE, alone, request};
use hyper::Method;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

const FLAGS: [&str; 4] = ["--demo", "--store", "memory", "--cache"];

/// A demo behind a cache, and the port of the cache.
fn demo(cache: &str) -> (Origin, u16) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    (Origin::with(&[&FLAGS[..], &[cache, "--cache-listen", &listen]].concat()), port)
}

/// Runs `serve` with flags with which it does not start.
fn serve(flags: &[&str], path: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(flags).env("HEADWATER_CONFIG", "").env("PATH", path);
    command.output().expect("it starts")
}

/// Waits until nothing listens at this port.
async fn is_free(port: u16) {
    let address = format!("http://127.0.0.1:{port}").parse().expect("an address");
    let is_free = async {
        while request(&address, Method::GET, "/", &[], Default::default()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_free).await.expect("the cache ends");
}

/// The directory that the process with this id makes for its cache.
fn directory(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("headwater-cache-{id}-0"))
}

/// Opens the overview behind the cache, which draws the requests that reach the origin.
async fn draws(browser: &Browser, port: u16, cache: &str) {
    browser.open(&format!("http://127.0.0.1:{port}/")).await;
    let text = "document.querySelector('#asked').textContent";
    browser.wait_for(&format!("{text}.startsWith('100 clients, 1 origin request.')")).await;
    let count = |part: &str| format!("return document.querySelectorAll('#drawing {part}').length");
    assert_eq!(browser.run(&count("circle.client")).await, 100);
    assert_eq!(browser.run(&count("line.request")).await, 1);
    let label = format!("document.querySelector('#drawing').textContent.includes('{cache}')");
    browser.wait_for(&label).await;
    browser.wait_for("document.querySelector('#cache-link').hidden").await;
    assert!(browser.console_errors().await.is_empty());
}

#[tokio::test]
async fn the_demo_starts_varnish_which_gives_100_clients_one_origin_request() {
    let _alone = alone().await;
    let axe = std::fs::read_to_string(AXE).expect("tests/run installs axe-core");
    let (mut origin, port) = demo("varnish");
    assert!(directory(origin.pid()).is_dir());
    let browser = Browser::start().await;
    draws(&browser, port, "varnish").await;
    audit(&browser, &axe, "overview-cache", true).await;
    // The page of the origin itself has a link to the one behind the cache.
    browser.open(&format!("http://{}/", origin.listen)).await;
    let link =
        format!("document.querySelector('#cache-link a').href == 'http://127.0.0.1:{port}/'");
    browser.wait_for(&link).await;
    browser.wait_for("!document.querySelector('#cache-link').hidden").await;
    drop(browser);
    origin.signal("INT");
    assert!(origin.ended().await.success());
    is_free(port).await;
    assert!(!directory(origin.pid()).exists());
}

#[tokio::test]
async fn the_demo_starts_nginx_which_gives_100_clients_one_origin_request() {
    let _alone = alone().await;
    let (mut origin, port) = demo("nginx");
    let browser = Browser::start().await;
    draws(&browser, port, "nginx").await;
    drop(browser);
    origin.signal("TERM");
    assert!(origin.ended().await.success());
    is_free(port).await;
    assert!(!directory(origin.pid()).exists());
}

#[tokio::test]
async fn the_cache_ends_when_the_process_is_killed_and_its_own_end_is_logged() {
    let (mut origin, port) = demo("varnish");
    origin.kill();
    is_free(port).await;
    std::fs::remove_dir_all(directory(origin.pid())).expect("a killed process leaves its files");

    let (origin, port) = demo("nginx");
    let pid =
        std::fs::read_to_string(directory(origin.pid()).join("pid")).expect("the id of nginx");
    let killed = Command::new("kill").arg(pid.trim()).status().expect("kill runs");
    assert!(killed.success());
    is_free(port).await;
    origin.logs("the cache of the demo has ended").await;
    assert_eq!(origin.get("/demo/ticker").await.status, 200);
    let left = directory(origin.pid());
    drop(origin);
    std::fs::remove_dir_all(left).expect("a killed process leaves its files");
}

#[test]
fn a_cache_that_is_not_installed_is_an_error_that_says_how_to_install_it() {
    // No directory of this mount namespace has the programs.
    let hide = "mount -t tmpfs none /usr/sbin && exec \"$@\"";
    for (name, program) in [("varnish", "varnishd"), ("nginx", "nginx")] {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", hide, "sh", BINARY, "serve"]).args(FLAGS).arg(name);
        command.env("HEADWATER_CONFIG", "").env("PATH", "/usr/bin:/bin");
        let output = command.args(["--listen", "127.0.0.1:0"]).output().expect("unshare runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let expected = format!(
            "headwater: --cache {name}: there is no {program} on this machine; install it (on \
             Debian: apt-get install {name}), or leave out --cache"
        );
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_cache_that_cannot_be_started_is_an_error_that_says_why() {
    let path = std::env::var("PATH").expect("a PATH");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("an address").to_string();
    let varnish = [&FLAGS[..], &["varnish"]].concat();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--store", "memory", "--cache", "varnish"], 2, "--cache needs --demo"),
        (&[&varnish[..], &["--cache-listen", "0.0.0.0:0"]].concat(), 2, "could publish"),
        (&[&varnish[..], &["--cache-listen", &taken]].concat(), 1, "cannot listen on 127.0.0.1:"),
        (
            &[&varnish[..], &["--cache-listen", "192.0.2.1:6081", "--open-publish"]].concat(),
            1,
            "cannot listen on 192.0.2.1:6081 (--cache-listen): Cannot assign requested address",
        ),
    ];
    for (flags, status, expected) in cases {
        let output = serve(flags, &path);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{flags:?}: {error}");
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}
