//! The admin listener: metrics and probes, the channels, the console, and the request to read the
//! settings again.

use super::problem::Problem;
use super::route::Route;
use super::{
    AppState, HttpResponse, READ_METHODS, channel_changes, channel_list, console, files, json,
    metrics, readiness, text,
};
use crate::core::caching::Freshness;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, ORIGIN};
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::json;
use std::net::IpAddr;
use tokio::sync::{mpsc, oneshot};

/// The path of the request to read the settings again.
const RELOAD: &str = "/reload";
/// Requests to read the settings again that may wait at the same time.
const RELOADS_WAITING_MAX: usize = 4;

/// The effect of reading the settings again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The flags with a new value that is in force now.
    pub changed: Vec<String>,
    /// The flags with a new value that takes effect at the next start.
    pub at_restart: Vec<String>,
}

/// A request to read the settings again. Its sender takes the effect, or the reason why nothing was
/// changed.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, String>>;

/// The way of such requests to the program that has the settings.
#[derive(Default)]
pub struct Reloads(Mutex<Option<mpsc::Sender<ReloadRequest>>>);

impl Reloads {
    /// Returns the receiver of the requests. Without a receiver they are refused.
    pub fn receive(&self) -> mpsc::Receiver<ReloadRequest> {
        let (sender, receiver) = mpsc::channel(RELOADS_WAITING_MAX);
        *self.0.lock() = Some(sender);
        receiver
    }

    async fn request(&self) -> Result<Reloaded, Problem> {
        let sender = self.0.lock().clone();
        let sender = sender.ok_or_else(|| Problem::not_found("there are no settings to read"))?;
        let busy = || {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let detail = "the process is stopping, or is reading its settings already";
            Problem::new(status, "busy", "The settings cannot be read now", detail)
        };
        let (request, reply) = oneshot::channel();
        sender.try_send(request).map_err(|_| busy())?;
        reply.await.map_err(|_| busy())?.map_err(|why| {
            let status = StatusCode::CONFLICT;
            let detail = format!("{why}; nothing was changed");
            Problem::new(status, "settings", "The settings cannot be used", detail)
        })
    }
}

/// Answers a request on the admin listener.
pub(super) async fn answer(
    app: &AppState,
    request: Request<Incoming>,
    address: IpAddr,
    host: &str,
) -> Result<HttpResponse, Problem> {
    if request.uri().path() == RELOAD {
        return reload_for(app, &request).await;
    }
    if console::has(request.uri().path()) {
        return console::answer(app, request, address, host).await;
    }
    let request = match channel_changes::answer(app, request, host).await {
        Ok(answer) => return answer,
        Err(request) => request,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Err(Problem::method(READ_METHODS));
    }
    if let Some(answer) = channel_list::answer(app, &request, host).await {
        return answer;
    }
    match Route::parse(request.uri().path())? {
        Route::Metrics => {
            app.hub.refresh_metrics().await;
            app.hub.metrics().ready.set(readiness::answer(app).await.is_ok().into());
            Ok(metrics(request.headers(), &app.hub.metrics().text()))
        }
        Route::Home => Ok(files::redirect(console::PAGE)),
        Route::Health => Ok(text("ok\n".to_owned())),
        Route::Ready => readiness::answer(app).await,
        _ => Err(Problem::not_found(
            "here are /console, /metrics, /healthz, /readyz, /channels and /reload",
        )),
    }
}

async fn reload_for<B>(app: &AppState, request: &Request<B>) -> Result<HttpResponse, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    refuse_page(request.headers(), "headwater reload")?;
    let Reloaded { changed, at_restart } = app.reloads.request().await?;
    let body = json!({ "changed": changed, "at_restart": at_restart });
    Ok(json(StatusCode::OK, body.to_string().into(), &Freshness::Never.cache_control(0)))
}

/// Refuses a change by a web page. `command` is the command for it. A browser adds one of these
/// headers to every request that is not a GET.
pub fn refuse_page(headers: &HeaderMap, command: &str) -> Result<(), Problem> {
    if !headers.contains_key(ORIGIN) && !headers.contains_key("sec-fetch-site") {
        return Ok(());
    }
    let detail = format!("pages may not change this; use {command}");
    Err(Problem::new(StatusCode::FORBIDDEN, "origin", "Not from this page", detail))
}
