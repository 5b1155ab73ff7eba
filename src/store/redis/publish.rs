//! Publishing to Redis: the publish script is sent, and sent again after a broken connection, until
//! it is answered or the timeout is reached.

use super::RedisStore;
use super::agreement::wrong_shards;
use super::counts::Counted;
use super::progress::Remembered;
use super::reply::{array, id, next, number, text, unexpected};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field};
use crate::store::{Idempotency, Limits, Published, Quota, StoreError, record};
use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Maximum entries and bytes of a firehose. They serve origins that were disconnected.
const FIREHOSE_ENTRIES_MAX: usize = 20_000;
const FIREHOSE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A publish is abandoned this long before the timeout of its publisher, which leaves time for the
/// answer to return.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);
/// The index of the deadline among the arguments of the script.
const DEADLINE: usize = 1;
/// The pause before a publish is sent again after its connection broke.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The result of the publish script.
#[derive(Debug)]
pub enum ScriptReply {
    Stored {
        first: EventId,
        count: u64,
        entry: EventId,
        repeated: bool,
        counted: Counted,
    },
    Closed(EventId),
    Refused(StoreError),
    /// The publish arrived after its deadline by the clock of Redis, and nothing was done.
    Late {
        now: u64,
    },
}

/// One call of the publish script.
pub struct Call<'a> {
    pub channel: &'a ChannelName,
    pub events: &'a [Event],
    pub idempotency: Option<Idempotency>,
    /// Whether the call ends the channel.
    pub ends: bool,
    /// Whether the limits of the whole store apply. They do not apply to events of the origin.
    pub is_limited: bool,
    /// When the publisher began to wait.
    pub since: Instant,
}

impl RedisStore {
    /// Publishes events, and returns their ids.
    pub async fn publish_call(&self, call: Call<'_>) -> Result<Published, StoreError> {
        let said = self.call(call, self.config.wait_replicas).await;
        match said.inspect_err(|error| self.count_fault(error))? {
            ScriptReply::Stored { first: EventId { ms, seq }, count, repeated, .. } => {
                let ids = (0..count).map(|n| EventId { ms, seq: seq + n }).collect();
                Ok(Published { ids, repeated })
            }
            ScriptReply::Closed(_) => Err(StoreError::Closed),
            ScriptReply::Refused(error) => Err(error),
            ScriptReply::Late { .. } => Err(unexpected()),
        }
    }

    /// Ends a channel, and returns the id of its end.
    pub async fn close_call(&self, channel: &ChannelName) -> Result<EventId, StoreError> {
        let (events, since) = (&[Event::end()][..], Instant::now());
        let call =
            Call { channel, events, idempotency: None, ends: true, is_limited: false, since };
        match self.call(call, self.config.wait_replicas).await? {
            ScriptReply::Stored { first: end, .. } | ScriptReply::Closed(end) => Ok(end),
            ScriptReply::Refused(error) => Err(error),
            ScriptReply::Late { .. } => Err(unexpected()),
        }
    }

    /// Adds a `gap` event to a channel whose events up to `last` are lost. Each loss is announced
    /// once, even if several origins detect it.
    pub async fn announce_loss(
        &self,
        channel: &ChannelName,
        last: EventId,
    ) -> Result<(), StoreError> {
        let event = Event::lost(&last.to_string());
        let key = format!("\u{1}lost {last}");
        let idempotency = Some(Idempotency { key, digest: 0 });
        let events = &[event][..];
        let (ends, is_limited, since) = (false, false, Instant::now());
        let call = Call { channel, events, idempotency, ends, is_limited, since };
        // If this event is lost too, that loss is detected in the same way.
        match self.call(call, 0).await {
            Ok(_) | Err(StoreError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call(&self, call: Call<'_>, replicas: u32) -> Result<ScriptReply, StoreError> {
        let Call { channel, events, idempotency, ends, is_limited, since } = call;
        let give_up = since + self.config.timeout.saturating_sub(DEADLINE_MARGIN);
        self.may_publish(give_up).await?;
        let own_key = idempotency.is_none();
        let idempotency = idempotency.unwrap_or_else(|| {
            let count = self.publish_count.fetch_add(1, Ordering::Relaxed);
            Idempotency { key: format!("\u{1}own {:016x} {count}", self.run), digest: 0 }
        });
        let left = give_up.saturating_duration_since(Instant::now());
        let deadline = self.redis_now() + left.as_millis() as u64;
        let shard = self.keys.shard_of(channel);
        let [head, log, meta, state] = self.keys.of_state(channel);
        let once = self.keys.idempotency(channel, &idempotency.key);
        let (sizes, key_counts) = (self.keys.sizes(shard), self.keys.key_counts(shard));
        let keys = [head, log, meta, state, self.keys.firehose(shard), once, sizes, key_counts];
        let limits = self.limits.of(channel);
        let allowed = self.counts.allowed(shard, &limits, is_limited, !own_key);
        let ttl = if own_key { self.config.timeout * 5 } else { limits.idempotency_age };
        let mut arguments = self.arguments(
            channel,
            events,
            deadline,
            (&idempotency, ttl),
            ends,
            (&limits, allowed),
        );
        // Every publish has an idempotency key, so a publish whose answer was lost can be sent
        // again.
        let mut is_first = true;
        let unclear = |why: String| StoreError::Unclear(format!("redis: {why}"));
        let said = loop {
            let script = &self.scripts.publish;
            let run = self.connection.run(script, self.keys.slot(shard), &keys, &arguments);
            match tokio::time::timeout_at(give_up, run).await {
                Ok(Ok(answer)) => match script_reply(answer, events.len(), &limits)? {
                    // The clock of Redis was set forward, and this origin has not yet noticed.
                    ScriptReply::Late { now }
                        if is_first && Instant::now() + RETRY_PAUSE < give_up =>
                    {
                        let left = give_up - Instant::now();
                        arguments[DEADLINE] = (now + left.as_millis() as u64).to_string().into();
                    }
                    said => break said,
                },
                Ok(Err(error)) if is_broken(&error) && Instant::now() + RETRY_PAUSE < give_up => {
                    is_first = false;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(Err(error)) if is_broken(&error) => return Err(unclear(error.to_string())),
                Ok(Err(error)) => return Err(self.connection.down(&error)),
                Err(_) => return Err(unclear("no answer in time (--store-timeout)".to_owned())),
            }
        };
        if let ScriptReply::Late { .. } = said {
            return Err(match is_first {
                true => StoreError::Down("redis: it was too late".to_owned()),
                false => unclear("its first answer was lost".to_owned()),
            });
        }
        if let ScriptReply::Stored { first, count, entry, counted, .. } = said {
            self.counts.note(shard, counted);
            self.metrics.commit_seconds.observe(since.elapsed().as_secs_f64());
            let last = EventId { ms: first.ms, seq: first.seq + count - 1 };
            let publish = Remembered { channel: channel.clone(), last };
            self.progress[shard].note_acknowledged(entry, publish, Instant::now());
            self.wait_for_replicas(shard, replicas, give_up).await?;
        }
        Ok(said)
    }

    fn arguments(
        &self,
        channel: &ChannelName,
        events: &[Event],
        deadline: u64,
        (idempotency, ttl): (&Idempotency, Duration),
        ends: bool,
        (limits, allowed): (&Limits, [String; 3]),
    ) -> Vec<Bytes> {
        let Limits { retain_age, retain_events, retain_bytes, keys, state_bytes, .. } = *limits;
        let head = [
            channel.to_string(),
            deadline.to_string(),
            retain_events.to_string(),
            retain_age.as_millis().to_string(),
            retain_bytes.to_string(),
            keys.to_string(),
            state_bytes.to_string(),
            limits.channel_idle.as_millis().to_string(),
            FIREHOSE_ENTRIES_MAX.to_string(),
            FIREHOSE_BYTES_MAX.to_string(),
            format!("{:032x}", idempotency.digest),
            ttl.as_millis().to_string(),
            if ends { "1" } else { "" }.to_owned(),
            self.keys.shards().to_string(),
        ];
        let mut arguments: Vec<Bytes> = head.into_iter().chain(allowed).map(Bytes::from).collect();
        for event in events {
            let key = event.key.as_ref().map(Field::as_str).unwrap_or_default().to_owned();
            arguments.push(key.into());
            arguments.push(Bytes::from_static(if event.removes_key() { b"1" } else { b"" }));
            let record = record::write_event(event);
            let sum = checksum(&record);
            arguments.push(record.into());
            arguments.push(Bytes::copy_from_slice(&sum));
        }
        arguments
    }

    /// Waits until enough replicas have what this connection has written.
    pub async fn wait_for_replicas(
        &self,
        shard: usize,
        wanted: u32,
        give_up: Instant,
    ) -> Result<(), StoreError> {
        if wanted == 0 {
            return Ok(());
        }
        let left = give_up.saturating_duration_since(Instant::now());
        let words = vec![Value::from(i64::from(wanted)), Value::from(left.as_millis() as i64)];
        let timeout = left + DEADLINE_MARGIN;
        let slot = self.keys.slot(shard);
        let answer = self.connection.command("WAIT", slot, words, timeout).await;
        let answer = answer.map_err(|error| StoreError::Unclear(format!("redis: {error}")))?;
        match number(answer)? {
            reached if reached >= u64::from(wanted) => Ok(()),
            reached => Err(StoreError::Unclear(format!(
                "redis: {reached} of {wanted} replicas have the event (--redis-wait-replicas)"
            ))),
        }
    }

    pub fn redis_now(&self) -> u64 {
        let ahead = self.clock_ahead_ms.load(Ordering::Relaxed);
        self.clock.machine_now().saturating_add_signed(ahead)
    }
}

/// Reads the reply of the publish script to a publish of `sent` events.
pub fn script_reply(
    answer: Value,
    sent: usize,
    limits: &Limits,
) -> Result<ScriptReply, StoreError> {
    let mut parts = array(answer)?.into_iter();
    let over = |quota| ScriptReply::Refused(limits.refusal(quota));
    let word = text(next(&mut parts)?)?;
    Ok(match word.as_str() {
        "stored" | "repeated" => {
            let (first, count) = (id(next(&mut parts)?)?, number(next(&mut parts)?)?);
            // The ids are counted up from the first one, so their number is checked.
            let is_possible = first.seq.checked_add(count).is_some() && count == sent as u64;
            if !is_possible {
                return Err(unexpected());
            }
            let (entry, repeated) = (id(next(&mut parts)?)?, word == "repeated");
            let counted = Counted::read(&mut parts)?;
            ScriptReply::Stored { first, count, entry, repeated, counted }
        }
        "closed" => ScriptReply::Closed(id(next(&mut parts)?)?),
        "unknown" => ScriptReply::Refused(StoreError::NoChannel),
        "shards" => ScriptReply::Refused(wrong_shards(&text(next(&mut parts)?)?)),
        "reused" => ScriptReply::Refused(StoreError::KeyReused),
        "keys" => over(Quota::Keys),
        "state" => over(Quota::StateBytes),
        "channels" => over(Quota::Channels),
        "total" => over(Quota::TotalBytes),
        "once" => over(Quota::IdempotencyKeys),
        "late" => ScriptReply::Late { now: number(next(&mut parts)?)? },
        _ => return Err(unexpected()),
    })
}

/// The checksum that is stored with a record of a log, so that damage is detected.
pub fn checksum(record: &[u8]) -> [u8; 4] {
    (xxh3_64(record) as u32).to_be_bytes()
}

/// Whether the connection failed and not the command. It is then unknown whether the script ran.
fn is_broken(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Cluster
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_as_many_ids_as_events_were_sent() {
        let reply = |first: &str, count: &str| {
            let parts = ["stored", first, count, "9-0"].map(Value::from);
            script_reply(Value::Array(parts.into()), 2, &Limits::default())
        };
        let is_stored =
            |reply| matches!(reply, Ok(ScriptReply::Stored { count: 2, repeated: false, .. }));
        assert!(is_stored(reply("5-1", "2")));
        for (first, count) in [
            ("5-1", "0"),
            ("5-1", "3"),
            ("5-1", "18446744073709551615"),
            ("5-18446744073709551615", "2"),
        ] {
            assert!(reply(first, count).is_err(), "{first} {count}");
        }
    }
}
