//! The demo of `serve --demo`: its pages, and the events that they show.
//!
//! The events are published through the hub, like those of any other publisher. The pages are in
//! `web/`, and `pages.rs` puts them together.

mod board;
mod chat;
mod jobs;
mod pages;
mod ticker;

pub use pages::{Links, files};

use crate::core::event::{ChannelName, Event, Field};
use crate::hub::Hub;
use crate::hub::channel::ReadError;
use crate::store::{Publication, State, StoreError};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// Publishes the events of the demo until the future is dropped.
pub async fn feed(hub: Arc<Hub>) {
    tokio::join!(board::run(&hub), ticker::run(&hub), jobs::run(&hub), chat::run(&hub));
}

/// The answer of the store. It is boxed, because the compiler cannot prove that the future of an
/// async closure with borrowed arguments may move to another thread.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Asks the store, and repeats this until it answers.
async fn patiently<'a, T>(ask: impl Fn() -> Answer<'a, T>) -> T {
    loop {
        match ask().await {
            Ok(value) => return value,
            // A visitor has ended the channel. The demo goes on when it is opened again.
            Err(StoreError::Closed) => {}
            Err(error) => tracing::warn!(%error, "the demo cannot reach the store"),
        }
        tokio::time::sleep(FAULT_PAUSE).await;
    }
}

async fn state(hub: &Hub, name: &str) -> Result<State, StoreError> {
    match hub.state(&channel(name)?).await {
        Ok((state, _)) => Ok(state),
        Err(ReadError::Store(error)) => Err(error),
        Err(ReadError::NoMemory(_)) => Err(StoreError::Down("no memory is left".to_owned())),
    }
}

/// Publishes events together, and repeats this until the store accepts them.
async fn publish(hub: &Hub, name: &str, events: Vec<Event>) {
    patiently(|| {
        let events = events.clone();
        Box::pin(async move {
            let publication = Publication { channel: channel(name)?, events, idempotency: None };
            hub.publish(publication).await.map(drop)
        })
    })
    .await;
}

/// An event that replaces the value of a key.
fn set(key: &str, data: String) -> Event {
    Event::new(None, Field::key(key).ok(), data, false)
}

/// An event that removes a key.
fn remove(key: &str) -> Event {
    Event::new(None, Field::key(key).ok(), String::new(), true)
}

fn key_of(event: &Event) -> &str {
    event.key.as_ref().map(Field::as_str).unwrap_or_default()
}

fn channel(name: &str) -> Result<ChannelName, StoreError> {
    ChannelName::parse(name).map_err(|error| StoreError::Down(error.to_string()))
}
