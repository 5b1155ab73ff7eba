//! The history of a test with real faults. The checker of the simulated worlds judges it.

use super::{Origin, request};
use headwater::client::http::Address;
use headwater::client::{EventSource, Signal};
use headwater_hunt::history::{self, MayLose, Record, Recorder, Summary};
use hyper::Method;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::interval;

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

    /// Publishes numbers to the channel `a`, one each `pace`, until `stop` becomes true, and then
    /// `last`. Each publish may fail once. Returns the data of all events.
    pub async fn publish_until(
        self,
        address: Address,
        pace: Duration,
        stop: watch::Receiver<bool>,
        last: &str,
    ) -> Vec<String> {
        let mut published = Vec::new();
        let mut ticks = interval(pace);
        loop {
            ticks.tick().await;
            let is_last = *stop.borrow();
            let data = if is_last { last.to_owned() } else { published.len().to_string() };
            self.publish_again(&address, &data).await;
            published.push(data);
            if is_last {
                return published;
            }
        }
    }

    /// Publishes an event, and once more if the first publish fails.
    async fn publish_again(&self, address: &Address, data: &str) {
        self.published("a", data);
        let key = [("idempotency-key", data)];
        for attempt in 0.. {
            let body = data.to_owned().into();
            let answer = request(address, Method::POST, "/channels/a", &key, body).await;
            match answer {
                Ok(answer) if answer.status == 201 || answer.status == 200 => {
                    let id = answer.json()["id"].as_str().expect("an id").to_owned();
                    return self.acknowledged("a", &id, data);
                }
                refused => assert_eq!(attempt, 0, "{data} is refused twice: {refused:?}"),
            }
        }
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

    /// Reads until an event has this data.
    pub async fn read_to(&self, source: &mut EventSource, data: &str) {
        loop {
            let signal = source.next().await;
            self.note(&signal);
            match signal {
                Signal::Message(message) if message.data == data => return,
                Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
                _ => {}
            }
        }
    }
}
