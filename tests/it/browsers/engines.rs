//! A native EventSource in three real engines through real caches. Whatever is cut, killed or
//! restarted, no event is lost or doubled, and the source never closes.

use crate::kit::edge::Cache;
use crate::kit::engine::{Engine, Page, Reserved, Seen, Site, nginx_with_page, varnish_with_page};
use crate::kit::{Origin, now_ms, request};
use headwater::client::http::Address;
use hyper::Method;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

const PATH: &str = "/channels/engines";
const OUTAGE: Duration = Duration::from_secs(5);
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

/// Publishes 1, 2, 3 … until `stop` is called.
struct Publisher {
    newest: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Publisher {
    fn start(origin: Address) -> Self {
        let (number, newest) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut ticks = interval(PUBLISH_EVERY);
            while !*stopped.borrow() {
                ticks.tick().await;
                let next = *number.borrow() + 1;
                publish(&origin, next).await;
                number.send_replace(next);
            }
        });
        Self { newest, stop, task }
    }

    fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Stops publishing, and returns the last number.
    async fn stop(self) -> u64 {
        self.stop.send_replace(true);
        self.task.await.expect("it published");
        *self.newest.borrow()
    }
}

/// Publishes a number exactly once, with as many attempts as needed.
async fn publish(origin: &Address, number: u64) {
    let key = number.to_string();
    let headers = [("idempotency-key", key.as_str())];
    loop {
        let answer = request(origin, Method::POST, PATH, &headers, key.clone().into()).await;
        if answer.is_ok_and(|answer| answer.status.is_success()) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The page passes three segment boundaries, an origin that is killed and stays away, and a restart
/// of the cache.
async fn survives_everything(engine: Engine, site: Site, cache: impl FnOnce(u16) -> Cache) {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "2s"]);
    let mut cache = cache(origin.listen.port());
    let mut page = Page::open(engine, site, &cache, PATH).await;
    let publisher = Publisher::start(origin.address());
    page.until("it crosses three boundaries", |seen| seen.segments.len() > 3).await;
    gets_more(&mut page, &publisher).await;

    let killed = now_ms();
    origin.kill();
    let ports = [origin.listen, origin.admin].map(|listen| Reserved::port(listen.port()));
    sleep(OUTAGE).await;
    page.until("it meets the outage", |seen| seen.has_tried_in_vain_since(killed)).await;
    origin.start_again();
    drop(ports);
    goes_on(&mut page, &publisher).await;

    let stopped = now_ms();
    // Firefox treats a connection to another web origin that fails before the answer's head as a
    // violation of CORS, and closes the source (nsCORSListenerProxy.cpp: NS_ERROR_DOM_BAD_URI).
    let gives_up = matches!((engine, site), (Engine::Firefox, Site::Other));
    if gives_up {
        page.refused.start = stopped;
    }
    cache.stop();
    let port = Reserved::port(cache.own_port);
    page.until("nobody answers it", |seen| seen.has_tried_in_vain_since(stopped)).await;
    if gives_up {
        page.refused.end = now_ms();
    }
    cache.start_again();
    drop(port);
    goes_on(&mut page, &publisher).await;

    let last = publisher.stop().await;
    let seen = page.until("it has the last event", |seen| seen.last() == last).await;
    assert_whole(&seen, last, &origin.log("engines").await);
    println!("{engine:?}, killed at {killed}, stopped at {stopped}, {last} events");
    println!("opened {:?}, errors {:?}", seen.opened, seen.errors);
}

/// Waits until the page has received further events and has crossed a boundary.
async fn goes_on(page: &mut Page, publisher: &Publisher) {
    let segment = gets_more(page, publisher).await.newest_segment();
    page.until("it crosses a boundary", |seen| seen.newest_segment() > segment).await;
    // The next fault must not happen while the page waits to reconnect.
    gets_more(page, publisher).await;
}

/// Waits until the page has an event that was not yet published at the call.
async fn gets_more(page: &mut Page, publisher: &Publisher) -> Seen {
    let published = publisher.newest();
    page.until("it gets events", |seen| seen.last() > published).await
}

/// Checks that the page received each event once and in order, with its id, from its first event to
/// the last.
fn assert_whole(seen: &Seen, last: u64, log: &[(String, String)]) {
    assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    let numbers = seen.messages.iter().map(|(_, data)| data.parse().expect("a number"));
    let numbers: Vec<u64> = numbers.collect();
    assert_eq!(numbers, (numbers[0]..=last).collect::<Vec<_>>());
    let first = log.iter().position(|event| *event == seen.messages[0]).expect("it is logged");
    assert_eq!(seen.messages, log[first..]);
}

/// The client module and a native EventSource in one page receive the same events over 20
/// boundaries, a restart and an outage of the origin.
async fn agrees_with_the_module(engine: Engine) {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "1s"]);
    let cache = Cache::varnish(origin.listen.port());
    let mut page = Page::open_with_module(engine, Site::Other, &cache, PATH).await;
    let publisher = Publisher::start(origin.address());
    page.until("it crosses 10 boundaries", |seen| seen.segments.len() > 10).await;
    page.until("it crosses 20 boundaries", |seen| seen.segments.len() > 20).await;
    origin.signal("TERM");
    origin.ended().await;
    origin.start_again();
    goes_on(&mut page, &publisher).await;
    origin.kill();
    let ports = [origin.listen, origin.admin].map(|listen| Reserved::port(listen.port()));
    page.until("the module says so", |seen| {
        seen.statuses.last().is_some_and(|status| status == "reconnecting")
    })
    .await;
    sleep(OUTAGE).await;
    origin.start_again();
    drop(ports);
    goes_on(&mut page, &publisher).await;
    let last = publisher.stop().await;
    let number = last.to_string();
    let has_last = |events: &[(String, String)]| events.last().is_some_and(|(_, n)| *n == number);
    let seen = page
        .until("both have the last event", |seen| {
            has_last(&seen.messages) && has_last(&seen.module)
        })
        .await;
    assert_whole(&seen, last, &origin.log("engines").await);
    // Both begin with the segment in which they were opened, which may not be the same.
    let from = seen.messages.len().min(seen.module.len());
    assert!(from as u64 > last / 2, "{seen:#?}");
    let newest = |events: &[(String, String)]| events[events.len() - from..].to_vec();
    assert_eq!(newest(&seen.messages), newest(&seen.module));
    assert_eq!(seen.statuses.last().map(String::as_str), Some("live"));
}

#[tokio::test]
async fn chromium_receives_the_same_from_the_module_and_its_event_source() {
    agrees_with_the_module(Engine::Chromium).await;
}

#[tokio::test]
async fn firefox_receives_the_same_from_the_module_and_its_event_source() {
    agrees_with_the_module(Engine::Firefox).await;
}

#[tokio::test]
async fn webkit_receives_the_same_from_the_module_and_its_event_source() {
    agrees_with_the_module(Engine::WebKit).await;
}

#[tokio::test]
async fn chromium_loses_nothing_through_varnish() {
    survives_everything(Engine::Chromium, Site::Other, Cache::varnish).await;
}

#[tokio::test]
async fn webkit_loses_nothing_through_varnish() {
    survives_everything(Engine::WebKit, Site::Other, Cache::varnish).await;
}

#[tokio::test]
async fn firefox_loses_nothing_through_varnish() {
    survives_everything(Engine::Firefox, Site::Same, varnish_with_page).await;
}

#[tokio::test]
async fn firefox_on_another_site_loses_nothing_through_varnish_if_its_page_reopens_what_it_closed()
{
    survives_everything(Engine::Firefox, Site::Other, Cache::varnish).await;
}

// One engine is enough for Squid, because its bytes reach a page through the same nginx as the
// other streams. Chromium reconnects soonest after a boundary, in the second in which Squid could
// still serve the finished segment.
#[tokio::test]
async fn chromium_loses_nothing_through_squid() {
    survives_everything(Engine::Chromium, Site::Other, Cache::squid).await;
}

#[tokio::test]
async fn chromium_loses_nothing_through_an_nginx_that_collapses() {
    survives_everything(Engine::Chromium, Site::Other, |port| Cache::nginx("collapse", port)).await;
}

#[tokio::test]
async fn webkit_loses_nothing_through_an_nginx_that_collapses() {
    survives_everything(Engine::WebKit, Site::Other, |port| Cache::nginx("collapse", port)).await;
}

#[tokio::test]
async fn firefox_loses_nothing_through_an_nginx_that_collapses() {
    survives_everything(Engine::Firefox, Site::Same, |port| nginx_with_page("collapse", port))
        .await;
}

#[tokio::test]
async fn firefox_on_another_site_loses_nothing_through_nginx_if_its_page_reopens_what_it_closed() {
    survives_everything(Engine::Firefox, Site::Other, |port| Cache::nginx("collapse", port)).await;
}

#[tokio::test]
async fn chromium_loses_nothing_through_an_nginx_that_streams() {
    survives_everything(Engine::Chromium, Site::Other, |port| Cache::nginx("stream", port)).await;
}

#[tokio::test]
async fn webkit_loses_nothing_through_an_nginx_that_streams() {
    survives_everything(Engine::WebKit, Site::Other, |port| Cache::nginx("stream", port)).await;
}

#[tokio::test]
async fn firefox_loses_nothing_through_an_nginx_that_streams() {
    survives_everything(Engine::Firefox, Site::Same, |port| nginx_with_page("stream", port)).await;
}
