//! The simulated worlds of `tools/hunt` run on a model of the store. Here the model and each real
//! store carry out the same random steps, and must give the same answers: a model that differs from
//! the stores would make the worlds prove less than they say.

use super::suite::{ALL, LIMITS, Subject, event, local, name, redis};
use crate::kit::redis::RedisServer;
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, Event, StoredEvent};
use headwater::core::log_state::{Bounds, LogState};
use headwater::store::local::Backing;
use headwater::store::{
    Idempotency, Limits, Page, PageLimit, Publication, Published, State, StoreError,
};
use headwater_hunt::random::Random;
use headwater_hunt::world::clock::VirtualTime;
use headwater_hunt::world::redis::{Next, Redis};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const SEEDS: u64 = 24;
const STEPS: u64 = 80;
const CHANNELS: u64 = 3;
/// The limit of events where the store drops each old event by itself. Redis drops whole nodes of
/// 100 entries, so there nothing is dropped.
const FEW: u64 = 5;
/// Time between two publishes, so that the events of two publishes have ids of different ms.
const PAUSE: Duration = Duration::from_millis(2);

/// A position in a channel, which has another id in each store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Beginning,
    /// The position of the event with this number.
    Event(usize),
    /// A position that is not that of an event. No store answers with one.
    Other(EventId),
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        events: Vec<Event>,
        key: Option<Idempotency>,
    },
    Close,
    Read {
        after: Place,
        limit: usize,
    },
    Back(u64),
    /// The last position before the ms of an event.
    Before(usize),
    State,
    LogState,
}

/// What a store answers, with places instead of ids.
#[derive(Debug, PartialEq)]
enum Answer {
    Published { events: Vec<Place>, repeated: bool },
    Refused(StoreError),
    Page { events: Vec<(Place, Event)>, complete: bool, closed: bool, bounds: [Place; 3] },
    Place(Place),
    State { position: Place, events: Vec<(Place, Event)> },
    LogState { bounds: [Place; 3], oldest: Option<Place>, closed: bool, keyed: bool },
}

/// A call to the sink of a store, or an entry of the model's firehose.
type Appended = (ChannelName, EventId, Vec<StoredEvent>);

/// The answers of one store as they come, before their ids become places.
enum Raw {
    Published(Result<Published, StoreError>),
    Closed(Result<EventId, StoreError>),
    Page(Page),
    Id(EventId),
    State(State),
    LogState(LogState),
}

/// The model or a real store.
enum Side {
    Model(Redis),
    Real(Subject),
}

impl Side {
    async fn publish(&self, channel: &ChannelName, step: &Step) -> Result<Published, StoreError> {
        let Step::Publish { events, key } = step.clone() else { unreachable!("a publish") };
        match self {
            Self::Model(model) => model.publish(channel, events, key),
            Self::Real(Subject { store, .. }) => {
                let channel = channel.clone();
                store.publish(Publication { channel, events, idempotency: key }).await
            }
        }
    }

    async fn close(&self, channel: &ChannelName) -> Result<EventId, StoreError> {
        match self {
            Self::Model(model) => model.close(channel),
            Self::Real(Subject { store, .. }) => store.close(channel).await,
        }
    }

    async fn read(&self, channel: &ChannelName, after: EventId, limit: PageLimit) -> Page {
        match self {
            Self::Model(model) => model.read(channel, after, limit),
            Self::Real(Subject { store, .. }) => store.read(channel, after, limit).await.unwrap(),
        }
    }

    async fn back(&self, channel: &ChannelName, count: u64) -> EventId {
        match self {
            Self::Model(model) => model.position_back(channel, count),
            Self::Real(Subject { store, .. }) => store.position_back(channel, count).await.unwrap(),
        }
    }

    async fn before(&self, channel: &ChannelName, ms: u64) -> EventId {
        match self {
            Self::Model(model) => model.position_before(channel, ms),
            Self::Real(Subject { store, .. }) => store.position_before(channel, ms).await.unwrap(),
        }
    }

    async fn state(&self, channel: &ChannelName) -> State {
        match self {
            Self::Model(model) => model.state(channel),
            Self::Real(Subject { store, .. }) => store.state(channel).await.unwrap(),
        }
    }

    async fn log_state(&self, channel: &ChannelName) -> LogState {
        match self {
            Self::Model(model) => model.log_state(channel),
            Self::Real(Subject { store, .. }) => store.log_state(channel).await.unwrap(),
        }
    }
}

/// A store with the ids that it gave.
struct Numbered {
    side: Side,
    ids: HashMap<ChannelName, Vec<EventId>>,
    /// The firehose of the model as far as it was read. The model keeps only its newest entries.
    heard: Vec<Appended>,
}

impl Numbered {
    fn id(&self, channel: &ChannelName, place: Place, bounds: &Bounds) -> EventId {
        match place {
            Place::Beginning => bounds.first(),
            Place::Event(number) => self.ids[channel][number],
            Place::Other(id) => id,
        }
    }

    fn place(&self, channel: &ChannelName, id: EventId, bounds: &Bounds) -> Place {
        if [bounds.first(), bounds.opened_at].contains(&id) {
            return Place::Beginning;
        }
        let number = self.ids[channel].iter().position(|known| *known == id);
        number.map_or(Place::Other(id), Place::Event)
    }

    async fn carry_out(&mut self, channel: &ChannelName, step: &Step) -> Answer {
        let bounds = self.side.log_state(channel).await.bounds;
        let raw = match step {
            Step::Publish { .. } => Raw::Published(self.side.publish(channel, step).await),
            Step::Close => Raw::Closed(self.side.close(channel).await),
            Step::Read { after, limit } => {
                let after = self.id(channel, *after, &bounds);
                let limit = PageLimit { events: *limit, ..ALL };
                Raw::Page(self.side.read(channel, after, limit).await)
            }
            Step::Back(count) => Raw::Id(self.side.back(channel, *count).await),
            Step::Before(number) => {
                let ms = self.ids[channel][*number].ms;
                Raw::Id(self.side.before(channel, ms).await)
            }
            Step::State => Raw::State(self.side.state(channel).await),
            Step::LogState => Raw::LogState(self.side.log_state(channel).await),
        };
        self.hear();
        self.answer(channel, raw).await
    }

    /// Reads what the model added to its firehose.
    fn hear(&mut self) {
        let Side::Model(model) = &self.side else { return };
        while let Next::Entry(_, entry) = model.next_entry(self.heard.len() as u64, 0) {
            self.heard.push((entry.channel, entry.previous, entry.events));
        }
    }

    async fn answer(&mut self, channel: &ChannelName, raw: Raw) -> Answer {
        let new = match &raw {
            Raw::Published(Ok(published)) if !published.repeated => published.ids.clone(),
            Raw::Closed(Ok(id)) => vec![*id],
            _ => Vec::new(),
        };
        let ids = self.ids.entry(channel.clone()).or_default();
        let last = ids.last().copied().unwrap_or_default();
        ids.extend(new.into_iter().filter(|id| *id > last));
        let bounds = self.side.log_state(channel).await.bounds;
        let place = |id| self.place(channel, id, &bounds);
        let placed = |events: Vec<StoredEvent>| {
            events.into_iter().map(|stored| (place(stored.id), stored.event)).collect()
        };
        match raw {
            Raw::Published(Err(error)) | Raw::Closed(Err(error)) => Answer::Refused(error),
            Raw::Published(Ok(Published { ids, repeated })) => {
                Answer::Published { events: ids.into_iter().map(place).collect(), repeated }
            }
            Raw::Closed(Ok(id)) | Raw::Id(id) => Answer::Place(place(id)),
            Raw::Page(Page { events, complete, bounds, closed }) => {
                let bounds = [bounds.opened_at, bounds.low_watermark, bounds.last].map(place);
                Answer::Page { events: placed(events), complete, closed, bounds }
            }
            Raw::State(State { position, events }) => {
                Answer::State { position: place(position), events: placed(events) }
            }
            Raw::LogState(LogState { bounds, oldest, closed, keyed }) => {
                let bounds = [bounds.opened_at, bounds.low_watermark, bounds.last].map(place);
                Answer::LogState { bounds, oldest: oldest.map(place), closed, keyed }
            }
        }
    }

    /// Returns what the sink received of each channel, in order.
    async fn appended(&mut self) -> Vec<(ChannelName, Vec<(Place, Vec<Place>)>)> {
        if let Side::Real(Subject { store, told, clock, .. }) = &self.side {
            store.settle(clock.now()).await;
            self.heard = told.calls();
        }
        let mut channels = Vec::new();
        for channel in (0..CHANNELS).map(channel_name) {
            let bounds = self.side.log_state(&channel).await.bounds;
            let place = |id| self.place(&channel, id, &bounds);
            let of_channel = self.heard.iter().filter(|(of, ..)| *of == channel);
            let calls = of_channel.map(|(_, previous, events)| {
                (place(*previous), events.iter().map(|stored| place(stored.id)).collect())
            });
            channels.push((channel.clone(), calls.collect()));
        }
        channels
    }
}

fn channel_name(number: u64) -> ChannelName {
    name(&format!("c{number}"))
}

fn random_event(random: &mut Random, number: u64) -> Event {
    let data = format!("event {number}");
    let key = random.choose(&[None, None, Some("k1"), Some("k2"), Some("k3")]);
    let event = event(key, &data);
    if key.is_some() && random.one_in(4) { event.removing_its_key() } else { event }
}

/// Returns a step for a channel that has given out `count` ids.
fn random_step(random: &mut Random, step: u64, count: usize) -> Step {
    let place = |random: &mut Random| match random.index(count + 1) {
        0 => Place::Beginning,
        number => Place::Event(number - 1),
    };
    match random.below(20) {
        0..8 => {
            let events = (0..random.range(1..4)).map(|part| random_event(random, step * 10 + part));
            let events: Vec<Event> = events.collect();
            // A key is sometimes used again, for the same publish or another one. A publish with
            // another number of events has another digest.
            let key = random.one_in(3).then(|| Idempotency {
                key: format!("key{}", random.below(5)),
                digest: (events.len() * 2) as u128 + u128::from(random.below(2)),
            });
            Step::Publish { events, key }
        }
        8 if random.one_in(3) => Step::Close,
        8..13 => {
            let after = place(random);
            Step::Read { after, limit: random.range(1..8) as usize }
        }
        13..15 => Step::Back(random.below(8)),
        15..17 if count > 0 => Step::Before(random.index(count)),
        17..19 => Step::State,
        _ => Step::LogState,
    }
}

/// Carries out the steps of a seed on the model and on a store.
async fn compare(seed: u64, real: Subject, retain: u64) {
    let model = Side::Model(Redis::new(Arc::new(VirtualTime::new()), retain as usize));
    let mut sides = [model, Side::Real(real)].map(|side| Numbered {
        side,
        ids: HashMap::new(),
        heard: Vec::new(),
    });
    for number in 0..STEPS {
        let mut random = Random::of(seed, "step", number);
        let channel = channel_name(random.below(CHANNELS));
        let count = sides[0].ids.get(&channel).map_or(0, Vec::len);
        let step = random_step(&mut random, number, count);
        if matches!(step, Step::Publish { .. } | Step::Close) {
            tokio::time::sleep(PAUSE).await;
        }
        let [model, real] = &mut sides;
        let expected = model.carry_out(&channel, &step).await;
        let answer = real.carry_out(&channel, &step).await;
        assert_eq!(answer, expected, "seed {seed}, step {number}, {channel}: {step:?}");
    }
    let [model, real] = &mut sides;
    assert_eq!(real.appended().await, model.appended().await, "seed {seed}");
}

#[tokio::test]
async fn the_model_answers_like_the_memory_store() {
    for seed in 0..SEEDS {
        let limits = Limits { retain_events: FEW, ..LIMITS };
        compare(seed, local(Backing::Memory, limits), FEW).await;
    }
}

#[tokio::test]
async fn the_model_answers_like_the_disk_store() {
    for seed in 0..SEEDS {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { retain_events: FEW, ..LIMITS };
        compare(seed, local(Backing::Directory(directory.path().to_owned()), limits), FEW).await;
    }
}

#[tokio::test]
async fn the_model_answers_like_redis() {
    let server = RedisServer::start();
    for seed in 0..SEEDS {
        let real = redis(server.url(), &format!("model{seed}"), LIMITS).await;
        compare(seed, real, LIMITS.retain_events).await;
    }
}
