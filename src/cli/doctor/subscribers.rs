//! The subscribers of `headwater doctor`: each is an `EventSource` that follows the channel during
//! the whole examination and records what it receives.

use crate::client::http::Address;
use crate::client::{EventSource, Interruption, Message, Signal};
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The running subscribers, and their traces.
pub struct Subscribers {
    clients: JoinSet<()>,
    traces: Vec<Arc<Mutex<ClientTrace>>>,
}

/// The record of one subscriber.
#[derive(Clone, Debug, Default)]
pub struct ClientTrace {
    /// When each response began.
    pub opened: Vec<Instant>,
    /// The numbers of the probes that arrived, and when they arrived.
    pub probes: Vec<(u64, Instant)>,
    /// A reason for each response that was interrupted or ended without its closing block.
    pub cut: Vec<String>,
    /// The status that ended the `EventSource` permanently.
    pub closed: Option<String>,
    is_closing: bool,
}

impl Subscribers {
    /// Starts `count` subscribers after `cursor`. The probes of this examination carry the number
    /// `run`.
    pub fn start(
        address: &Address,
        path: &str,
        cursor: Option<&str>,
        count: usize,
        run: u64,
    ) -> Self {
        let mut subscribers = Self { clients: JoinSet::new(), traces: Vec::new() };
        for _ in 0..count {
            let trace = Arc::new(Mutex::new(ClientTrace::default()));
            subscribers.traces.push(trace.clone());
            let mut source = EventSource::new(address.clone(), path, cursor);
            subscribers.clients.spawn(async move {
                loop {
                    let signal = source.next().await;
                    trace.lock().note(signal, run);
                }
            });
        }
        subscribers
    }

    /// Copies of the traces so far.
    pub fn traces(&self) -> Vec<ClientTrace> {
        let copy = |trace: &Arc<Mutex<ClientTrace>>| trace.lock().clone();
        self.traces.iter().map(copy).collect()
    }
}

impl ClientTrace {
    fn note(&mut self, signal: Signal, run: u64) {
        match signal {
            Signal::Opened => {
                self.opened.push(Instant::now());
                // A response that the edge wrote by itself has no blocks; its end is not a cut.
                self.is_closing = true;
            }
            Signal::Message(message) => self.take(&message, run),
            Signal::Reconnecting { why: Interruption::End, .. } if self.is_closing => {}
            Signal::Reconnecting { why, .. } if !self.opened.is_empty() => {
                self.cut.push(match why {
                    Interruption::End => "it ended without its closing block".to_owned(),
                    Interruption::Broken(why) => why,
                });
            }
            Signal::Reconnecting { .. } => {}
            Signal::Closed { status, why } => {
                let status = status.map_or("no status".to_owned(), |status| status.to_string());
                self.closed = Some(format!("{status} {why}"));
            }
        }
    }

    fn take(&mut self, message: &Message, run: u64) {
        let data: Value = serde_json::from_str(&message.data).unwrap_or_default();
        // A shed response has no closing block, and its end is not a cut.
        let is_last = message.kind == "segment" && data["ends_at"].is_null();
        self.is_closing = is_last || message.kind == "shed";
        if data["headwater_doctor"].as_u64() == Some(run)
            && let Some(number) = data["number"].as_u64()
        {
            self.probes.push((number, Instant::now()));
        }
    }
}
