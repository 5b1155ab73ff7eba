//! The promise to one client, checked with everything that it receives: in the simulated worlds, and
//! in the tests against real servers ([`crate::history`]).
//!
//! - It receives every event of its channels after its starting point, once and in order, or a
//!   `gap` event of the channel.
//! - A state and the events after it are those of the log.
//! - Nothing is shown that was never published, and what a failover loses is announced.

use crate::sse::Message;
use headwater::core::cursor::{Cursor, EventId};
use headwater::core::event::ChannelName;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The events of one channel, also those that were lost or dropped. The checker compares with it what
/// a client receives.
pub trait Log {
    /// Whether an event with this id and text was ever published. The text of an `end` event does not
    /// count.
    fn has(&self, id: EventId, text: Option<&str>) -> bool;
    /// Returns the first event after `after`, up to and including `until`, that was not lost.
    fn first_within(&self, after: EventId, until: EventId) -> Option<EventId>;
    /// Returns the events that were lost.
    fn lost(&self) -> Vec<EventId>;
    /// Returns the texts of the state at a position, or `None` if it is not known.
    fn state_at(&self, position: EventId) -> Option<Vec<String>>;
}

/// The logs of all channels.
pub trait Logs: Send + Sync {
    /// The position before the first event of every channel.
    fn first(&self) -> EventId;
    /// Calls `look` with the log of a channel as it is now.
    fn look(&self, name: &ChannelName, look: &mut dyn FnMut(&dyn Log));
}

/// What one client has received.
pub struct Ledger {
    logs: Arc<dyn Logs>,
    channels: Vec<Place>,
    /// Whether events come as JSON objects.
    is_json: bool,
    /// The events of a state that is being received: channel, and text.
    state: Option<Vec<(usize, String)>>,
    /// Whether the last response brought something new.
    pub has_news: bool,
    received: HashMap<(usize, EventId), u64>,
    count: u64,
}

/// The place of a client in one channel.
struct Place {
    name: ChannelName,
    position: Option<EventId>,
    /// A gap was announced, and the next position may be any.
    is_gap: bool,
    /// The position has moved in a way that only a gap event explains.
    unexplained: Option<String>,
    told_at: u64,
    is_ended: bool,
}

type Checked<T = ()> = Result<T, String>;

impl Ledger {
    /// Returns the ledger of a client that has received nothing yet.
    pub fn new(logs: Arc<dyn Logs>, names: &[ChannelName], is_json: bool) -> Self {
        let place = |name: &ChannelName| Place {
            name: name.clone(),
            position: None,
            is_gap: false,
            unexplained: None,
            told_at: 0,
            is_ended: false,
        };
        Self {
            logs,
            channels: names.iter().map(place).collect(),
            is_json,
            state: None,
            has_news: false,
            received: HashMap::new(),
            count: 0,
        }
    }

    /// Takes an event. Returns the channel and the id of an event of the log.
    pub fn take(&mut self, message: &Message) -> Checked<Option<(ChannelName, EventId)>> {
        self.count += 1;
        if message.kind != "gap" {
            self.explained()?;
        }
        match message.kind.as_str() {
            "segment" => self.segment(message).map(|()| None),
            "gap" => self.gap(message),
            "shed" => Ok(None),
            _ => self.event(message),
        }
    }

    /// The response has ended, as a whole or by a broken connection.
    pub fn response_ends(&mut self) -> Checked {
        self.state = None;
        self.explained()
    }

    /// Fails if a position has moved and no gap was announced.
    fn explained(&mut self) -> Checked {
        let unexplained = self.channels.iter_mut().find_map(|place| place.unexplained.take());
        unexplained.map_or(Ok(()), Err)
    }

    /// Returns what `look` returns for the log of a channel.
    fn log<T>(&self, name: &ChannelName, mut look: impl FnMut(&dyn Log) -> T) -> Option<T> {
        let mut result = None;
        self.logs.look(name, &mut |log| result = Some(look(log)));
        result
    }

    fn cursor(&self, message: &Message) -> Checked<Option<Cursor>> {
        let Some(text) = &message.id else { return Ok(None) };
        let mut cursor = Cursor::parse(text).map_err(|_| format!("{text:?} is no cursor"))?;
        // `0-0` stands for the position before the first event.
        let first = cursor.positions.iter_mut().filter(|position| **position == EventId::START);
        first.for_each(|position| *position = self.logs.first());
        let is_ours = cursor.positions.len() == self.channels.len();
        is_ours.then_some(Some(cursor)).ok_or(format!("{text:?} is not a cursor of this stream"))
    }

    fn segment(&mut self, message: &Message) -> Checked {
        let Some(cursor) = self.cursor(message)? else {
            self.state = Some(Vec::new());
            return Ok(());
        };
        let data: Value = parse(&message.data)?;
        if data.get("state").is_some() {
            let events = self.state.take().ok_or("a state ends that has not begun")?;
            self.check_state(&cursor, &events)?;
        }
        self.moved(&cursor, data.get("state").is_some());
        Ok(())
    }

    /// The client has a new cursor, after a state or without one.
    fn moved(&mut self, cursor: &Cursor, has_state: bool) {
        for (index, position) in cursor.positions.iter().enumerate() {
            let place = &self.channels[index];
            let is_new = place.position != Some(*position);
            let may_move = !is_new || place.is_gap || (has_state && place.position.is_none());
            let unexplained = match may_move {
                true => None,
                false => self.log(&place.name, |log| place.moves(log, *position)).flatten(),
            };
            self.has_news |= is_new;
            let place = &mut self.channels[index];
            place.unexplained = unexplained.or(place.unexplained.take());
            (place.position, place.is_gap) = (Some(*position), false);
        }
    }

    fn check_state(&self, cursor: &Cursor, found: &[(usize, String)]) -> Checked {
        for (index, (place, position)) in self.channels.iter().zip(&cursor.positions).enumerate() {
            let of = found.iter().filter(|(channel, _)| *channel == index);
            let found: Vec<&str> = of.map(|(_, text)| text.as_str()).collect();
            let expected = self.log(&place.name, |log| log.state_at(*position)).flatten();
            let Some(expected) = expected else { continue };
            if !found.is_empty() && found != expected {
                let name = &place.name;
                return Err(format!(
                    "the state of {name} at {position} is {found:?}, and by the log {expected:?}"
                ));
            }
        }
        Ok(())
    }

    fn gap(&mut self, message: &Message) -> Checked<Option<(ChannelName, EventId)>> {
        let data: Value = parse(&message.data)?;
        let index = self.index(data["channel"].as_str())?;
        let place = &mut self.channels[index];
        (place.is_gap, place.unexplained, place.told_at) = (true, None, self.count);
        self.has_news = true;
        let is_at_beginning = self.state.as_ref().is_some_and(Vec::is_empty);
        match self.cursor(message)? {
            // The last of the gaps at the beginning, which has the cursor of the stream.
            Some(cursor) if is_at_beginning => {
                self.state = None;
                let gaps: Vec<bool> = self.channels.iter().map(|place| place.is_gap).collect();
                self.moved(&cursor, false);
                // What is trimmed lies behind the cursor: the gap explains the next event.
                self.channels
                    .iter_mut()
                    .zip(gaps)
                    .for_each(|(place, is_gap)| place.is_gap = is_gap);
                Ok(None)
            }
            // The log itself says that events are lost.
            Some(_) => {
                let id = self.position(message, index)?;
                self.channels[index].position = Some(id);
                Ok(Some((self.channels[index].name.clone(), id)))
            }
            None => Ok(None),
        }
    }

    fn event(&mut self, message: &Message) -> Checked<Option<(ChannelName, EventId)>> {
        let (index, text) = self.content(message)?;
        if message.id.is_none() {
            let state = self.state.as_mut().ok_or("an event has no id")?;
            state.push((index, text));
            return Ok(None);
        }
        let id = self.position(message, index)?;
        let is_end = message.kind == "end";
        let place = &self.channels[index];
        let name = place.name.clone();
        let known = (!is_end).then_some(text.as_str());
        self.log(&name, |log| place.follows(log, id, &text, known)).unwrap_or(Ok(()))?;
        let place = &mut self.channels[index];
        (place.position, place.is_gap) = (Some(id), false);
        place.is_ended |= is_end;
        self.received.insert((index, id), self.count);
        self.has_news = true;
        Ok(Some((name, id)))
    }

    /// Returns the channel of an event, and its text.
    fn content(&self, message: &Message) -> Checked<(usize, String)> {
        let is_control = message.kind == "end";
        if !self.is_json && !is_control {
            return Ok((0, message.data.clone()));
        }
        let data: Value = parse(&message.data)?;
        let index = self.index(data["channel"].as_str())?;
        let text = data["data"].as_str().unwrap_or("{}").to_owned();
        Ok((index, text))
    }

    /// Returns the position of an event in its channel. Those of the other channels must not move,
    /// except after a gap.
    fn position(&mut self, message: &Message, index: usize) -> Checked<EventId> {
        let cursor = self.cursor(message)?.ok_or("an event has no id")?;
        for (other, place) in self.channels.iter_mut().enumerate() {
            let (name, position) = (&place.name, cursor.positions[other]);
            if other == index || place.position == Some(position) {
                continue;
            }
            if !place.is_gap {
                return Err(format!("an event of another channel moves {name} to {position}"));
            }
            (place.position, place.is_gap) = (Some(position), false);
        }
        Ok(cursor.positions[index])
    }

    fn index(&self, name: Option<&str>) -> Checked<usize> {
        let found = self.channels.iter().position(|place| Some(place.name.as_str()) == name);
        found.ok_or(format!("an event of {name:?}, which the stream does not have"))
    }

    /// Checks, once all is quiet, that nothing is missing and that every loss was announced.
    pub fn finish(&self) -> Checked {
        for (index, place) in self.channels.iter().enumerate() {
            let name = &place.name;
            let Some(position) = place.position else {
                return Err(format!("the client never received a cursor of {name}"));
            };
            let newest = EventId { ms: u64::MAX, seq: u64::MAX };
            let missing = self.log(name, |log| log.first_within(position, newest));
            if let Some(missing) = missing.flatten() {
                return Err(format!(
                    "the event {missing} of {name} never arrives after {position}"
                ));
            }
            let lost = self.log(name, |log| log.lost()).unwrap_or_default();
            let silent = lost
                .iter()
                .find(|id| self.received.get(&(index, **id)).is_some_and(|at| *at > place.told_at));
            if let Some(id) = silent {
                return Err(format!("{id} of {name} was shown, is lost, and no gap was announced"));
            }
        }
        Ok(())
    }

    /// Whether every channel has ended for the client.
    pub fn is_ended(&self) -> bool {
        self.channels.iter().all(|place| place.is_ended)
    }
}

impl Place {
    /// Returns what only a gap can explain about a move of the cursor to `to`.
    fn moves(&self, log: &dyn Log, to: EventId) -> Option<String> {
        let (name, from) = (&self.name, self.position?);
        if to < from {
            return Some(format!(
                "the cursor of {name} goes back from {from} to {to}, with no gap"
            ));
        }
        let skipped = log.first_within(from, to)?;
        Some(format!(
            "the cursor of {name} goes from {from} to {to} and skips {skipped}, with no gap"
        ))
    }

    fn follows(&self, log: &dyn Log, id: EventId, text: &str, known: Option<&str>) -> Checked {
        let name = &self.name;
        if !log.has(id, known) {
            return Err(format!("{name} shows {id} ({text:.30}), which was never published"));
        }
        let Some(from) = self.position.filter(|_| !self.is_gap) else { return Ok(()) };
        if id <= from {
            return Err(format!("{name} shows {id} after {from}: twice, or out of order"));
        }
        match log.first_within(from, id).filter(|missed| *missed < id) {
            Some(missed) => Err(format!("{name} shows {id} after {from}, without {missed}")),
            None => Ok(()),
        }
    }
}

fn parse(text: &str) -> Checked<Value> {
    serde_json::from_str(text).map_err(|error| format!("{text:?} is no JSON: {error}"))
}
