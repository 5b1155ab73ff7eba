//! The chat has no part in the server: the pages publish to the channels of its rooms themselves.
//! Only the first message of the lobby comes from here, so that the room is not empty.

use super::{channel, patiently, publish};
use crate::core::cursor::EventId;
use crate::core::event::Event;
use crate::hub::Hub;
use crate::store::PageLimit;
use serde_json::json;

const LOBBY: &str = "chat.lobby";
const GREETING: &str = "Hello! Open this page in a second window, or read the room with curl: \
                       every reader has the same history.";

/// Publishes the first message of the lobby, if it has none.
pub async fn run(hub: &Hub) {
    let limit = PageLimit { events: 1, bytes: 1 };
    let read = || async move { hub.read(&channel(LOBBY)?, EventId::START, limit).await };
    let page = patiently(|| Box::pin(read())).await;
    if page.events.is_empty() {
        let data = json!({ "name": "Headwater", "text": GREETING }).to_string();
        publish(hub, LOBBY, vec![Event::new(None, None, data, false)]).await;
    }
}
