//! The record of one subscriber: each event of its channels arrives once and in order, or a gap event
//! says that events are missing.

use headwater::core::cursor::EventId;

/// The number and the id of an event.
pub type Place = (u64, EventId);

/// The newest event of each channel that the subscriber has received.
pub struct Ledger {
    channels: Vec<(usize, Option<Place>)>,
}

/// How an event breaks the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its number is larger than the next one, and no gap event came before it.
    Missing,
    /// Its number is not larger than one that came before it.
    Doubled,
    /// Its id is not larger than the id of the event before it.
    Unordered,
    /// It belongs to no channel of the subscriber, or cannot be read.
    Foreign,
}

/// The text of an event: the channel, its number in the channel, and padding up to a size.
pub fn event_data(channel: usize, number: u64, bytes: usize) -> String {
    let head = format!("{channel} {number} ");
    format!("{head}{:x<padding$}", "", padding = bytes.saturating_sub(head.len()))
}

impl Ledger {
    /// Begins after these events.
    pub fn after(channels: impl IntoIterator<Item = (usize, Place)>) -> Self {
        let channels = channels.into_iter().map(|(channel, place)| (channel, Some(place)));
        Self { channels: channels.collect() }
    }

    /// Records an event.
    ///
    /// # Errors
    /// Fails when the event breaks the promise. The record then goes on from this event.
    pub fn event(&mut self, id: &str, data: &str) -> Result<(), Fault> {
        let mut parts = data.split(' ').map(|part| part.parse::<u64>().ok());
        let (Some(Some(channel)), Some(Some(number)), Ok(id)) =
            (parts.next(), parts.next(), EventId::parse(id))
        else {
            return Err(Fault::Foreign);
        };
        let mut places = self.channels.iter_mut();
        let place = places.find(|(own, _)| *own as u64 == channel).ok_or(Fault::Foreign)?;
        let Some((last_number, last_id)) = place.1.replace((number, id)) else { return Ok(()) };
        match number {
            _ if number <= last_number => Err(Fault::Doubled),
            _ if number > last_number + 1 => Err(Fault::Missing),
            _ if id <= last_id => Err(Fault::Unordered),
            _ => Ok(()),
        }
    }

    /// Records a gap event of a channel: the next event may have any number, because a client reads
    /// everything anew after a gap.
    pub fn gap(&mut self, channel: usize) {
        let places = self.channels.iter_mut().filter(|(own, _)| *own == channel);
        places.for_each(|place| place.1 = None);
    }

    /// Whether the newest event of each channel has arrived. `last` has its number for each channel.
    pub fn has_all(&self, last: &[u64]) -> bool {
        let has = |(channel, place): &(usize, Option<Place>)| {
            place.is_some_and(|(number, _)| number >= last[*channel])
        };
        self.channels.iter().all(has)
    }

    /// The channels, and the number of the newest event of each.
    pub fn places(&self) -> Vec<(usize, Option<u64>)> {
        let number = |place: &Option<Place>| place.map(|(number, _)| number);
        self.channels.iter().map(|(channel, place)| (*channel, number(place))).collect()
    }
}

#[test]
fn every_broken_promise_is_a_fault() {
    let begin = || Ledger::after([(3, (10, EventId { ms: 5, seq: 0 }))]);
    let data = |number| event_data(3, number, 20);
    let mut ledger = begin();
    assert_eq!(data(11).len(), 20);
    assert_eq!(ledger.event("5-1", &data(11)), Ok(()));
    assert_eq!(ledger.event("6-0", &data(12)), Ok(()));
    assert!(ledger.has_all(&[0, 0, 0, 12]) && !ledger.has_all(&[0, 0, 0, 13]));
    assert_eq!(ledger.event("7-0", &data(12)), Err(Fault::Doubled));
    assert_eq!(ledger.event("8-0", &data(14)), Err(Fault::Missing));
    assert_eq!(ledger.event("8-0", &data(15)), Err(Fault::Unordered));
    assert_eq!(ledger.event("9-0", &event_data(4, 16, 20)), Err(Fault::Foreign));
    assert_eq!(ledger.event("9-0", "text"), Err(Fault::Foreign));
    let mut ledger = begin();
    ledger.gap(3);
    assert!(!ledger.has_all(&[0, 0, 0, 0]));
    assert_eq!(ledger.event("4-0", &data(2)), Ok(()));
    assert_eq!(ledger.event("5-0", &data(4)), Err(Fault::Missing));
}
