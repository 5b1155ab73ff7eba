//! Converts replies of Redis into values. A reply of an unexpected form is an error.

use crate::core::cursor::EventId;
use crate::core::event::StoredEvent;
use crate::store::StoreError;
use crate::store::record;
use bytes::Bytes;
use fred::types::Value;

/// Returns the values of an array. A null reply is an empty array.
pub fn array(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Null => Ok(Vec::new()),
        _ => Err(unexpected()),
    }
}

pub fn bytes(value: Value) -> Result<Bytes, StoreError> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        _ => Err(unexpected()),
    }
}

pub fn text(value: Value) -> Result<String, StoreError> {
    match value {
        Value::Integer(number) => Ok(number.to_string()),
        other => String::from_utf8(bytes(other)?.into()).map_err(|_| unexpected()),
    }
}

pub fn number(value: Value) -> Result<u64, StoreError> {
    text(value)?.parse().map_err(|_| unexpected())
}

pub fn id(value: Value) -> Result<EventId, StoreError> {
    EventId::parse(&text(value)?).map_err(|_| unexpected())
}

/// Returns an id, or `None` for an empty text.
pub fn id_if_any(value: Value) -> Result<Option<EventId>, StoreError> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    EventId::parse(&text).map(Some).map_err(|_| unexpected())
}

/// Returns the next value, or an error if there is none.
pub fn next(values: &mut impl Iterator<Item = Value>) -> Result<Value, StoreError> {
    values.next().ok_or_else(unexpected)
}

pub fn stored(id: EventId, record: &[u8]) -> Result<StoredEvent, StoreError> {
    let event = record::read_event(record).map_err(|_| unexpected())?;
    Ok(StoredEvent { id, event })
}

/// Decodes the events of a firehose entry. Each record follows its length, and the ids count up
/// from `first`.
pub fn stored_batch(first: EventId, blob: &[u8]) -> Result<Vec<StoredEvent>, StoreError> {
    let (mut rest, mut events) = (blob, Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (record, after) = after.split_at_checked(length).ok_or_else(unexpected)?;
        let seq = first.seq.checked_add(events.len() as u64).ok_or_else(unexpected)?;
        let id = EventId { ms: first.ms, seq };
        events.push(stored(id, record)?);
        rest = after;
    }
    if rest.is_empty() { Ok(events) } else { Err(unexpected()) }
}

pub fn unexpected() -> StoreError {
    StoreError::Down("redis: a reply of a form this version does not know".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Event;

    #[test]
    fn a_batch_whose_ids_would_overflow_is_refused() {
        let record = record::write_event(&Event::stored(None, None, "x"));
        let mut blob = (record.len() as u32).to_be_bytes().to_vec();
        blob.extend_from_slice(&record);
        let largest = EventId { ms: 1, seq: u64::MAX };
        assert_eq!(stored_batch(largest, &blob).unwrap()[0].id, largest);
        blob.extend_from_within(..);
        assert!(stored_batch(largest, &blob).is_err());
        assert_eq!(stored_batch(EventId { ms: 1, seq: 0 }, &blob).unwrap().len(), 2);
    }
}
