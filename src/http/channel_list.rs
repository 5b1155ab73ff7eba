//! `GET /channels` and `GET /channels/{name}` on the admin listener: the channels, as operators see
//! them.

use super::problem::Problem;
use super::route::{Query, Route};
use super::site::check_admin_host;
use super::{AppState, HttpResponse, json};
use crate::core::caching::Freshness;
use crate::core::event::ChannelName;
use crate::hub::ChannelInfo;
use crate::store::{ChannelFilter, ChannelSettings};
use hyper::{Request, StatusCode};
use serde::Serialize;

/// The path of the list.
const LIST: &str = "/channels";
/// The highest and the default number of channels in a response.
const CHANNELS_MAX: usize = 1_000;
const CHANNELS_DEFAULT: usize = 100;

#[derive(Serialize)]
struct ListJson {
    channels: Vec<ChannelJson>,
    /// The value of `?after=` for the next channels, if there are more.
    next: Option<String>,
}

#[derive(Serialize)]
struct ChannelJson {
    name: String,
    /// The number of events that are kept, and their bytes.
    events: u64,
    bytes: u64,
    /// The number of keys in the state, and its bytes.
    keys: u64,
    state_bytes: u64,
    /// The id of the oldest event that is kept, if there is one.
    first: Option<String>,
    /// The id of the newest event, if there ever was one.
    last: Option<String>,
    ended: bool,
    private: bool,
    /// The number of subscribers at this origin.
    subscribers: usize,
    /// The settings that an operator has given to this channel.
    settings: ChannelSettings,
    /// The limits that result from all settings.
    limits: ChannelSettings,
}

/// Answers a request for the channels, or returns `None` if the path is another one.
pub(super) async fn answer<B>(
    app: &AppState,
    request: &Request<B>,
    host: &str,
) -> Option<Result<HttpResponse, Problem>> {
    let path = request.uri().path();
    if path != LIST && !path.starts_with("/channels/") {
        return None;
    }
    // A page whose own name resolves to this machine (DNS rebinding) must not read the names of
    // private channels.
    if let Err(problem) = check_admin_host(&app.config(), host) {
        return Some(Err(problem));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    Some(match path {
        LIST => list(app, &query).await,
        path => show(app, path, &query).await,
    })
}

async fn list(app: &AppState, query: &Query) -> Result<HttpResponse, Problem> {
    query.only("the list of channels", &["prefix", "after", "limit", "subscribed"])?;
    let is_subscribed = match query.get("subscribed") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(_) => {
            let detail = "?subscribed=true selects the channels with subscribers";
            return Err(Problem::bad_field("subscribed", detail));
        }
    };
    let limit = list_limit(query)?;
    let after = query.get("after").map(ChannelName::parse).transpose();
    let after = after.map_err(|error| Problem::bad_field("after", format!("?after= {error}")))?;
    let prefix = query.get("prefix").unwrap_or_default().to_owned();
    // One more than the response has shows whether there are more.
    let filter = ChannelFilter { prefix, after, limit: limit + 1 };
    let mut channels = app.hub.channels(&filter, is_subscribed).await?;
    let is_last = channels.len() <= limit;
    channels.truncate(limit);
    let last = channels.last().map(|channel| channel.name.to_string());
    let channels = channels.into_iter().map(|channel| described(app, channel)).collect();
    let list = ListJson { channels, next: last.filter(|_| !is_last) };
    ok(&list)
}

async fn show(app: &AppState, path: &str, query: &Query) -> Result<HttpResponse, Problem> {
    query.only("a channel", &[])?;
    let of_one = "here are /channels and /channels/{name}, of one channel";
    let Route::Channels(names) = Route::parse(path)? else {
        return Err(Problem::not_found(of_one));
    };
    let [name] = <[ChannelName; 1]>::try_from(names).map_err(|_| Problem::not_found(of_one))?;
    let channel = app.hub.channel(&name).await?;
    let has_settings = !app.hub.settings_of(&name).0.is_empty();
    if !channel.has_log() && channel.subscribers == 0 && !has_settings {
        let detail = format!(
            "nothing was published to {name}, or the store has forgotten it, and it has no \
             settings and no subscribers here"
        );
        return Err(Problem::not_found(&detail));
    }
    ok(&described(app, channel))
}

fn described(app: &AppState, channel: ChannelInfo) -> ChannelJson {
    let has_log = channel.has_log();
    let ChannelInfo { name, log_state, size, subscribers } = channel;
    let (settings, limits) = app.hub.settings_of(&name);
    ChannelJson {
        private: app.access.is_private(std::slice::from_ref(&name)),
        name: name.to_string(),
        events: size.events,
        bytes: size.bytes,
        keys: size.keys,
        state_bytes: size.state_bytes,
        first: log_state.oldest.map(|id| id.to_string()),
        last: has_log.then(|| log_state.bounds.last.to_string()),
        ended: log_state.closed,
        subscribers,
        settings,
        limits: ChannelSettings::of(&limits),
    }
}

fn list_limit(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else { return Ok(CHANNELS_DEFAULT) };
    let limit = text.parse().ok().filter(|limit| (1..=CHANNELS_MAX).contains(limit));
    limit.ok_or_else(|| {
        let detail = format!("?limit= is a number of channels from 1 to {CHANNELS_MAX}");
        Problem::bad_field("limit", detail)
    })
}

fn ok(body: &impl Serialize) -> Result<HttpResponse, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    Ok(json(StatusCode::OK, body.into(), &Freshness::Never.cache_control(0)))
}
