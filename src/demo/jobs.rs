//! Background jobs: a worker reads commands from the channel `jobs.commands`, and publishes the
//! progress of each job to the channel `jobs`, under a key of its own.
//!
//! A command is `{"start": "report"}` with the name of a kind, or `{"retry": "job-…"}` with the key
//! of a job that has failed. The key of a job is made from the id of its command, so a command that
//! is read twice starts one job. After a restart the worker goes on with the jobs of the state.

use super::{channel, key_of, patiently, publish, remove, set, state};
use crate::core::cursor::EventId;
use crate::core::event::Event;
use crate::hub::Hub;
use crate::store::{PageLimit, StoreError};
use crate::sync::random::random;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

const CHANNEL: &str = "jobs";
const COMMANDS: &str = "jobs.commands";
const TICK: Duration = Duration::from_millis(400);
/// Most commands that are read in one tick.
const COMMANDS_PER_TICK: PageLimit = PageLimit { events: 20, bytes: 64 * 1024 };
/// Most jobs that run at the same time; the others wait.
const RUNNING_MAX: usize = 4;
/// Most jobs that wait or run. A command over that makes a job that has failed at once.
const UNFINISHED_MAX: usize = 12;
/// Most jobs of the state. The oldest finished ones are removed.
const KEPT_MAX: usize = 16;
const ATTEMPTS_MAX: u32 = 3;
/// The pause before the second attempt, in ticks. The pause before the third is twice as long.
const RETRY_TICKS: u32 = 5;
/// A job is started by the worker itself after so many ticks without one that runs.
const IDLE_TICKS: u32 = 10;

/// What a job can do.
struct Kind {
    name: &'static str,
    title: &'static str,
    steps: u32,
    /// The probability, in percent, that one step fails.
    failing: u64,
}

const KINDS: [Kind; 3] = [
    Kind { name: "report", title: "Export a report", steps: 20, failing: 2 },
    Kind { name: "photos", title: "Resize 24 photos", steps: 24, failing: 0 },
    Kind { name: "letters", title: "Send 12 letters (often fails)", steps: 12, failing: 14 },
];

/// A command of a visitor.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    Start(String),
    Retry(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Waiting,
    Running,
    /// An attempt has failed, and the next one begins after a pause.
    Retrying,
    Done,
    Failed,
}

/// A job, as it is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    job: String,
    /// The instant of its command, in ms since the epoch.
    at: u64,
    kind: String,
    title: String,
    status: Status,
    done: u32,
    steps: u32,
    attempt: u32,
    attempts: u32,
    /// For a person: why the last attempt failed.
    note: String,
    /// The ticks until the next attempt.
    #[serde(default)]
    pause: u32,
}

/// The jobs of the state, the oldest first.
#[derive(Debug, Default)]
struct Jobs {
    all: Vec<Job>,
    idle: u32,
}

/// Works for as long as the future is polled.
pub async fn run(hub: &Hub) {
    let (mut jobs, mut position) = patiently(|| Box::pin(restore(hub))).await;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let read =
            || async move { hub.read(&channel(COMMANDS)?, position, COMMANDS_PER_TICK).await };
        let page = patiently(|| Box::pin(read())).await;
        let mut events = Vec::new();
        for stored in page.events {
            position = stored.id;
            if let Ok(command) = serde_json::from_str(&stored.event.data) {
                events.extend(jobs.apply(command, stored.id));
            }
        }
        events.extend(jobs.tick(&mut random, hub.clock().now()));
        if !events.is_empty() {
            publish(hub, CHANNEL, events).await;
        }
    }
}

/// Returns the jobs of the state, and the position of the last command that was read. Without a job
/// none was read, also if commands were published before the worker started.
async fn restore(hub: &Hub) -> Result<(Jobs, EventId), StoreError> {
    let kept = state(hub, CHANNEL).await?;
    let keys = kept.events.iter().map(|stored| key_of(&stored.event));
    let last = keys.filter_map(|key| EventId::parse(key.strip_prefix("job-")?).ok()).max();
    let jobs = kept.events.iter();
    let mut all: Vec<Job> =
        jobs.filter_map(|stored| serde_json::from_str(&stored.event.data).ok()).collect();
    all.sort_by_key(|job| job.at);
    Ok((Jobs { all, ..Jobs::default() }, last.unwrap_or(EventId::START)))
}

/// The key of the job that the command with this id starts.
fn key(id: EventId) -> String {
    format!("job-{id}")
}

impl Jobs {
    /// Does what a command says. A command that makes no sense is ignored.
    fn apply(&mut self, command: Command, id: EventId) -> Option<Event> {
        match command {
            Command::Start(kind) => {
                let kind = KINDS.iter().find(|one| one.name == kind)?;
                let is_new = self.all.iter().all(|job| job.job != key(id));
                is_new.then(|| self.start(kind, id))
            }
            Command::Retry(key) => {
                let is_full = self.unfinished() >= UNFINISHED_MAX;
                let has_failed = |job: &&mut Job| job.job == key && job.status == Status::Failed;
                let job = self.all.iter_mut().find(has_failed).filter(|_| !is_full)?;
                (job.status, job.done, job.attempt) = (Status::Waiting, 0, 0);
                job.note.clear();
                Some(job.event())
            }
        }
    }

    fn start(&mut self, kind: &Kind, id: EventId) -> Event {
        let mut job = Job {
            job: key(id),
            at: id.ms,
            kind: kind.name.to_owned(),
            title: kind.title.to_owned(),
            status: Status::Waiting,
            done: 0,
            steps: kind.steps,
            attempt: 0,
            attempts: ATTEMPTS_MAX,
            note: String::new(),
            pause: 0,
        };
        if self.unfinished() >= UNFINISHED_MAX {
            job.status = Status::Failed;
            job.note = format!("{UNFINISHED_MAX} jobs wait or run already. Retry later.");
        }
        self.all.push(job.clone());
        job.event()
    }

    /// Lets a tick pass, and returns the events of all changes.
    fn tick(&mut self, random: &mut impl FnMut() -> u64, now: u64) -> Vec<Event> {
        let mut events = Vec::new();
        self.idle = if self.unfinished() == 0 { self.idle + 1 } else { 0 };
        if self.idle > IDLE_TICKS {
            let kind = &KINDS[random() as usize % KINDS.len()];
            events.push(self.start(kind, EventId { ms: now, seq: 0 }));
        }
        let is_active = |job: &Job| matches!(job.status, Status::Running | Status::Retrying);
        let mut free =
            RUNNING_MAX.saturating_sub(self.all.iter().filter(|job| is_active(job)).count());
        for job in &mut self.all {
            if job.status == Status::Waiting && free > 0 {
                free -= 1;
                (job.status, job.attempt) = (Status::Running, 1);
                events.push(job.event());
            } else if job.advance(random()) {
                events.push(job.event());
            }
        }
        events.extend(self.forget());
        events
    }

    fn unfinished(&self) -> usize {
        self.all.iter().filter(|job| !job.is_finished()).count()
    }

    /// Removes the oldest finished jobs until few enough are left.
    fn forget(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while self.all.len() > KEPT_MAX {
            let Some(oldest) = self.all.iter().position(Job::is_finished) else { break };
            events.push(remove(&self.all.remove(oldest).job));
        }
        events
    }
}

impl Job {
    fn is_finished(&self) -> bool {
        matches!(self.status, Status::Done | Status::Failed)
    }

    /// Does a step, if the job runs. The result is whether something that is shown has changed.
    fn advance(&mut self, random: u64) -> bool {
        match self.status {
            Status::Retrying if self.pause > 0 => {
                self.pause -= 1;
                return false;
            }
            Status::Retrying => {
                (self.status, self.done) = (Status::Running, 0);
                self.attempt += 1;
            }
            Status::Running => self.work(random % 100),
            Status::Waiting | Status::Done | Status::Failed => return false,
        }
        true
    }

    fn work(&mut self, percent: u64) {
        let failing =
            KINDS.iter().find(|kind| kind.name == self.kind).map_or(0, |kind| kind.failing);
        if percent >= failing {
            self.done += 1;
            self.status = if self.done >= self.steps { Status::Done } else { Status::Running };
            return;
        }
        self.note = format!("Attempt {} failed at step {}.", self.attempt, self.done + 1);
        self.status = if self.attempt < self.attempts { Status::Retrying } else { Status::Failed };
        self.pause = RETRY_TICKS * self.attempt;
    }

    fn event(&self) -> Event {
        set(&self.job, json!(self).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn start(jobs: &mut Jobs, number: u64) {
        let command = Command::Start("letters".to_owned());
        assert!(jobs.apply(command, id(number)).is_some());
    }

    #[test]
    fn few_jobs_run_the_others_wait_and_the_state_stays_small() {
        let mut jobs = Jobs::default();
        for number in 0..200 {
            start(&mut jobs, number);
            jobs.tick(&mut || 99, 0);
            let running = jobs.all.iter().filter(|job| job.status == Status::Running).count();
            assert!(running <= RUNNING_MAX && jobs.unfinished() <= UNFINISHED_MAX);
            assert!(jobs.all.len() <= KEPT_MAX);
        }
        let again = Command::Start("letters".to_owned());
        assert!(jobs.apply(again, id(199)).is_none(), "a command that is read twice");
        assert!(jobs.apply(Command::Start("rm -rf".to_owned()), id(200)).is_none());
    }

    #[test]
    fn a_job_that_fails_is_tried_three_times_and_can_be_started_again() {
        let mut jobs = Jobs::default();
        start(&mut jobs, 1);
        let mut seen = vec![];
        for _ in 0..100 {
            jobs.tick(&mut || 0, 0);
            if seen.last() != Some(&(jobs.all[0].status, jobs.all[0].attempt)) {
                seen.push((jobs.all[0].status, jobs.all[0].attempt));
            }
            if jobs.all[0].is_finished() {
                break;
            }
        }
        use Status::{Failed, Retrying, Running};
        assert_eq!(
            seen,
            [(Running, 1), (Retrying, 1), (Running, 2), (Retrying, 2), (Running, 3), (Failed, 3)]
        );
        assert!(jobs.apply(Command::Retry("job-1-0".to_owned()), id(2)).is_some());
        for _ in 0..100 {
            jobs.tick(&mut || 99, 0);
        }
        assert_eq!((jobs.all[0].status, jobs.all[0].attempt), (Status::Done, 1));
    }
}
