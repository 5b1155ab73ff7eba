//! What is said over a WebSocket: JSON objects in text frames, in (`command`) and out (`text`).

mod command;
mod text;

pub use command::{ClientMessage, Frame, FrameError, Publish, Reference};
pub use text::{end, error, pong, published, subscribed, unsubscribed};
