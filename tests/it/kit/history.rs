//! The history of a test with real faults. The checker of the simulated worlds judges it.

use super::Origin;
use headwater::client::Signal;
use headwater_hunt::history::{self, MayLose, Record, Recorder, Summary};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A history that is being recorded. Clones record into the same history.
#[derive(Clone)]
pub struct History {
    test: String,
    recorder: Recorder,
    clients: Arc<AtomicU64>,
}

/// The part of one client.
pub struct ClientHistory {
    client: u64,
    recorder: Recorder,
}

impl History {
    /// Begins the history of the running test.
    pub fn begin() -> Self {
        let test = std::thread::current().name().unwrap_or("unnamed").replace("::", "-");
        Self { test, recorder: Recorder::default(), clients: Arc::default() }
    }

    /// Adds a client that reads a channel.
    pub fn client(&self, channel: &str) -> ClientHistory {
        let client = self.clients.fetch_add(1, Ordering::Relaxed);
        self.recorder.add(Record::Client { client, channels: vec![channel.to_owned()] });
        ClientHistory { client, recorder: self.recorder.clone() }
    }

    /// Notes that an event is sent to an origin. Each event of a channel has data of its own.
    pub fn published(&self, channel: &str, data: &str) {
        let (channel, data) = (channel.to_owned(), data.to_owned());
        self.recorder.add(Record::Published { channel, data });
    }

    /// Notes that an event was acknowledged.
    pub fn acknowledged(&self, channel: &str, id: &str, data: &str) {
        let (channel, id, data) = (channel.to_owned(), id.to_owned(), data.to_owned());
        self.recorder.add(Record::Acknowledged { channel, id, data });
    }

    /// Judges the history, with the log that an origin serves now. A history that breaks a promise
    /// is written to a file.
    pub async fn judge(&self, origin: &Origin, channels: &[&str], may_lose: MayLose) -> Summary {
        for channel in channels {
            for (id, data) in origin.log(channel).await {
                self.recorder.add(Record::Logged { channel: (*channel).to_owned(), id, data });
            }
        }
        let records = self.recorder.records();
        history::judge(&records, may_lose).unwrap_or_else(|why| {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/histories");
            let file = directory.join(format!("{}.jsonl", self.test));
            std::fs::create_dir_all(&directory).expect("a directory");
            std::fs::write(&file, history::to_lines(&records)).expect("a file");
            let file = file.display();
            panic!(
                "{why}; judge it again with: tests/hunt --history {file} --may-lose {may_lose:?}"
            )
        })
    }
}

impl ClientHistory {
    /// Notes a signal of the client's event source.
    pub fn note(&self, signal: &Signal) {
        let client = self.client;
        let record = match signal {
            Signal::Message(message) => Record::Received {
                client,
                kind: message.kind.clone(),
                id: message.has_id.then(|| message.last_event_id.clone()),
                data: message.data.clone(),
            },
            Signal::Reconnecting { .. } | Signal::Closed { .. } => Record::ResponseEnded { client },
            Signal::Opened => return,
        };
        self.recorder.add(record);
    }
}
