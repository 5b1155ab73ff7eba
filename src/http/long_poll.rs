//! Long polls (`?mode=hold`): the SSE events of a stream as one complete body, for caches that
//! share a response among clients only when it is complete, such as nginx.
//!
//! The response ends with its first events, or after a timeout. The content of a response never
//! changes if the request had a cursor and the response has only events: no gap or state at its
//! beginning, and no end of the channel. A cache may keep it for a minute
//! (`Freshness::SameForCursor`). The mark of such a response is the end of the segment of its
//! newest event, so two origins give the same closing cursor after the same events.

use super::AppState;
use crate::core::caching::{Ending, Freshness};
use crate::core::resume::ResumeFrom;
use crate::core::segment::Span;
use crate::core::sse::{self, ShedReason};
use crate::hub::Joined;
use crate::hub::reader::{ReadFailure, Step};
use crate::limits::budget::Charge;
use crate::sync::lifecycle::Stage;
use crate::sync::waiters::Registration;
use crate::telemetry::metrics::JoinKind;
use bytes::Bytes;
use std::future::poll_fn;
use std::task::Poll;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Counts a long poll while it is being answered. Dropping it reports how the long poll ended.
struct Counted<'a> {
    origin: &'a AppState,
    ending: Ending,
    _counted: TaskTrackerToken,
}

/// The events that were collected for one response.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    events: u64,
    is_ended: bool,
    /// The memory charge for the events and the response; requested at the first event.
    charge: Option<Charge>,
}

/// Waits for events and returns the response body, and how long a cache may keep it.
pub(super) async fn body(
    app: &AppState,
    mut joined: Joined,
    asked: &ResumeFrom,
    lane: u64,
) -> Result<(Bytes, Freshness), ShedReason> {
    app.hub.metrics().opened(JoinKind::LongPoll);
    let (ending, _counted) = (Ending::ClientGone, app.hub.count_stream());
    let mut counted = Counted { origin: app, ending, _counted };
    let has_news = !joined.prelude.gaps.is_empty() || !joined.prelude.state.is_empty();
    let mut gathered = match gather(app, &mut joined, has_news).await {
        Ok(gathered) => gathered,
        Err(failure) => {
            counted.ending = match failure {
                ReadFailure::FellBehind => Ending::FellBehind,
                ReadFailure::Store(_) => Ending::StoreFailed,
            };
            return Err(ShedReason::Store);
        }
    };
    let state: usize = joined.prelude.state.iter().map(Bytes::len).sum();
    let charge = match gathered.charge.take() {
        Some(charge) if state == 0 => charge,
        // The state, which all joins share, is copied into the response, so the charge must
        // cover it too.
        kept => {
            drop(kept);
            let needed = state + 2 * gathered.bytes.len();
            app.hub.memory(needed).await.map_err(|_| ShedReason::Memory)?
        }
    };
    let has_only_events = gathered.events > 0 && !has_news && matches!(asked, ResumeFrom::After(_));
    let span = span(app, &joined, &gathered, lane);
    let retry_ms = match has_only_events {
        true => app.hub.retry_ms(),
        false => sse::RETRY_EMPTY_LONG_POLL_MS.max(app.hub.retry_ms()),
    };
    let least_mark = if gathered.events > 0 { 0 } else { joined.least_mark };
    let Joined { reader, prelude, .. } = joined;
    let mut body = prelude.chunks(span.segment.number, span.ends_at).concat();
    body.extend_from_slice(&gathered.bytes);
    if !gathered.is_ended {
        let cursor = Joined::closing_cursor(&reader, span.ends_at.max(least_mark));
        sse::closing(&mut body, &cursor, span.next_number, retry_ms);
    }
    counted.ending = if gathered.is_ended { Ending::ChannelEnd } else { Ending::Boundary };
    app.hub.metrics().sent(gathered.events, body.len());
    app.hub.note_sent(&reader);
    // A response that ends with the channel is not final, because the channel can be reopened.
    let is_final = has_only_events && !gathered.is_ended;
    let freshness = if is_final { Freshness::SameForCursor } else { Freshness::Second };
    Ok((charge.hold(body), freshness))
}

async fn gather(
    app: &AppState,
    joined: &mut Joined,
    has_news: bool,
) -> Result<Gathered, ReadFailure> {
    let mut gathered = Gathered::default();
    let mut stage = Registration::new(app.hub.lifecycle().clone());
    let wait =
        if has_news { app.config().long_poll_linger } else { app.config().long_poll_timeout };
    let mut deadline = Instant::now() + wait;
    let mut is_late = false;
    while gathered.bytes.len() < app.config().long_poll_bytes {
        let room = app.config().long_poll_bytes - gathered.bytes.len();
        // A process that ends answers at once with what it has.
        let step = poll_fn(|context| match joined.reader.poll_next(context, room) {
            Poll::Ready(step) => Poll::Ready(Some(step)),
            Poll::Pending if stage.poll_reached(context, Stage::Draining) => Poll::Ready(None),
            Poll::Pending if is_late && !joined.reader.is_paging() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let step = match timeout_at(deadline, step).await {
            Ok(Some(step)) => step?,
            // The events of a page that the store is still reading belong in the response.
            Err(_) if gathered.events == 0 && !is_late => {
                (is_late, deadline) = (true, deadline + app.hub.store_timeout());
                continue;
            }
            Ok(None) | Err(_) => break,
        };
        match step {
            Step::Ended => {
                gathered.is_ended = true;
                break;
            }
            Step::Events(delivery) => {
                if gathered.events == 0 {
                    let charge = app.hub.memory(2 * app.config().long_poll_bytes).await;
                    gathered.charge = charge.ok();
                    deadline = deadline.min(Instant::now() + app.config().long_poll_linger);
                }
                gathered.bytes.extend_from_slice(&delivery.bytes);
                gathered.events += delivery.events;
            }
        }
    }
    Ok(gathered)
}

/// The segment number and the end that the response contains. With events they are those of the
/// segment of the newest event, which all origins compute alike. Without events the end is the
/// next whole second.
fn span(app: &AppState, joined: &Joined, gathered: &Gathered, lane: u64) -> Span {
    let segments = &app.hub.segments();
    if gathered.events == 0 {
        let now = app.hub.clock().now();
        return segments.span_until(lane, now, (now / 1_000 + 1) * 1_000);
    }
    let newest = joined.reader.positions().iter().map(|position| position.ms).max();
    let newest = newest.unwrap_or_default();
    let ends_at = segments.segment_at(lane, newest).ends_at;
    segments.span_until(lane, newest, ends_at)
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.origin.hub.metrics().ended(self.ending);
    }
}
