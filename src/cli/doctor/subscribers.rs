//! Clients that stay: each an `EventSource` that follows the channel over all of the examination
//! and writes down what happens to it.

use crate::client::http::Address;
use crate::client::{EventSource, Interruption, Message, Signal};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// All of them.
pub struct Subscribers {
    clients: JoinSet<()>,
    traces: Vec<Arc<Mutex<ClientTrace>>>,
}

/// What one of them saw.
#[derive(Clone, Debug, Default)]
pub struct ClientTrace {
    /// When each response began.
    pub opened: Vec<Instant>,
    /// Numbers of the probes that came, and when.
    pub probes: Vec<(u64, Instant)>,
    /// Responses that broke off, or ended without their closing block.
    pub cut: Vec<String>,
    /// The status that ended it for good.
    pub closed: Option<String>,
    is_closing: bool,
}

impl Subscribers {
    /// `count` clients that begin after `cursor`; `run` tells our probes from other events.
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
                    trace.lock().unwrap_or_else(PoisonError::into_inner).note(signal, run);
                }
            });
        }
        subscribers
    }

    /// What they saw so far.
    pub fn traces(&self) -> Vec<ClientTrace> {
        let copy = |trace: &Arc<Mutex<ClientTrace>>| {
            trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.traces.iter().map(copy).collect()
    }
}

impl ClientTrace {
    fn note(&mut self, signal: Signal, run: u64) {
        match signal {
            Signal::Opened => {
                self.opened.push(Instant::now());
                // A synthetic answer of the edge has no blocks, and is no cut either.
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
        // An answer that sends the client away for a while is whole as well.
        let is_last = message.kind == "segment" && data["ends_at"].is_null();
        self.is_closing = is_last || message.kind == "shed";
        if data["headwater_doctor"].as_u64() == Some(run)
            && let Some(number) = data["number"].as_u64()
        {
            self.probes.push((number, Instant::now()));
        }
    }
}
