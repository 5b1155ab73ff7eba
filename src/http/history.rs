//! `GET /channels/{name}/history`: pages of the log as JSON.

use super::problem::Problem;
use super::route::Query;
use super::subscribe::{last, since, surrogate_headers};
use super::{AppState, HttpResponse, json};
use crate::core::caching::Freshness;
use crate::core::cursor::{Cursor, EventId};
use crate::core::event::{ChannelName, StoredEvent};
use crate::core::event_json::EventJson;
use crate::limits::budget::Charge;
use crate::store::PageLimit;
use crate::sync::background;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

/// The highest and the default number of events in a page.
const PAGE_EVENTS_MAX: usize = 1_000;
const PAGE_EVENTS_DEFAULT: usize = 100;
/// A page is built in memory, so it has at most this many bytes of events, but at least one event.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// A response with more bytes of events than this is built in the background, because building it
/// takes long enough to delay other requests.
const LARGE_BYTES: usize = 64 * 1024;
/// A page and its JSON together take this many times the bytes of the events.
const PAGE_MEMORY_FACTOR: usize = 3;
/// The parameters that say where a page begins or ends.
const START_PARAMETERS: [&str; 4] = ["after", "before", "since", "last"];
const HISTORY_PARAMETERS: [&str; 6] = ["after", "before", "since", "last", "limit", "access_token"];

#[derive(Serialize)]
struct PageJson<'a> {
    /// The events, oldest first.
    events: Vec<EventJson<'a>>,
    /// The value of `?after=` for the next page.
    next: String,
    /// The value of `?before=` for the previous page, if this page was read backwards and a
    /// previous page exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// The low watermark, if the request also covers events up to it, which are no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    trimmed_to: Option<String>,
}

/// The page of the log that a request is for.
enum Wanted {
    /// The first events after a position that the client gave.
    After(EventId),
    /// The first events at or after the instant `ms`; `place` is the position before them.
    Since { ms: u64, place: EventId },
    /// The last events before a position; `None`: the newest events of the channel.
    Before(Option<EventId>),
}

/// Answers a request for a page of the log.
pub(super) async fn answer(
    app: &AppState,
    name: &ChannelName,
    query: &Query,
) -> Result<HttpResponse, Problem> {
    query.only("history", &HISTORY_PARAMETERS)?;
    let (wanted, events) = wanted_page(app, name, query).await?;
    let limit = PageLimit { events, bytes: PAGE_BYTES_MAX };
    let largest = PAGE_BYTES_MAX.max(app.config().event_bytes);
    let permit = app.permit_to_read().await?;
    let charge = app.hub.memory(PAGE_MEMORY_FACTOR * largest).await?;
    let page = match wanted {
        Wanted::After(place) | Wanted::Since { place, .. } => {
            app.hub.read(name, place, limit).await
        }
        Wanted::Before(place) => {
            let place = place.unwrap_or(EventId { ms: u64::MAX, seq: u64::MAX });
            app.hub.read_back(name, place, limit).await
        }
    }?;
    let permit = app.permit_to_build(permit).await?;
    let bounds = page.bounds;
    let (first, last) = (page.events.first(), page.events.last());
    let is_backwards = matches!(wanted, Wanted::Before(_));
    let (from, is_trimmed, is_fixed) = match wanted {
        Wanted::After(place) => (place, bounds.misses(place), true),
        Wanted::Since { ms, place } => (place, bounds.is_trimmed_since(ms), false),
        Wanted::Before(place) => {
            let is_short = page.complete && page.events.len() < events;
            let is_trimmed = is_short && bounds.start() != EventId::START;
            let is_inside = place.is_some_and(|place| place <= bounds.last);
            // `from` is used only for an empty page. If the position lies inside the log, no
            // event before it is kept, so the next page begins at the start of the log.
            let from = if is_inside { bounds.start() } else { bounds.last };
            (from, is_trimmed, is_inside)
        }
    };
    let next = last.map_or(from, |stored| stored.id).to_string();
    let previous = first.filter(|_| is_backwards && !page.complete).map(|s| s.id.to_string());
    let trimmed_to = is_trimmed.then(|| bounds.low_watermark.to_string());
    let is_full = !page.complete || page.events.len() == events;
    let is_final = is_fixed && is_full && !is_trimmed && !page.events.is_empty();
    let weight: usize = page.events.iter().map(|stored| stored.event.weight()).sum();
    let freshness = if is_final { Freshness::FullPage } else { Freshness::Second };
    let of = name.clone();
    let body = built(weight, (permit, charge), move || {
        let events = page.events.iter().map(|stored| event_json(&of, stored)).collect();
        serde_json::to_vec(&PageJson { events, next, previous, trimmed_to })
    });
    Ok(read_answer(app, name, body.await?, freshness))
}

/// Reads from the query which page is requested, and how many events it has at most.
async fn wanted_page(
    app: &AppState,
    name: &ChannelName,
    query: &Query,
) -> Result<(Wanted, usize), Problem> {
    let given = START_PARAMETERS.iter().filter_map(|name| Some((*name, query.get(name)?)));
    let given: Vec<_> = given.collect();
    if given.len() > 1 {
        let names: Vec<_> = given.iter().map(|(name, _)| format!("?{name}=")).collect();
        let detail = format!("{} exclude each other; give one of them", names.join(" and "));
        return Err(Problem::bad_field(given[1].0, detail));
    }
    let limit = history_limit(query)?;
    Ok(match given.first() {
        None => (Wanted::After(EventId::START), limit),
        Some(("after", text)) => (Wanted::After(place("after", text)?), limit),
        Some(("before", text)) => (Wanted::Before(Some(place("before", text)?)), limit),
        Some(("since", text)) => {
            let ms = since(text)?.ms(app.hub.clock().now());
            let place = app.hub.position_before(name, ms).await?;
            (Wanted::Since { ms, place }, limit)
        }
        Some((_, text)) if query.get("limit").is_none() => {
            (Wanted::Before(None), last(text)? as usize)
        }
        Some(_) => {
            let detail = "?last= says how many events the page has; leave ?limit= out";
            return Err(Problem::bad_field("limit", detail));
        }
    })
}

/// Builds the response to a request for the history or the state.
pub(super) fn read_answer(
    app: &AppState,
    name: &ChannelName,
    body: Bytes,
    freshness: Freshness,
) -> HttpResponse {
    let cache_control = freshness.cache_control(app.hub.clock().now());
    let mut answer = json(StatusCode::OK, body, &cache_control);
    surrogate_headers(app, std::slice::from_ref(name), answer.headers_mut());
    answer
}

/// Builds a response body from events of `weight` bytes in total. A large body is built in the
/// background, and the build keeps its permit and its memory charge until it is finished, also when
/// the client has disconnected.
pub(super) async fn built(
    weight: usize,
    (permit, charge): (OwnedSemaphorePermit, Charge),
    build: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
) -> Result<Bytes, Problem> {
    let build = move || {
        let _permit = permit;
        build().map(|body| charge.hold(body))
    };
    let body = match weight > LARGE_BYTES {
        true => background::run(build).await.map_err(|error| Problem::internal(&error))?,
        false => build(),
    };
    body.map_err(|error| Problem::internal(&error))
}

pub(super) fn event_json<'a>(name: &'a ChannelName, stored: &'a StoredEvent) -> EventJson<'a> {
    EventJson::new(name, Some(stored.id), &stored.event)
}

pub(super) fn place(field: &'static str, text: &str) -> Result<EventId, Problem> {
    match Cursor::parse(text).map(|cursor| cursor.positions) {
        Ok(positions) if positions.len() == 1 => Ok(positions[0]),
        _ => {
            let detail = format!(
                "?{field}= takes a cursor of one channel, as an event's id; 0-0 is the beginning"
            );
            Err(Problem::bad_field(field, detail))
        }
    }
}

pub(super) fn history_limit(query: &Query) -> Result<usize, Problem> {
    let Some(raw) = query.get("limit") else { return Ok(PAGE_EVENTS_DEFAULT) };
    raw.parse().ok().filter(|limit| (1..=PAGE_EVENTS_MAX).contains(limit)).ok_or_else(|| {
        let detail = format!("?limit= takes a whole number from 1 to {PAGE_EVENTS_MAX}");
        Problem::bad_field("limit", detail).with("limit", PAGE_EVENTS_MAX)
    })
}
