//! `GET /channels/{name}/history` and `/state`: the log and the state as JSON.

use super::problem::Problem;
use super::route::Query;
use super::{Answer, Origin, json};
use crate::caching::Freshness;
use crate::cursor::{Cursor, EventId};
use crate::event::{ChannelName, Field};
use crate::event_log::StoredEvent;
use crate::store::PageLimit;
use hyper::StatusCode;
use serde::Serialize;

/// Most and usual events in a page.
const PAGE_EVENTS_MAX: usize = 1_000;
const PAGE_EVENTS_DEFAULT: usize = 100;
/// Most bytes of events in a page, which is built in memory; one event at least.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Serialize)]
struct EventJson<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    data: &'a str,
}

#[derive(Serialize)]
struct PageJson<'a> {
    events: Vec<EventJson<'a>>,
    next: String,
    /// Events between `after` and this place are no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    trimmed_to: Option<String>,
}

#[derive(Serialize)]
struct StateJson<'a> {
    events: Vec<EventJson<'a>>,
    cursor: String,
}

impl Origin {
    pub(super) async fn history(
        &self,
        name: &ChannelName,
        query: &Query,
    ) -> Result<Answer, Problem> {
        let after = history_after(query)?;
        let limit = history_limit(query)?;
        let page_limit = PageLimit { events: limit, bytes: PAGE_BYTES_MAX };
        let page = self.hub.in_time(self.hub.store.read(name, after, page_limit)).await?;
        let is_trimmed = page.trimmed_to > after;
        let is_full = !page.complete || page.events.len() == limit;
        let body = PageJson {
            next: page.events.last().map_or(after, |stored| stored.id).to_string(),
            events: page.events.iter().map(EventJson::from).collect(),
            trimmed_to: is_trimmed.then(|| page.trimmed_to.to_string()),
        };
        let is_final = is_full && !is_trimmed && !page.events.is_empty();
        self.read_answer(&body, if is_final { Freshness::FullPage } else { Freshness::Second })
    }

    pub(super) async fn state(&self, name: &ChannelName) -> Result<Answer, Problem> {
        let state = self.hub.in_time(self.hub.store.state(name)).await?;
        let body = StateJson {
            events: state.events.iter().map(EventJson::from).collect(),
            cursor: state.position.to_string(),
        };
        self.read_answer(&body, Freshness::Second)
    }

    fn read_answer(&self, body: &impl Serialize, freshness: Freshness) -> Result<Answer, Problem> {
        let body = serde_json::to_string(body).map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "internal", "This is our fault", error.to_string())
        })?;
        Ok(json(StatusCode::OK, body, &freshness.cache_control(self.hub.clock.now())))
    }
}

impl<'a> From<&'a StoredEvent> for EventJson<'a> {
    fn from(stored: &'a StoredEvent) -> Self {
        Self {
            id: stored.id.to_string(),
            event: stored.event.kind.as_ref().map(Field::as_str),
            key: stored.event.key.as_ref().map(Field::as_str),
            data: &stored.event.data,
        }
    }
}

fn history_after(query: &Query) -> Result<EventId, Problem> {
    let Some(raw) = &query.after else { return Ok(EventId::START) };
    match Cursor::parse(raw).map(|cursor| cursor.positions) {
        Ok(positions) if positions.len() == 1 => Ok(positions[0]),
        _ => {
            let detail = "?after= takes a cursor of one channel, or 0-0 for the beginning";
            Err(Problem::bad_field("after", detail))
        }
    }
}

fn history_limit(query: &Query) -> Result<usize, Problem> {
    let Some(raw) = &query.limit else { return Ok(PAGE_EVENTS_DEFAULT) };
    raw.parse().ok().filter(|limit| (1..=PAGE_EVENTS_MAX).contains(limit)).ok_or_else(|| {
        let detail = format!("?limit= takes a whole number from 1 to {PAGE_EVENTS_MAX}");
        Problem::bad_field("limit", detail).with("limit", PAGE_EVENTS_MAX)
    })
}
