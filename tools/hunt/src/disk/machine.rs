//! A machine with a disk, on which the store runs.

use super::checker::{CHANNELS, Model, Served, Unclear};
use super::files::{Disk, Faults};
use crate::random::Random;
use crate::time::ManualTime;
use futures_util::FutureExt;
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, StoredEvent};
use headwater::store::local::stepped::Steps;
use headwater::store::local::{LocalConfig, LocalStore};
use headwater::store::{
    EventSink, Idempotency, Limits, PageLimit, Publication, Published, Store, StoreError,
};
use headwater::sync::clock::Clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ALL: PageLimit = PageLimit { events: 100_000, bytes: 1 << 30 };
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// A command for the store.
pub enum Write {
    Publish(Unclear),
    Close(Unclear),
    Erase(Unclear),
    Reopen(Unclear),
}

/// Keeps what the store passes on.
#[derive(Default)]
struct Recorder(Mutex<Vec<(ChannelName, Vec<StoredEvent>)>>);

/// A machine, the store on it, and what the store has to have.
pub struct Machine {
    pub disk: Disk,
    pub time: Arc<ManualTime>,
    pub model: Model,
    pub history: Vec<String>,
    file_bytes: u64,
    /// Whether syncs may report success without an effect.
    is_lying: bool,
    has_failed: bool,
    running: Option<Running>,
    writes: Vec<Unclear>,
}

struct Running {
    store: LocalStore,
    steps: Steps,
    recorder: Arc<Recorder>,
}

type Answer = Result<(Vec<EventId>, bool), StoreError>;

impl EventSink for Recorder {
    fn appended(&self, channel: &ChannelName, _: EventId, events: &[StoredEvent]) {
        self.0.lock().push((channel.clone(), events.to_vec()));
    }

    fn lost_place(&self) {}
}

impl Write {
    fn into_unclear(self) -> Unclear {
        match self {
            Self::Publish(write)
            | Self::Close(write)
            | Self::Erase(write)
            | Self::Reopen(write) => write,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Close(_) => "close",
            Self::Erase(_) => "erase",
            Self::Reopen(_) => "reopen",
        }
    }
}

/// Returns the name of a channel. All names in a simulation are valid.
fn name(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| error.to_string())
}

impl Machine {
    pub fn new(file_bytes: u64, retain: usize, is_lying: bool) -> Self {
        Self {
            disk: Disk::new(),
            time: Arc::new(ManualTime::new(0, 0)),
            model: Model::new(retain),
            history: Vec::new(),
            file_bytes,
            is_lying,
            has_failed: false,
            running: None,
            writes: Vec::new(),
        }
    }

    /// Adds a line to the history.
    pub fn say(&mut self, line: String) {
        let ms = self.time.passed_ms();
        for told in self.disk.take_told() {
            self.history.push(format!("{ms:>7} ms  disk: {told}"));
        }
        self.history.push(format!("{ms:>7} ms  {line}"));
    }

    /// Returns an earlier publish with an idempotency key, to send it again.
    pub fn earlier_write(&self, random: &mut Random) -> Option<Unclear> {
        self.writes.get(random.index(self.writes.len())).cloned()
    }

    /// Opens the log. Returns why it cannot be opened.
    pub fn open_or_fail(&mut self, random: Random) -> Option<String> {
        self.disk.begin(random, Faults::default());
        let config = LocalConfig {
            timeout: Duration::from_secs(60),
            reserve: 0,
            file_bytes: self.file_bytes,
        };
        let limits = Limits {
            retain_events: self.model.retain as u64,
            retain_age: MONTH,
            channel_idle: MONTH,
            idempotency_age: MONTH,
            ..Limits::default()
        };
        let clock = Clock::simulated(self.time.clone());
        let recorder = Arc::new(Recorder::default());
        let files = Arc::new(self.disk.clone());
        let opened = LocalStore::open_stepped(files, config, limits, clock, recorder.clone());
        match opened {
            Ok((store, steps)) => {
                self.say("the log is opened".to_owned());
                self.running = Some(Running { store, steps, recorder });
                None
            }
            Err(error) => {
                self.say(format!("the log cannot be opened: {error}"));
                Some(error.to_string())
            }
        }
    }

    /// Opens the log, and checks what it serves.
    pub async fn open(&mut self, random: Random) -> Result<(), String> {
        if let Some(why) = self.open_or_fail(random) {
            // A disk that lied may leave files that cannot be opened; the error says so.
            let is_told = self.has_lied();
            let why = format!("the log cannot be opened after a crash: {why}");
            return is_told.then_some(()).ok_or(why);
        }
        if !self.has_lied() {
            self.erase_again().await?;
        }
        let served = self.serve().await?;
        if self.has_lied() {
            return self.model.damaged(&served, true);
        }
        self.model.reopened(&served)
    }

    /// Repeats the deletions whose outcome is not known, as an operator has to. Such a deletion may
    /// be stored in part.
    async fn erase_again(&mut self) -> Result<(), String> {
        let erasures = self.model.unclear.iter().filter(|write| write.erases);
        let erasures: BTreeMap<_, _> = erasures.map(|of| (of.channel, of.clone())).collect();
        for (channel, erasure) in erasures {
            self.model.forget_unclear(channel);
            self.writes.retain(|write| write.channel != channel);
            self.write(vec![Write::Erase(erasure)]).await?;
        }
        Ok(())
    }

    /// Whether the power has failed after a sync that did nothing. Then nobody can know what is
    /// missing, and the run is over.
    pub fn has_lied(&self) -> bool {
        self.is_lying && self.has_failed
    }

    /// Ends the process without a warning, and cuts the power.
    pub fn fail_power(&mut self, random: &mut Random) {
        self.running = None;
        self.has_failed = true;
        self.say("the power fails".to_owned());
        self.disk.restart(random);
    }

    /// Kills the process. The machine runs on.
    pub fn kill(&mut self) {
        self.running = None;
        self.disk.end_process();
        self.say("the process is killed".to_owned());
    }

    /// Stops the process as `SIGTERM` does.
    pub fn stop(&mut self) {
        if let Some(Running { steps, .. }) = self.running.take() {
            steps.stop();
        }
        self.disk.end_process();
        self.say("the process is stopped".to_owned());
    }

    /// Sends commands to the store, all before the next commit.
    pub async fn write(&mut self, writes: Vec<Write>) -> Result<(), String> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let answers = running.write(&writes)?;
        for (write, answer) in writes.into_iter().zip(answers) {
            self.note(write, answer)?;
        }
        let shown = std::mem::take(&mut *running.recorder.0.lock());
        self.running = Some(running);
        for (channel, events) in shown {
            let known = CHANNELS.into_iter().find(|known| *known == channel.as_str());
            let is_safe = |known: &&str| {
                self.model.channels.get(known).is_some_and(|channel| {
                    let is_stored = |event: &StoredEvent| {
                        event.id < channel.erased || channel.log.contains(event)
                    };
                    events.iter().all(is_stored)
                })
            };
            let Some(known) = known.filter(is_safe) else {
                return Err(format!("readers of {channel} were shown an event before it was safe"));
            };
            self.model.showed(known, &events);
        }
        Ok(())
    }

    fn note(&mut self, write: Write, answer: Answer) -> Result<(), String> {
        let verb = write.verb();
        let is_close = matches!(write, Write::Close(_));
        let write = write.into_unclear();
        let (name, count) = (write.channel, write.events.len());
        let key = write.key.clone().map_or_else(String::new, |key| format!(", key {key:?}"));
        let what = match verb {
            "publish" => format!("publish {count} to {name}{key}"),
            _ => format!("{verb} {name}"),
        };
        let said = match &answer {
            Ok((ids, repeated)) => {
                let first = ids.first().map_or_else(|| "done".to_owned(), EventId::to_string);
                let last = ids.last().filter(|_| ids.len() > 1);
                let last = last.map_or_else(String::new, |last| format!(" to {last}"));
                format!("{first}{last}{}", if *repeated { " (repeated)" } else { "" })
            }
            Err(error) => error.to_string(),
        };
        self.say(format!("{what}: {said}"));
        if write.key.is_some() && self.writes.iter().all(|known| known.key != write.key) {
            self.writes.push(write.clone());
        }
        let channel = self.model.channels.get(name).cloned().unwrap_or_default();
        match answer {
            Ok(_) if write.reopens => {
                self.model.channels.entry(name).or_default().is_closed = false;
                Ok(())
            }
            Ok((ids, _)) if is_close && channel.is_closed => {
                let end = channel.log.iter().rev().find(|stored| stored.event.is_end());
                let is_same = end.is_some_and(|end| ids == [end.id]);
                is_same.then_some(()).ok_or(format!("{name} has ended, and {ids:?} is not its end"))
            }
            Ok((ids, repeated)) => self.model.acknowledged(write, &ids, repeated),
            Err(StoreError::Unclear(_)) => {
                self.model.unclear.push(write);
                Ok(())
            }
            // An end whose commit failed may have come before it.
            Err(StoreError::Closed) if !channel.is_closed && !self.model.may_end(name) => {
                Err(format!("{name} has not ended, and refuses a publish"))
            }
            Err(StoreError::NoChannel) if channel.exists => {
                Err(format!("{name} exists, and is not known"))
            }
            Err(error @ (StoreError::KeyReused | StoreError::Limit { .. })) => {
                Err(format!("{what} is refused: {error}"))
            }
            Err(_) => Ok(()),
        }
    }

    /// Drops what is too old.
    pub async fn sweep(&mut self) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        running.store.sweep().await;
        while running.steps.write() {}
        self.say("a sweep".to_owned());
        Ok(())
    }

    /// Does the work of the maintenance thread.
    pub fn maintain(&mut self) {
        let Some(running) = &mut self.running else { return };
        while running.steps.maintain() {}
        self.say("indexes are made and files are compacted".to_owned());
    }

    /// Compares what a reader sees now with what has to be there.
    pub async fn check(&mut self) -> Result<(), String> {
        let served = match self.serve().await {
            Ok(served) => served,
            // A read may fail while the disk does; it must not be wrong.
            Err(error) if error.contains("EIO") => return Ok(()),
            Err(error) => return Err(error),
        };
        self.say("everything is read".to_owned());
        self.model.check(&served)
    }

    /// Damages the files of a stopped log, and checks that the losses are announced and that nothing wrong is
    /// served.
    pub async fn damage(&mut self, random: &mut Random) -> Result<(), String> {
        self.stop();
        for _ in 0..random.choose(&[1, 1, 1, 3]) {
            if let Some(damaged) = self.disk.damage(random) {
                self.say(damaged);
            }
        }
        if let Some(why) = self.open_or_fail(random.clone()) {
            let is_named = why.contains("the file \"log\"");
            return is_named.then_some(()).ok_or(format!("the log is refused: {why}"));
        }
        let served = self.serve().await?;
        self.model.damaged(&served, false)?;
        self.stop();
        if let Some(why) = self.open_or_fail(random.clone()) {
            return Err(format!("the repaired log cannot be opened: {why}"));
        }
        let again = self.serve().await?;
        for (name, before) in &served {
            // Events that were dropped may come back, until they are dropped again.
            let after = &again[name].events;
            if !after.ends_with(&before.events) && !before.events.ends_with(after) {
                return Err(format!("{name} is not the same after a restart"));
            }
        }
        Ok(())
    }

    async fn serve(&self) -> Result<BTreeMap<&'static str, Served>, String> {
        let mut served = BTreeMap::new();
        let Some(running) = &self.running else { return Ok(served) };
        for channel in CHANNELS {
            let read = running.serve(&name(channel)?).await;
            served.insert(channel, read.map_err(|error| format!("{channel}: {error}"))?);
        }
        Ok(served)
    }
}

impl Running {
    fn write(&mut self, writes: &[Write]) -> Result<Vec<Answer>, String> {
        let Self { store, steps, .. } = self;
        let mut waiting = Vec::new();
        for write in writes {
            let mut answer = Box::pin(send(store, write));
            // The first poll puts the command into the queue of the writer.
            let early = answer.as_mut().now_or_never();
            waiting.push((answer, early));
        }
        while steps.write() {}
        let mut answers = Vec::new();
        for (mut answer, early) in waiting {
            let said = early.or_else(|| answer.as_mut().now_or_never());
            answers.push(said.ok_or("a publish is never answered")?);
        }
        Ok(answers)
    }

    async fn serve(&self, name: &ChannelName) -> Result<Served, StoreError> {
        let page = self.store.read(name, EventId::START, ALL).await?;
        let latest = EventId { ms: u64::MAX, seq: 0 };
        let back = self.store.read_back(name, latest, ALL).await?;
        if back.events != page.events {
            return Err(StoreError::Unclear("both directions are not the same".to_owned()));
        }
        let state = self.store.state(name).await?;
        let log_state = self.store.log_state(name).await?;
        Ok(Served { events: page.events, state: state.events, log_state })
    }
}

async fn send(store: &LocalStore, write: &Write) -> Answer {
    let (Write::Publish(of) | Write::Close(of) | Write::Erase(of) | Write::Reopen(of)) = write;
    let channel = name(of.channel).map_err(StoreError::Down)?;
    match write {
        Write::Publish(of) => {
            let key = of.key.clone();
            let idempotency = key.map(|key| Idempotency { key, digest: 1 });
            let publication = Publication { channel, events: of.events.clone(), idempotency };
            let Published { ids, repeated } = store.publish(publication).await?;
            Ok((ids, repeated))
        }
        Write::Close(_) => Ok((vec![store.close(&channel).await?], false)),
        Write::Erase(_) => Ok((vec![store.erase(&channel).await?], false)),
        Write::Reopen(_) => store.reopen(&channel).await.map(|()| (Vec::new(), false)),
    }
}
