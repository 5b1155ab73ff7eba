//! The history of a run against real servers, and its judgement.
//!
//! A test records what publishers were told and what clients received, and at the end the log that
//! an origin serves. [`judge`] gives each client's part to the same checker as the simulated worlds
//! ([`crate::checker`]). A history can be written as lines of JSON, and `tests/hunt --history FILE`
//! judges such a file again.

use crate::checker::{Ledger, Log, Logs};
use crate::sse::Message;
use clap::ValueEnum;
use headwater::core::cursor::EventId;
use headwater::core::event::ChannelName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// One line of a history. All texts are those of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Record {
    /// A publisher has sent an event, and has no answer yet. Each publish has a text of its own.
    Published { channel: String, data: String },
    /// The event was acknowledged with this id.
    Acknowledged { channel: String, id: String, data: String },
    /// A client begins to read channels.
    Client { client: u64, channels: Vec<String> },
    /// A client has received an SSE event. `id` is the id that this event itself has.
    Received { client: u64, kind: String, id: Option<String>, data: String },
    /// The response of a client has ended, as a whole or by a broken connection.
    ResponseEnded { client: u64 },
    /// An event is in the log at the end of the run.
    Logged { channel: String, id: String, data: String },
}

/// The events that the store may have lost at the end of a run. Each client that has received one of
/// them must have got a gap event afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MayLose {
    /// None: what was acknowledged or shown to a client is in the log.
    Nothing,
    /// Events that were shown to a client and never acknowledged.
    Unacknowledged,
    /// Events that were acknowledged, too.
    Acknowledged,
}

/// What a history shows, beside that no promise was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of clients.
    pub clients: usize,
    /// The number of events that the clients received, without those of Headwater itself.
    pub received: usize,
    /// The number of events in the log.
    pub logged: usize,
    /// The number of events that are not in the log, and were acknowledged or shown.
    pub lost: usize,
}

/// A history that is being recorded. Clones record into the same history.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    records: Arc<Mutex<Vec<Record>>>,
}

impl Recorder {
    /// Adds a record.
    pub fn add(&self, record: Record) {
        self.records.lock().push(record);
    }

    /// Returns everything that was recorded so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().clone()
    }
}

/// Returns a history as lines of JSON.
pub fn to_lines(records: &[Record]) -> String {
    records.iter().filter_map(|record| serde_json::to_string(record).ok()).fold(
        String::new(),
        |mut lines, line| {
            lines.push_str(&line);
            lines.push('\n');
            lines
        },
    )
}

/// Reads a history that [`to_lines`] has written.
///
/// # Errors
/// Fails with the number of the first line that is no record.
pub fn from_lines(lines: &str) -> Result<Vec<Record>, String> {
    let parse = |(index, line)| {
        serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))
    };
    lines.lines().enumerate().map(parse).collect()
}

/// Judges a history.
///
/// # Errors
/// Fails with the promise that was broken, as a sentence.
pub fn judge(records: &[Record], may_lose: MayLose) -> Result<Summary, String> {
    let mut logs = RecordedLogs::default();
    let mut published = HashSet::new();
    for record in records {
        match record {
            Record::Logged { channel, id, data } => logs.add_logged(channel, id, data)?,
            Record::Published { channel, data } => {
                published.insert((channel.as_str(), data.as_str()));
            }
            _ => {}
        }
    }
    for (channel, log) in &logs.channels {
        for data in log.events.values().map(|event| &event.data) {
            if !published.contains(&(channel.as_str(), data.as_str())) {
                return Err(format!(
                    "the log of {channel} has {data:?}, which was never published"
                ));
            }
        }
    }
    for record in records {
        if let Record::Acknowledged { channel, id, data } = record {
            logs.add_acknowledged(channel, id, data, may_lose)?;
        }
    }
    // An event may be shown although its publisher got no answer, and be lost afterwards.
    let mut channels_of: HashMap<u64, &[String]> = HashMap::new();
    for record in records {
        match record {
            Record::Client { client, channels } => {
                channels_of.insert(*client, channels);
            }
            Record::Received { client, kind, id: Some(id), data } if kind == "message" => {
                if let Some([channel]) = channels_of.get(client)
                    && published.contains(&(channel.as_str(), data.as_str()))
                {
                    logs.add_shown(channel, id, data)?;
                }
            }
            _ => {}
        }
    }
    let logged = logs.count(|event| !event.is_lost);
    let lost = logs.count(|event| event.is_lost);
    if may_lose == MayLose::Nothing && lost > 0 {
        return Err(format!("{lost} events were shown to clients and are not in the log"));
    }
    let (clients, received) = judge_clients(records, Arc::new(logs))?;
    Ok(Summary { clients, received, logged, lost })
}

/// Gives each client's part of the history to the checker. Returns the number of clients, and of
/// the events that they received.
fn judge_clients(records: &[Record], logs: Arc<dyn Logs>) -> Result<(usize, usize), String> {
    let mut ledgers: BTreeMap<u64, Ledger> = BTreeMap::new();
    let mut received = 0;
    for record in records {
        let (client, checked) = match record {
            Record::Client { client, channels } => {
                let names: Result<Vec<ChannelName>, String> =
                    channels.iter().map(|name| channel_name(name)).collect();
                ledgers.insert(*client, Ledger::new(logs.clone(), &names?, false));
                continue;
            }
            Record::Received { client, kind, id, data } => {
                received += usize::from(kind == "message");
                let message = Message { kind: kind.clone(), data: data.clone(), id: id.clone() };
                (client, ledgers.get_mut(client).map(|one| one.take(&message).map(|_| ())))
            }
            Record::ResponseEnded { client } => {
                (client, ledgers.get_mut(client).map(Ledger::response_ends))
            }
            _ => continue,
        };
        let checked = checked.unwrap_or_else(|| Err("it was never announced".to_owned()));
        checked.map_err(|why| format!("client {client}: {why}"))?;
    }
    for (client, ledger) in &ledgers {
        ledger.finish().map_err(|why| format!("client {client}: {why}"))?;
    }
    Ok((ledgers.len(), received))
}

/// The logs of a history.
#[derive(Default)]
struct RecordedLogs {
    channels: BTreeMap<String, RecordedLog>,
}

#[derive(Default)]
struct RecordedLog {
    events: BTreeMap<EventId, RecordedEvent>,
    data: BTreeSet<String>,
}

struct RecordedEvent {
    data: String,
    is_lost: bool,
}

impl RecordedLogs {
    fn add_logged(&mut self, channel: &str, id: &str, data: &str) -> Result<(), String> {
        let log = self.channels.entry(channel.to_owned()).or_default();
        if !log.data.insert(data.to_owned()) {
            return Err(format!("the log of {channel} has {data:?} twice"));
        }
        let event = RecordedEvent { data: data.to_owned(), is_lost: false };
        match log.events.insert(event_id(id)?, event) {
            Some(_) => Err(format!("the log of {channel} has the id {id} twice")),
            None => Ok(()),
        }
    }

    fn add_acknowledged(
        &mut self,
        channel: &str,
        id: &str,
        data: &str,
        may_lose: MayLose,
    ) -> Result<(), String> {
        let log = self.channels.entry(channel.to_owned()).or_default();
        match log.events.get(&event_id(id)?) {
            Some(event) if event.data == data => Ok(()),
            None if may_lose == MayLose::Acknowledged => self.add_shown(channel, id, data),
            None => Err(format!("{id} of {channel} was acknowledged and is not in the log")),
            // A failover may have lost the event, and its id can be that of a later event.
            Some(_) if may_lose == MayLose::Acknowledged => Ok(()),
            Some(event) => Err(format!(
                "{id} of {channel} was acknowledged for {data:?}, and the log has {:?} there",
                event.data
            )),
        }
    }

    /// Adds an event that is not in the log, if it is not.
    fn add_shown(&mut self, channel: &str, id: &str, data: &str) -> Result<(), String> {
        let log = self.channels.entry(channel.to_owned()).or_default();
        // The id of an event in a stream of one channel is its cursor.
        let event = RecordedEvent { data: data.to_owned(), is_lost: true };
        log.events.entry(event_id(id)?).or_insert(event);
        Ok(())
    }

    fn count(&self, is_counted: impl Fn(&RecordedEvent) -> bool) -> usize {
        let events = self.channels.values().flat_map(|log| log.events.values());
        events.filter(|event| is_counted(event)).count()
    }
}

impl Logs for RecordedLogs {
    fn first(&self) -> EventId {
        EventId::START
    }

    fn look(&self, name: &ChannelName, look: &mut dyn FnMut(&dyn Log)) {
        look(self.channels.get(name.as_str()).unwrap_or(&RecordedLog::default()));
    }
}

impl Log for RecordedLog {
    fn has(&self, id: EventId, text: Option<&str>) -> bool {
        let event = self.events.get(&id);
        event.is_some_and(|event| text.is_none_or(|text| event.data == text))
    }

    fn first_within(&self, after: EventId, until: EventId) -> Option<EventId> {
        if until <= after {
            return None;
        }
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Included(until));
        self.events.range(range).find(|(_, event)| !event.is_lost).map(|(id, _)| *id)
    }

    fn lost(&self) -> Vec<EventId> {
        self.events.iter().filter(|(_, event)| event.is_lost).map(|(id, _)| *id).collect()
    }

    fn state_at(&self, _: EventId) -> Option<Vec<String>> {
        None
    }
}

fn event_id(text: &str) -> Result<EventId, String> {
    EventId::parse(text).map_err(|_| format!("{text:?} is no id"))
}

fn channel_name(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|_| format!("{text:?} is no channel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(id: Option<&str>, data: &str) -> Vec<Record> {
        let (channel, data) = ("a".to_owned(), data.to_owned());
        let mut records = vec![Record::Published { channel: channel.clone(), data: data.clone() }];
        let acknowledged = id.map(|id| Record::Acknowledged { channel, id: id.to_owned(), data });
        records.extend(acknowledged);
        records
    }

    fn logged(id: &str, data: &str) -> Record {
        Record::Logged { channel: "a".to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    fn received(kind: &str, id: &str, data: &str) -> Record {
        let (kind, data) = (kind.to_owned(), data.to_owned());
        Record::Received { client: 1, kind, id: Some(id.to_owned()), data }
    }

    /// A history in which three events were acknowledged, of which those in `kept` are in the log,
    /// and one client received `messages`.
    fn history(kept: &[usize], messages: &[Record]) -> Vec<Record> {
        let events = [("5-0", "one"), ("6-0", "two"), ("7-0", "three")];
        let mut records: Vec<Record> =
            events.iter().flat_map(|(id, data)| published(Some(id), data)).collect();
        records.push(Record::Client { client: 1, channels: vec!["a".to_owned()] });
        records.push(received("segment", "0-0", "{\"segment\":1,\"ends_at\":9}"));
        records.extend_from_slice(messages);
        records.push(Record::ResponseEnded { client: 1 });
        records.extend(kept.iter().map(|index| logged(events[*index].0, events[*index].1)));
        records
    }

    fn gap(id: &str) -> Record {
        received("gap", id, "{\"channel\":\"a\",\"reason\":\"lost\"}")
    }

    #[test]
    fn each_broken_promise_is_found() {
        let [one, two, three] = [
            received("message", "5-0", "one"),
            received("message", "6-0", "two"),
            received("message", "7-0", "three"),
        ];
        let all = [one.clone(), two.clone(), three.clone()];
        let whole = judge(&history(&[0, 1, 2], &all), MayLose::Nothing);
        assert_eq!(whole, Ok(Summary { clients: 1, received: 3, logged: 3, lost: 0 }));
        let fails = |kept: &[usize], messages: &[Record], may_lose, why: &str| {
            let found = judge(&history(kept, messages), may_lose).expect_err(why);
            assert!(found.contains(why), "{found}");
        };
        fails(&[0, 1, 2], &[one.clone(), three.clone()], MayLose::Nothing, "without 6-0");
        fails(&[0, 1, 2], &[one.clone(), two.clone()], MayLose::Nothing, "never arrives");
        fails(&[0, 1, 2], &[one.clone(), two.clone(), two.clone()], MayLose::Nothing, "twice");
        let other = received("message", "6-0", "other");
        fails(&[0, 1, 2], &[one.clone(), other], MayLose::Nothing, "never published");
        fails(&[0, 2], &all, MayLose::Nothing, "acknowledged and is not in the log");
        fails(&[0, 2], &all, MayLose::Acknowledged, "no gap was announced");
        let shown = received("message", "8-0", "four");
        let with_shown = |may_lose| {
            let mut records =
                history(&[0, 1, 2], &[all.as_slice(), &[shown.clone(), gap("8-0")]].concat());
            records.extend(published(None, "four"));
            judge(&records, may_lose)
        };
        assert!(with_shown(MayLose::Nothing).is_err_and(|why| why.contains("shown to clients")));
        assert_eq!(with_shown(MayLose::Unacknowledged).map(|summary| summary.lost), Ok(1));
        let announced = [one.clone(), two.clone(), gap("6-0"), three.clone()];
        let summary = judge(&history(&[0, 2], &announced), MayLose::Acknowledged);
        assert_eq!(summary.map(|summary| summary.lost), Ok(1));
        let mut twice = history(&[0, 1, 2], &all);
        twice.push(logged("8-0", "three"));
        assert!(judge(&twice, MayLose::Nothing).is_err_and(|why| why.contains("twice")));
        let mut foreign = history(&[0, 1, 2], &all);
        foreign.push(logged("8-0", "four"));
        assert!(
            judge(&foreign, MayLose::Nothing).is_err_and(|why| why.contains("never published"))
        );
    }

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let records = history(&[0, 1, 2], &[gap("6-0")]);
        assert_eq!(from_lines(&to_lines(&records)), Ok(records));
        let unknown = from_lines("{\"what\":\"nothing\"}\n");
        assert!(unknown.is_err_and(|why| why.starts_with("line 1: ")));
    }
}
