//! Headwater is the origin of live streams of server-sent events that a CDN or cache delivers.
//!
//! # Embedding an origin
//!
//! ```
//! use headwater::client::http::Address;
//! use headwater::client::{EventSource, Signal};
//! use headwater::event::{ChannelName, Event};
//! use headwater::{Config, Headwater, Listeners, Shutdown, StoreAddress};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default();
//! config.store.address = StoreAddress::Memory;
//! let origin = Headwater::open(config).await?;
//! // Port 0: the system chooses a free port.
//! let listeners = Listeners::bind(&["127.0.0.1:0".parse()?], &[])?;
//! let address: Address = listeners.urls()[0].parse()?;
//! let publisher = origin.publisher();
//! let shutdown = Shutdown::default();
//! let running = tokio::spawn(origin.run(listeners, shutdown.clone()));
//!
//! let prices = ChannelName::parse("prices")?;
//! let ids = publisher.publish(&prices, vec![Event::new(None, None, "1.07".to_owned(), false)]).await?;
//! let mut events = EventSource::new(address, "/channels/prices", Some("0-0"));
//! let message = loop {
//!     match events.next().await {
//!         // The stream also has control events, such as `segment`.
//!         Signal::Message(message) if message.kind == "message" => break message,
//!         _ => {}
//!     }
//! };
//! assert_eq!((message.data, message.last_event_id), ("1.07".to_owned(), ids[0].to_string()));
//!
//! drop(events);
//! shutdown.stop();
//! running.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Code map
//!
//! A table in `tests/it/tidy.rs` says which folder may import which, and a test checks every file
//! against it.
//!
//! - [`core`]: what follows from the protocol alone (events, cursors, segments, the text of a
//!   stream, caching headers). No I/O and no clock; time is an argument.
//! - [`sync`]: the clock, timers, lists of waiters and background threads; [`pem`]: files of
//!   certificates and keys.
//! - [`access`]: tokens and their scopes; [`limits`]: how much one client or publisher may use.
//! - [`store`]: where events are kept, on disk, in memory or in Redis.
//! - [`telemetry`] has the metrics.
//! - [`hub`]: the channels in memory, and the streams that read them.
//! - [`http`]: requests, responses and WebSockets; [`fanout`]: the threads that send live streams
//!   over HTTP/1.1; [`server`]: listeners and connections.
//! - [`demo`]: the events of `serve --demo`; [`origin`]: the parts put together.
//! - [`edge_config`]: the files for caches; [`client`]: an `EventSource`; [`cli`]: the commands.
//!
//! # What happens to an event and to a stream
//!
//! A publish goes through `http::publish` and the hub to the store. The store gives the event an
//! id, keeps it, and calls the registry of channels, which appends the event to the tail buffer of
//! its channel and wakes the waiting streams. A stream goes through `http::subscribe` to
//! `hub::Hub::join`, which decides where it starts (`core::resume`) and when it ends
//! (`core::segment`). The `hub::event_stream::EventStream` then reads from a `hub::reader::Reader`:
//! newer events come from the tail buffer, and older ones, which the buffer no longer has, from the
//! store. Over plain HTTP/1.1, `server::takeover` and the pumps of `fanout` send the stream. Over
//! TLS, HTTP/2 and HTTP/1.0, hyper sends the stream as the body of a response. There is no queue for
//! each subscriber.
//!
//! # Invariants
//!
//! - A reader reads the events after its position in the log. The same code reads old events
//!   (replay) and new events (live delivery).
//! - No blocking lock is held across an await. Only `http::state` holds an asynchronous lock across
//!   awaits, so that requests at the same time build one body.
//! - A response ends without an error only if its last cursor covers exactly the events that were
//!   sent (`core::caching::Ending::is_whole`).
//! - An `EventSource` never receives an error status for a temporary fault.
//! - Only `sync::clock` reads the wall clock.
//! - As a rule a stream ends at a boundary of its lane or at a rejoin tick, so that streams end
//!   together. `core::segment` lists the exceptions.
//! - Nothing is acknowledged or sent to a reader before the store has accepted it. In a store on
//!   disk it is then durable.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[doc(hidden)]
pub mod access;
#[doc(hidden)]
pub mod cli;
pub mod client;
#[doc(hidden)]
pub mod core;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod edge_config;
#[doc(hidden)]
pub mod fanout;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod hub;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod origin;
#[doc(hidden)]
pub mod pem;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod sync;
#[doc(hidden)]
pub mod telemetry;

pub use core::event;
pub use origin::{
    Config, Error, Headwater, Listeners, MemoryConfig, Publisher, RedisOptions, RedisTls, Shutdown,
    StoreAddress, StoreConfig,
};
pub use server::Stopped;
pub use server::listener::ListenAddress;
