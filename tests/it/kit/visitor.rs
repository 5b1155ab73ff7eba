//! A real browser engine that visits the pages of `serve --demo` or the console, and reports the
//! text of each page.
//!
//! The browser reads the pages through an nginx that adds a script to each of them. The script posts
//! its reports to nginx, which passes them on to the test. The answer names the next page. The
//! pages are those of the origin, and their policy (`Content-Security-Policy`) applies.

use super::Origin;
use super::edge::Cache;
use super::engine::{Browser, Engine, TURNS};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{SemaphorePermit, watch};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a page shows.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Report {
    pub path: String,
    /// The text of the status line.
    pub status: String,
    /// The number of filled rows, prices, jobs, messages, channels or events.
    pub rows: usize,
    /// The texts of each row of the departures board: first as a screen reader gets them, then as
    /// the flaps show them.
    pub board: Vec<Vec<String>>,
    /// The symbol and the price of each tile of the ticker.
    pub prices: Vec<[String; 2]>,
    /// The ids of the events that arrived, in the order of their arrival.
    pub ids: Vec<String>,
    /// The events that arrived, and those that are missing or arrived twice.
    pub events: u64,
    pub missing: u64,
    pub repeated: u64,
    /// The errors of scripts.
    pub faults: Vec<String>,
    /// Why earlier reports did not arrive.
    pub failures: Vec<String>,
}

/// A browser that shows one page after another. It ends when the value is dropped.
pub struct Visitor {
    engine: Engine,
    reports: watch::Receiver<Report>,
    next: Arc<Mutex<String>>,
    // Fields are dropped in this order: the next browser starts when all of this one has ended.
    _browser: Browser,
    _proxy: Cache,
    _collecting: JoinSet<()>,
    _turn: SemaphorePermit<'static>,
}

impl Visitor {
    /// Waits for a free turn, and opens a page of the origin.
    pub async fn open(engine: Engine, origin: &Origin, path: &str) -> Self {
        Self::open_at(engine, origin.listen.port(), path).await
    }

    /// As `open`, but opens a page of the server at this port.
    pub async fn open_at(engine: Engine, server: u16, path: &str) -> Self {
        let turn = TURNS.acquire().await.expect("never closed");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let collector = listener.local_addr().expect("an address").port();
        let (send, reports) = watch::channel(Report::default());
        let next = Arc::new(Mutex::new(path.to_owned()));
        let mut collecting = JoinSet::new();
        collecting.spawn(collect(listener, send, next.clone()));
        let proxy = Cache::nginx_own(|port| configuration(port, server, collector));
        let browser = Browser::start(engine, &format!("http://127.0.0.1:{}{path}", proxy.port));
        Self {
            engine,
            reports,
            next,
            _browser: browser,
            _proxy: proxy,
            _collecting: collecting,
            _turn: turn,
        }
    }

    /// Goes to another page.
    pub fn go(&self, path: &str) {
        path.clone_into(&mut self.next.lock().unwrap());
    }

    /// Waits until `enough` is true of what the page shows.
    pub async fn until(&mut self, what: &str, enough: impl Fn(&Report) -> bool) -> Report {
        let path = self.next.lock().unwrap().clone();
        let path = path.split('?').next().unwrap_or_default();
        let met = self.reports.wait_for(|report| report.path == path && enough(report));
        let met = tokio::time::timeout(PATIENCE, met).await.map(|report| report.map(|r| r.clone()));
        match met {
            Ok(Ok(report)) => {
                report.failures.iter().for_each(|failure| println!("a report failed: {failure}"));
                report
            }
            _ => panic!("{:?}: {what}? {:#?}", self.engine, *self.reports.borrow()),
        }
    }
}

/// The configuration of the proxy. The script contains no `'` and no `$`, because nginx could not
/// quote them.
fn configuration(port: u16, server: u16, collector: u16) -> String {
    let script = include_str!("visitor.js");
    assert!(!script.contains(['\'', '$']));
    format!(
        r#"events {{}}
        http {{
            access_log off;
            map $http_upgrade $connection_header {{ default upgrade; "" ""; }}
            server {{
                listen 127.0.0.1:{port};
                location = /visitor.js {{ default_type text/javascript; return 200 '{script}'; }}
                location = /visitor {{ proxy_pass http://127.0.0.1:{collector}; }}
                location / {{
                    proxy_pass http://127.0.0.1:{server};
                    proxy_http_version 1.1;
                    proxy_buffering off;
                    proxy_set_header Host $http_host;
                    proxy_set_header Accept-Encoding "";
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $connection_header;
                    sub_filter "</head>" '<script src="/visitor.js"></script></head>';
                }}
            }}
        }}"#
    )
}

/// Takes the reports, and answers each with the path of the page that is to be shown.
async fn collect(listener: TcpListener, reports: watch::Sender<Report>, next: Arc<Mutex<String>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (reports, next) = (reports.clone(), next.clone());
        connections.spawn(async move {
            let service = service_fn(async |request: Request<Incoming>| {
                if let Ok(body) = request.into_body().collect().await {
                    let report = serde_json::from_slice(&body.to_bytes()).expect("a report");
                    reports.send_replace(report);
                }
                let path = Bytes::from(next.lock().unwrap().clone());
                Ok::<_, Infallible>(Response::new(Full::new(path)))
            });
            let builder = hyper::server::conn::http1::Builder::new();
            builder.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}
