//! The messages on a WebSocket, which are JSON objects in text frames: those of the client
//! (`command`) and those of the origin (`text`).

mod command;
mod text;

pub use command::{ClientMessage, Frame, FrameError, Publish, Reference};
pub use text::{end, error, pong, published, subscribed, unsubscribed};
