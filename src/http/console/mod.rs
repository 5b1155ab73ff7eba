//! `/console` on the admin listener: a page for operators that shows the channels of this origin,
//! reads and publishes, and draws how its responses are shared.
//!
//! The page reads and publishes under `/console/api`, which leads to the same code, tokens and
//! limits as the public listener. Three rules keep the pages of other web origins out: the `Host` of
//! each request and the page that sent it are checked, a publish needs a header that such a page
//! cannot send without a preflight, and no response has a CORS header.

use super::files::{self, ExtraFile, ExtraFiles, Found};
use super::problem::Problem;
use super::route::Route;
use super::router::{Requester, route};
use super::site::{check_admin_host, check_own_page};
use super::{Admission, AppState, HttpResponse, READ_METHODS, json};
use crate::core::caching::Freshness;
use crate::limits::client_address::Client;
use hyper::body::Incoming;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri};
use serde::Serialize;
use std::net::IpAddr;
use std::sync::LazyLock;

/// The path of the page. All other paths of the console are below it.
pub(super) const PAGE: &str = "/console";
/// The path of the facts about this origin.
const FACTS: &str = "/console/origin.json";
/// The prefix of the paths of the public listener.
const API: &str = "/console/api";
/// The path of the handshake of a WebSocket.
pub(super) const SOCKET: &str = "/console/api/ws";
/// The header without which the console publishes nothing.
const MARK: &str = "headwater-console";
const API_METHODS: &str = "GET, HEAD, POST";
/// Seconds after which a stream that was refused by an ending process may be requested again.
const RETRY_DRAINING_S: u64 = 1;

const SCRIPT: &str = "text/javascript; charset=utf-8";
/// The files of the page: a path, a media type, and a text.
const PARTS: [(&str, &str, &str); 11] = [
    (PAGE, "text/html; charset=utf-8", include_str!("index.html")),
    (
        "/console/style.css",
        "text/css; charset=utf-8",
        concat!(include_str!("../../web/base.css"), include_str!("style.css")),
    ),
    ("/console/icon.svg", "image/svg+xml", include_str!("../../web/icon.svg")),
    ("/console/dom.js", SCRIPT, include_str!("../../web/dom.js")),
    ("/console/channels.js", SCRIPT, include_str!("channels.js")),
    ("/console/console.js", SCRIPT, include_str!("console.js")),
    ("/console/events.js", SCRIPT, include_str!("events.js")),
    ("/console/origin.js", SCRIPT, include_str!("origin.js")),
    ("/console/picture.js", SCRIPT, include_str!("picture.js")),
    ("/console/publish.js", SCRIPT, include_str!("publish.js")),
    ("/console/snippets.js", SCRIPT, include_str!("snippets.js")),
];

static FILES: LazyLock<ExtraFiles> = LazyLock::new(|| {
    let file = |&(path, media_type, text): &(&'static str, &'static str, &str)| ExtraFile {
        path,
        media_type,
        text: text.to_owned(),
    };
    ExtraFiles::new(&PARTS.iter().map(file).collect::<Vec<_>>())
});

/// What the page needs to know about this origin.
#[derive(Serialize)]
struct FactsJson<'a> {
    version: &'static str,
    /// The time of the origin, and the lengths of its segments and heartbeats, in ms.
    now: u64,
    segment_ms: u64,
    heartbeat_ms: u64,
    lanes: u64,
    /// Whether publishing needs a token.
    needs_token: bool,
    /// The base URLs of the public listeners, such as `http://127.0.0.1:8080`.
    public: &'a [String],
}

/// Whether a path belongs to the console.
pub(super) fn has(path: &str) -> bool {
    path.strip_prefix(PAGE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request for the console.
pub(super) async fn answer(
    app: &AppState,
    request: Request<Incoming>,
    address: IpAddr,
    host: &str,
) -> Result<HttpResponse, Problem> {
    check_admin_host(&app.config(), host)?;
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if let Some(file) = FILES.find(path) {
        return match is_read {
            true => Ok(file.answer(request.headers())),
            false => Err(Problem::method(READ_METHODS)),
        };
    }
    check_own_page(request.headers(), host)?;
    if path == FACTS && is_read {
        return facts(app);
    }
    answer_api(app, request, address, host).await
}

/// Answers a request as the public listener does.
async fn answer_api(
    app: &AppState,
    mut request: Request<Incoming>,
    address: IpAddr,
    host: &str,
) -> Result<HttpResponse, Problem> {
    let nothing = || Problem::not_found("the console is at /console");
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let target: Uri =
        target.strip_prefix(API).and_then(|target| target.parse().ok()).ok_or_else(nothing)?;
    let is_read = match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::POST if request.headers().contains_key(MARK) => false,
        Method::POST => {
            let detail = "the console publishes with the header Headwater-Console: 1 only; \
                          a program publishes at the public listener (--listen)";
            return Err(Problem::bad_field("Headwater-Console", detail));
        }
        _ => return Err(Problem::method(API_METHODS)),
    };
    match Route::parse(target.path())? {
        Route::File(Found::File(file)) if is_read => Ok(file.answer(request.headers())),
        Route::File(Found::Elsewhere(path)) if is_read => {
            Ok(files::redirect(&format!("{API}{path}")))
        }
        // The admin listener serves until the process ends. Its streams would begin again at
        // each boundary, and the process would wait for them.
        Route::Channels(_) if is_read && app.hub.is_draining() => {
            let detail = "the process is about to end; connect to another one";
            Err(Problem::unavailable("draining", detail, RETRY_DRAINING_S))
        }
        Route::Channels(_) | Route::History(_) | Route::State(_) | Route::WebSocket => {
            *request.uri_mut() = target;
            let client = Client::at(address);
            let of = Requester { admission: Admission::Admin, permit: None, client };
            route(app, request, host, of).await
        }
        _ => Err(nothing()),
    }
}

fn facts(app: &AppState) -> Result<HttpResponse, Problem> {
    let segments = app.hub.segments();
    let facts = FactsJson {
        version: env!("CARGO_PKG_VERSION"),
        now: app.hub.clock().now(),
        segment_ms: segments.length_ms,
        heartbeat_ms: app.heartbeat().as_millis() as u64,
        lanes: segments.lanes,
        needs_token: app.access.guards_publishing(),
        public: app.bound.get().map_or(&[], |bound| &bound.urls),
    };
    let body = serde_json::to_vec(&facts).map_err(|error| Problem::internal(&error))?;
    Ok(json(StatusCode::OK, body.into(), &Freshness::Never.cache_control(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_has_its_own_paths_only() {
        for path in ["/console", "/console/", "/console/api/ws", "/console/console.js"] {
            assert!(has(path), "{path}");
        }
        for path in ["/", "/consoles", "/console.js", "/channels/console"] {
            assert!(!has(path), "{path}");
        }
    }
}
