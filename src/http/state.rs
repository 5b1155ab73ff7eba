//! `GET /channels/{name}/state`: the newest event of each key as JSON. Requests for an unchanged
//! channel share one body, and requests at the same time wait for the one that builds it. If the
//! memory budget has no room for a copy, each of them builds the body, one after the other.

use super::history::{built, event_json, read_answer};
use super::problem::Problem;
use super::route::Query;
use super::{AppState, HttpResponse};
use crate::core::caching::Freshness;
use crate::core::event::ChannelName;
use crate::core::event_json::EventJson;
use crate::core::log_state::Bounds;
use crate::limits::budget::Charge;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex as AsyncMutex;

#[derive(Serialize)]
struct StateJson<'a> {
    events: Vec<EventJson<'a>>,
    cursor: String,
}

/// The state bodies of channels that were requested recently.
#[derive(Default)]
pub(super) struct States(Mutex<HashMap<ChannelName, Arc<StateCell>>>);

type StateCell = AsyncMutex<Option<SharedState>>;

/// A state as JSON. It is current as long as the log has not changed.
pub(super) struct SharedState {
    /// The bounds of the log for which the state was built, and whether the channel had ended.
    at: (Bounds, bool),
    body: Bytes,
    _copy: Charge,
}

impl States {
    fn cell(&self, name: &ChannelName) -> Arc<StateCell> {
        let mut cells = self.0.lock();
        cells.entry(name.clone()).or_default().clone()
    }

    /// Drops the states that no request is using. The next request for a popular channel builds its
    /// state again.
    pub(super) fn sweep(&self) {
        let mut cells = self.0.lock();
        cells.retain(|_, cell| Arc::strong_count(cell) > 1);
    }
}

/// Answers a request for the newest event of each key.
pub(super) async fn answer(
    app: &AppState,
    name: &ChannelName,
    query: &Query,
) -> Result<HttpResponse, Problem> {
    query.only("state", &["access_token"])?;
    let cell = app.states.cell(name);
    let body = app.hub.in_time(async { Ok(shared_state(app, name, &cell).await) }).await??;
    Ok(read_answer(app, name, body, Freshness::Second))
}

/// Returns the state as JSON. It is built once for all requests until the log changes.
async fn shared_state(
    app: &AppState,
    name: &ChannelName,
    cell: &StateCell,
) -> Result<Bytes, Problem> {
    let mut known = cell.lock().await;
    let log_state = app.hub.log_state(name).await?;
    let now = (log_state.bounds, log_state.closed);
    if let Some(state) = known.as_ref().filter(|state| state.at == now) {
        return Ok(state.body.clone());
    }
    *known = None;
    let permit = app.permit_to_read().await?;
    let (state, charge) = app.hub.state(name).await?;
    let permit = app.permit_to_build(permit).await?;
    let weight: usize = state.events.iter().map(|stored| stored.event.weight()).sum();
    let name = name.clone();
    let body = built(weight, (permit, charge), move || {
        let events = state.events.iter().map(|stored| event_json(&name, stored)).collect();
        serde_json::to_vec(&StateJson { events, cursor: state.position.to_string() })
    });
    let body = body.await?;
    if let Some(copy) = app.hub.keep_copy(body.len()) {
        *known = Some(SharedState { at: now, body: body.clone(), _copy: copy });
    }
    Ok(body)
}
