//! Tests of the commands of one commit: their limits count what is in the log and what the commands
//! before them add.
#![cfg(test)]

use super::super::{ChannelLimits, Idempotency, Limits, Publication, StoreError};
use super::batch::{Batch, Change, WritePosition};
use super::catalog::Catalog;
use super::damage_tests::LIMITS;
use super::summary::EVENT_OVERHEAD_BYTES;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field};

const NOW: u64 = 1_000;

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn of(channel: &str, events: Vec<Event>) -> Publication {
    Publication { channel: name(channel), events, idempotency: None }
}

/// A publish of an event that counts for `bytes` bytes.
fn plain(channel: &str, bytes: usize) -> Publication {
    of(channel, vec![sized(bytes)])
}

fn sized(bytes: usize) -> Event {
    Event::new(None, None, "x".repeat(bytes - EVENT_OVERHEAD_BYTES), false)
}

/// An event with a key of one byte. It counts for 6 bytes and those of the data, and for 22 bytes and
/// those of the data in the state.
fn keyed(key: &str, data: &str) -> Publication {
    of("a", vec![Event::new(None, Some(Field::key(key).unwrap()), data.to_owned(), false)])
}

fn removal(key: &str) -> Publication {
    of("a", vec![Event::new(None, Some(Field::key(key).unwrap()), String::new(), true)])
}

fn with_key(key: &str) -> Publication {
    let idempotency = Some(Idempotency { key: key.to_owned(), digest: 1 });
    Publication { idempotency, ..plain("a", 10) }
}

fn batch<'c>(known: &'c Catalog, limits: &'c ChannelLimits, now: u64) -> Batch<'c> {
    let write_position = WritePosition { log_file: 1, offset: 0, commit: 1, seed: 7 };
    Batch::new(known, limits, now, write_position)
}

/// The content of a log with these publishes.
fn log_of(publishes: &[Publication]) -> Catalog {
    let (mut known, limits) = (Catalog::default(), ChannelLimits::new(LIMITS, Vec::new()));
    let mut first = batch(&known, &limits, NOW);
    for publication in publishes {
        first.publish(publication.clone()).unwrap();
    }
    for change in first.finish().changes {
        let Change::Append(append) = change else { panic!("only events were published") };
        known.commit(&append, 1);
    }
    known
}

fn refusal<T>(outcome: Result<T, StoreError>) -> &'static str {
    match outcome {
        Ok(_) => "",
        Err(StoreError::Limit { flag, .. }) => flag,
        Err(StoreError::Closed) => "closed",
        Err(error) => panic!("{error}"),
    }
}

/// Publishes in one commit, and returns the flag of the limit that refuses each publish.
fn refusals(known: &Catalog, limits: Limits, publishes: &[Publication]) -> Vec<&'static str> {
    let limits = ChannelLimits::new(limits, Vec::new());
    let mut batch = batch(known, &limits, NOW);
    publishes.iter().map(|publication| refusal(batch.publish(publication.clone()))).collect()
}

/// The last of these publishes fits into a store of `bytes` bytes, and not into a smaller one.
fn fills(known: &Catalog, limits: Limits, publishes: &[Publication], bytes: u64) {
    for (total_bytes, expected) in [(bytes, ""), (bytes - 1, "--max-store-bytes")] {
        let refused = refusals(known, Limits { total_bytes, ..limits }, publishes);
        assert_eq!(refused.last(), Some(&expected), "{total_bytes} bytes: {refused:?}");
    }
}

#[test]
fn channels_are_counted_in_the_log_and_in_the_commit() {
    let known = log_of(&[plain("a", 10), plain("b", 10)]);
    let publishes = ["a", "c", "c", "d", "b"].map(|channel| plain(channel, 10));
    let refused = refusals(&known, Limits { channels: 3, ..LIMITS }, &publishes);
    assert_eq!(refused, ["", "", "", "--max-channels", ""]);
}

#[test]
fn the_bytes_of_the_store_are_those_of_events_and_states() {
    let (empty, ten) = (Catalog::default(), log_of(&[plain("a", 10)]));
    fills(&ten, LIMITS, &[plain("b", 10), plain("b", 12)], 32);
    // Each key has its event in the log, and once more in the state.
    fills(&empty, LIMITS, &[keyed("k", "1234")], 10 + 26);
    fills(&empty, LIMITS, &[keyed("k", "1234"), keyed("k", "12")], 10 + 8 + 24);
    fills(&log_of(&[keyed("k", "1234")]), LIMITS, &[keyed("k", "12")], 10 + 8 + 24);
    // A store that is too full takes what does not need more room.
    let one = Limits { retain_events: 1, total_bytes: 5, ..LIMITS };
    assert_eq!(
        refusals(&ten, one, &[plain("a", 10), plain("a", 9), plain("a", 10)])[..2],
        ["", ""]
    );
    assert_eq!(refusals(&ten, one, &[plain("a", 11)]), ["--max-store-bytes"]);
    let full = Limits { total_bytes: 20, ..LIMITS };
    assert_eq!(refusals(&log_of(&[keyed("k", "1234")]), full, &[removal("k")]), [""]);
}

#[test]
fn events_over_the_limits_of_their_channel_leave_room() {
    let known = log_of(&[plain("a", 10), plain("a", 10)]);
    let two = Limits { retain_events: 2, ..LIMITS };
    let pair = of("a", vec![sized(10), sized(20)]);
    // The bytes of dropped events are estimated by their number: 2 of 4, then 1 of 3.
    fills(&known, two, std::slice::from_ref(&pair), 25);
    fills(&known, two, &[pair, plain("a", 30)], 55 - 18);
    let few_bytes = Limits { retain_bytes: 15, ..LIMITS };
    fills(&known, few_bytes, &[plain("a", 40)], 40);
    fills(&known, few_bytes, &[plain("a", 10), plain("b", 6)], 15 + 6);
}

#[test]
fn a_state_may_not_have_more_keys_but_other_events_are_taken() {
    let known = log_of(&[keyed("j", "1"), keyed("k", "1")]);
    let publishes = [
        keyed("k", "2"),
        keyed("l", "1"),
        plain("a", 10),
        removal("k"),
        keyed("l", "1"),
        keyed("m", "1"),
    ];
    let refused = refusals(&known, Limits { keys: 2, ..LIMITS }, &publishes);
    assert_eq!(refused, ["", "--max-keys", "", "", "", "--max-keys"]);
    // The limit was lowered.
    let refused = refusals(&known, Limits { keys: 1, ..LIMITS }, &publishes[..3]);
    assert_eq!(refused, ["", "--max-keys", ""]);
}

#[test]
fn a_state_may_not_grow_over_its_bytes_but_other_events_are_taken() {
    let limited = |state_bytes| Limits { state_bytes, ..LIMITS };
    let one = [keyed("k", "123")];
    assert_eq!(refusals(&Catalog::default(), limited(25), &one), [""]);
    assert_eq!(refusals(&Catalog::default(), limited(24), &one), ["--max-state-bytes"]);
    let publishes = [keyed("k", "321"), keyed("k", "1234"), keyed("k", "12"), plain("a", 10)];
    let refused = refusals(&log_of(&one), limited(20), &publishes);
    assert_eq!(refused, ["", "--max-state-bytes", "", ""]);
}

#[test]
fn idempotency_keys_are_counted_in_the_log_and_in_the_commit() {
    let known = log_of(&[with_key("known")]);
    let publishes = [with_key("x"), with_key("y"), with_key("z"), plain("a", 10), with_key("x")];
    let refused = refusals(&known, Limits { idempotency_keys: 3, ..LIMITS }, &publishes);
    assert_eq!(refused, ["", "", "--max-idempotency-keys", "", ""]);
}

#[test]
fn a_publish_is_a_repetition_until_its_key_expires() {
    let (known, limits) = (log_of(&[with_key("k")]), ChannelLimits::new(LIMITS, Vec::new()));
    let expires_at = NOW + LIMITS.idempotency_age.as_millis() as u64;
    for (now, repeated) in [(NOW, true), (expires_at - 1, true), (expires_at, false)] {
        let mut batch = batch(&known, &limits, now);
        for is_again in [false, true] {
            let published = batch.publish(with_key("k")).unwrap();
            assert_eq!(published.repeated, repeated || is_again, "at {now}");
        }
        let mut other = with_key("k");
        other.idempotency.as_mut().unwrap().digest = 2;
        assert!(matches!(batch.publish(other), Err(StoreError::KeyReused)));
    }
}

#[test]
fn a_loss_is_announced_in_a_channel_that_stays_open_or_closed() {
    let (known, limits) = (log_of(&[plain("a", 10)]), ChannelLimits::new(LIMITS, Vec::new()));
    let mut open = batch(&known, &limits, NOW);
    open.announce_loss(&name("a"));
    let announced = open.last(&name("a")).unwrap();
    assert!(announced > known.newest);
    open.publish(plain("a", 10)).unwrap();
    let changes = open.finish().changes;
    let Some(Change::Append(append)) = changes.last() else { panic!("an event was published") };
    assert_eq!(append.previous, announced);
    let mut closed = batch(&known, &limits, NOW);
    closed.close(&name("a")).unwrap();
    closed.announce_loss(&name("a"));
    assert_eq!(refusal(closed.publish(plain("a", 10))), "closed");
    // A channel that does not exist has lost nothing.
    closed.announce_loss(&name("b"));
    assert_eq!(closed.last(&name("b")), None);
}

#[test]
fn a_deleted_channel_leaves_the_room_of_its_events_and_its_state() {
    let known = log_of(&[keyed("k", "1234"), plain("a", 10), plain("a", 10)]);
    let end = (EVENT_OVERHEAD_BYTES + Event::end().weight()) as u64;
    let after_deletion = |limits: Limits, publication: Publication| {
        let limits = ChannelLimits::new(limits, Vec::new());
        let mut batch = batch(&known, &limits, NOW);
        batch.erase(&name("a")).unwrap();
        batch.reopen(&name("a")).unwrap();
        refusal(batch.publish(publication))
    };
    let two = Limits { retain_events: 2, keys: 1, state_bytes: 26, ..LIMITS };
    for (total_bytes, expected) in [(end + 10, ""), (end + 9, "--max-store-bytes")] {
        assert_eq!(after_deletion(Limits { total_bytes, ..two }, plain("a", 10)), expected);
    }
    for key in ["k", "j"] {
        assert_eq!(after_deletion(two, keyed(key, "1234")), "");
        assert_eq!(after_deletion(two, keyed(key, "12345")), "--max-state-bytes");
    }
    let limits = ChannelLimits::new(LIMITS, Vec::new());
    let mut batch = batch(&known, &limits, NOW);
    assert_eq!(batch.keys_of(&name("a")), [Box::from("k")]);
    batch.erase(&name("a")).unwrap();
    assert!(batch.keys_of(&name("a")).is_empty());
    assert_eq!(known.beginning, EventId::START);
}
