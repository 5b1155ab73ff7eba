//! The checks of `headwater doctor`, in the order in which they run.

mod probes;

use super::DoctorArguments;
use super::findings::{Fault, Finding, Report};
use super::probe::{End, NO_ANSWER, OriginReport, PATIENCE, Probe, ProbeRequest, SegmentBlock};
use super::subscribers::{ClientTrace, Subscribers};
use crate::client::http::{self, Address, Connection, HttpError};
use crate::core::cursor::{Cursor, EventId};
use crate::core::segment::SEGMENT_MS;
use crate::sync::random::random;
use hyper::{Method, Version};
use indicatif::ProgressBar;
use probes::stranger;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Number of steps, for the progress bar.
pub const STEPS: u64 = 8;
/// Latest arrival of the first block of a stream that is not buffered. A buffered block arrives at
/// the end of its stream, as a rule two seconds or more after the request.
const FIRST_BLOCK_MAX: Duration = Duration::from_millis(1_500);
/// Number of probes; the pause between two is longer than nginx's polling, so they arrive singly.
const PROBES: u64 = 6;
const PROBE_PAUSE: Duration = Duration::from_millis(700);
/// Largest acceptable median delay of events, in streams and in long polls.
const DELAY_MAX: Duration = Duration::from_millis(500);
const DELAY_LONG_POLL_MAX: Duration = Duration::from_secs(1);
/// Number of subscribers, which follow the channel during the whole examination.
const WATCHERS: usize = 5;
/// Time after the end of a segment by which no cache may hand out its responses any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);
/// Most responses that a client may open within a second, with a reserve of two for disconnects.
const OPENED_A_SEGMENT_MAX: usize = 4;
/// Least remaining freshness, in seconds, for a check whether a cache keeps a response.
const FRESH_MIN: u64 = 3;
/// One examination: its settings, and its report so far.
pub struct Checks {
    arguments: DoctorArguments,
    path: String,
    /// The position of all cursors of this examination, which differ only in their marks.
    base: EventId,
    run: u64,
    marks: u64,
    report: Report,
}

impl Checks {
    /// Runs all checks, and returns the report.
    ///
    /// # Errors
    /// Fails when a server gives no response that could be examined.
    pub async fn run(
        mut arguments: DoctorArguments,
        progress: ProgressBar,
    ) -> Result<Report, HttpError> {
        // Where no progress bar can be drawn, a line for each step shows the progress.
        let step = |text: &'static str| {
            progress.inc(1);
            progress.set_message(text);
            if progress.is_hidden() {
                eprintln!("headwater: {text} ({} of {STEPS})", progress.position());
            }
        };
        let run = random() >> 12;
        let path = format!("/channels/{}", arguments.channel);
        let token = arguments.token.take();
        arguments.publish_url = arguments.publish_url.map(|url| url.with_token(token));
        let report = Report::default();
        let mut checks =
            Self { arguments, path, base: EventId::START, run, marks: run % 1_000_000_000, report };
        let before = checks.origin_streams().await?;
        step("looking for a place to begin");
        checks.find_base().await?;
        step("asking once");
        let Some(report) = checks.first_probe().await? else { return Ok(checks.report) };
        step("many clients at once");
        let kept = checks.cohort(&report).await?;
        let cursor = checks.cursor();
        let address = checks.arguments.url.clone();
        let subscribers = Subscribers::start(&address, &checks.path, Some(&cursor), WATCHERS, run);
        step("asking with a query");
        checks.query().await?;
        step("asking for what fails");
        checks.fault().await?;
        checks.preflight().await?;
        step("publishing probes");
        checks.probes(&subscribers, report.is_long_poll).await?;
        step("waiting for the segment to end");
        checks.boundary(kept, report.is_long_poll).await?;
        step("comparing what the clients received");
        checks.traces(&subscribers.traces(), report.is_long_poll);
        if let (Some(before), Some(after)) = (before, checks.origin_streams().await?) {
            // The counter of the origin begins at zero again after a restart.
            checks.measure("origin_streams_opened", after.saturating_sub(before));
        }
        Ok(checks.report)
    }

    /// A cursor that no other client has: its mark moves no position, but is part of the cache key.
    fn cursor(&mut self) -> String {
        self.marks += 1;
        Cursor { positions: vec![self.base], mark: Some(self.marks) }.to_string()
    }

    fn find(&mut self, fault: Fault, seen: impl Into<String>) {
        if self.report.findings.iter().all(|finding| finding.fault != fault) {
            self.report.findings.push(Finding { fault, seen: seen.into() });
        }
    }

    fn measure(&mut self, name: &'static str, value: impl Into<Value>) {
        self.report.measured.retain(|(known, _)| *known != name);
        self.report.measured.push((name, value.into()));
    }

    /// Chooses the position of the cursors. With a publisher it lies just before an event of this
    /// checks, so that long polls after it are answered at once.
    async fn find_base(&mut self) -> Result<(), HttpError> {
        match self.publish(0).await {
            Ok(Some(id)) => {
                self.base = before(id);
                return Ok(());
            }
            Ok(None) => {}
            Err(HttpError(why)) => {
                self.find(Fault::ProbeRefused, why);
                self.report.skipped.push("delays and order of events".to_owned());
                self.arguments.publish_url = None;
            }
        }
        let ask = ProbeRequest { path: self.path.clone(), ..ProbeRequest::default() };
        let mut probe = Probe::at(&self.arguments.url, &ask).await?;
        if probe.shed().is_some() {
            return Ok(());
        }
        while let Some((block, _)) = probe.opening().await {
            let cursor = block.cursor.and_then(|text| Cursor::parse(&text).ok());
            if let Some(position) = cursor.and_then(|cursor| cursor.positions.first().copied()) {
                self.base = position;
                break;
            }
        }
        Ok(())
    }

    /// Publishes a probe, and returns its id, or `None` without a publisher.
    async fn publish(&self, number: u64) -> Result<Option<EventId>, HttpError> {
        let Some(address) = &self.arguments.publish_url else { return Ok(None) };
        let mut connection = Connection::open(address).await?;
        let request = connection.request(Method::POST, &format!("{}?event=doctor", self.path));
        let body = json!({ "headwater_doctor": self.run, "number": number }).to_string();
        let answer = connection.send(request, body.into()).await?;
        let status = answer.status();
        let text = http::text(answer).await?;
        let id: Option<Value> = serde_json::from_str(&text).ok();
        let id = id.and_then(|answer| EventId::parse(answer["id"].as_str()?).ok());
        match id {
            Some(id) if status.is_success() => Ok(Some(id)),
            _ => Err(HttpError(format!("{address} does not take a probe: {status} {text}"))),
        }
    }

    /// Sends one request with all headers that a cache should drop, and examines the response.
    async fn first_probe(&mut self) -> Result<Option<OriginReport>, HttpError> {
        let headers = vec![
            ("cookie", "headwater-doctor=1".to_owned()),
            ("accept-encoding", "gzip, deflate, br".to_owned()),
            ("origin", stranger(&self.arguments.url).to_owned()),
        ];
        let cursor = self.cursor();
        let ask = ProbeRequest { path: self.path.clone(), cursor: Some(cursor.clone()), headers };
        let mut probe = match Probe::at(&self.arguments.url, &ask).await {
            Err(HttpError(why)) if why.contains(NO_ANSWER) => {
                self.find(Fault::Buffering, why);
                return Ok(None);
            }
            probe => probe?,
        };
        self.measure("http_version", format!("{:?}", probe.version));
        if let Some(reason) = probe.shed() {
            let (fault, seen) = match reason {
                "edge" => (Fault::OriginUnreachable, "the edge has no answer of the origin".into()),
                _ => (Fault::Shed, format!("the origin has no stream for now: {reason}")),
            };
            self.find(fault, seen);
            return Ok(None);
        }
        if !probe.is_stream() {
            let kind = probe.header("content-type").unwrap_or("no content type");
            let seen = format!("the answer to {} is {} with {kind}", self.path, probe.status);
            self.find(Fault::NotAStream, seen);
            return Ok(None);
        }
        self.headers(&probe);
        let Some(report) = probe.report() else { return Ok(None) };
        self.measure("mode", if report.is_long_poll { "hold" } else { "stream" });
        if report.http == "1.0" {
            self.find(Fault::Http10, "the origin is asked in HTTP/1.0");
        }
        if report.cookie && !self.arguments.direct {
            self.find(Fault::Cookies, "a cookie reached the origin");
        }
        if let Some(encoding) = probe.encoding() {
            self.find(Fault::Compression, format!("the stream is compressed ({encoding})"));
            // A second request without `Accept-Encoding` gets a stream that can be read.
            let cursor = self.cursor();
            let ask = ProbeRequest {
                path: self.path.clone(),
                cursor: Some(cursor.clone()),
                headers: vec![],
            };
            let mut plain = Probe::at(&self.arguments.url, &ask).await?;
            self.opening(&mut plain, &cursor, Fault::KeyWithoutCursor, &report).await;
        } else {
            self.opening(&mut probe, &cursor, Fault::KeyWithoutCursor, &report).await;
        }
        Ok(Some(report))
    }

    fn headers(&mut self, probe: &Probe) {
        let control = probe.headers.get_all("cache-control").iter();
        let control: Vec<_> = control.filter_map(|value| value.to_str().ok()).collect();
        let control = control.join(", ");
        let is_ours = ["public", "max-age="].iter().all(|ours| control.contains(ours))
            && control.split(',').map(str::trim).all(|directive| {
                let seconds = directive.strip_prefix("max-age=");
                ["public", "no-transform"].contains(&directive)
                    || seconds.is_some_and(|seconds| seconds.parse::<u64>().is_ok())
            });
        if !is_ours {
            self.find(Fault::Rewritten, format!("Cache-Control is {control}"));
        }
        if probe.header("headwater-response").is_none() {
            let seen = "Headwater-Response is missing: the edge drops it, or this is no Headwater";
            self.find(Fault::Rewritten, seen);
        }
        if probe.header("set-cookie").is_some() {
            self.find(Fault::Rewritten, "the stream sets a cookie");
        }
        if probe.header("access-control-allow-origin").is_none() {
            let page = stranger(&self.arguments.url);
            self.find(Fault::Cors, format!("pages of {page} may not read the stream"));
        }
        if probe.version < Version::HTTP_2 && self.arguments.url.is_tls() {
            self.find(Fault::Http11, "the edge offers no HTTP/2");
        }
    }

    /// Reads the opening block, and checks that it came at once and has the requested cursor.
    async fn opening(
        &mut self,
        probe: &mut Probe,
        cursor: &str,
        otherwise: Fault,
        report: &OriginReport,
    ) -> Option<SegmentBlock> {
        let Some((block, after)) = probe.opening().await else {
            let seen = format!("nothing of a stream came within {} s", PATIENCE.as_secs());
            self.find(Fault::Buffering, seen);
            return None;
        };
        if !report.is_long_poll && after > FIRST_BLOCK_MAX {
            let seen =
                format!("the first block of a stream came after {:.1} s", after.as_secs_f64());
            self.find(Fault::Buffering, seen);
        }
        if self.report.measured.iter().all(|(name, _)| *name != "first_block_ms") {
            self.measure("first_block_ms", after.as_millis() as u64);
        }
        if block.cursor.as_deref() != Some(cursor) {
            let answered = block.cursor.as_deref().unwrap_or("none");
            let seen =
                format!("asked for what comes after {cursor}, got what comes after {answered}");
            self.find(otherwise, seen);
        }
        Some(block)
    }

    /// Sends one request from many clients, and returns one response, to be watched to its end.
    /// Repeats this if the segment ends too soon to check how long the cache keeps responses.
    async fn cohort(&mut self, report: &OriginReport) -> Result<Kept, HttpError> {
        let mut kept = self.cohort_once(report).await?;
        let is_late = kept.probe.fresh_seconds().is_some_and(|seconds| seconds < FRESH_MIN);
        if is_late && !report.is_long_poll && !self.arguments.direct {
            kept.probe.end(Instant::now() + PATIENCE).await;
            kept = self.cohort_once(report).await?;
        }
        self.still_kept(&kept).await?;
        Ok(kept)
    }

    async fn cohort_once(&mut self, report: &OriginReport) -> Result<Kept, HttpError> {
        let cursor = self.cursor();
        let mut probes = JoinSet::new();
        for index in 0..self.arguments.clients {
            // Browsers send this header. Every fourth client also has a cookie of its own.
            let mut headers = vec![("cache-control", "no-cache".to_owned())];
            if index % 4 == 3 {
                headers.push(("cookie", format!("headwater-doctor={index}")));
            }
            let ask =
                ProbeRequest { path: self.path.clone(), cursor: Some(cursor.clone()), headers };
            let address = self.arguments.url.clone();
            probes.spawn(async move { (index, Probe::at(&address, &ask).await) });
        }
        let (mut names, mut with_cookie, mut first) = (HashSet::new(), HashSet::new(), None);
        while let Some(asked) = probes.join_next().await {
            let (index, probe) = asked.map_err(|error| HttpError(error.to_string()))?;
            let probe = probe?;
            let name = probe.report().map(|report| report.name).unwrap_or_default();
            if index % 4 == 3 {
                with_cookie.insert(name);
            } else {
                names.insert(name);
                first = first.or(Some(probe));
            }
        }
        let all = names.union(&with_cookie).count() as u64;
        let clients = self.arguments.clients;
        self.measure(
            "clients_an_origin_request",
            (clients as f64 / all as f64 * 10.0).round() / 10.0,
        );
        if names.len() as u64 > (clients / 5).max(2) && !self.arguments.direct {
            let seen = format!("{clients} clients with one cursor were {all} origin requests");
            self.find(Fault::NotShared, seen);
        }
        if names.len() == 1 && with_cookie.iter().any(|name| !names.contains(name)) {
            self.find(Fault::Cookies, "clients with a cookie do not share with those without");
        }
        let mut probe = first.ok_or_else(|| HttpError("no client had an answer".to_owned()))?;
        let block = self.opening(&mut probe, &cursor, Fault::KeyWithoutCursor, report).await;
        Ok(Kept { probe, cursor, block })
    }

    /// Checks that the cache keeps a response for as long as its `max-age` allows.
    async fn still_kept(&mut self, kept: &Kept) -> Result<(), HttpError> {
        let probe = &kept.probe;
        let is_shared = |finding: &Finding| finding.fault != Fault::NotShared;
        if self.arguments.direct || !self.report.findings.iter().all(is_shared) {
            return Ok(());
        }
        if probe.fresh_seconds().is_none_or(|seconds| seconds < FRESH_MIN) {
            let skipped = "whether answers are kept as long as they say: the segment is too short";
            self.report.skipped.push(skipped.to_owned());
            return Ok(());
        }
        sleep(Duration::from_secs(FRESH_MIN) / 2).await;
        let cursor = Some(kept.cursor.clone());
        let ask = ProbeRequest { path: self.path.clone(), cursor, headers: vec![] };
        let again = Probe::at(&self.arguments.url, &ask).await?;
        if again.report().map(|report| report.name) != probe.report().map(|report| report.name) {
            self.find(Fault::Ttl, "an answer is given up before its max-age has passed");
        }
        Ok(())
    }

    /// Publishes probes, and measures when they reach the subscribers.
    async fn probes(
        &mut self,
        subscribers: &Subscribers,
        is_long_poll: bool,
    ) -> Result<(), HttpError> {
        if self.arguments.publish_url.is_none() {
            if self.report.skipped.iter().all(|skipped| !skipped.starts_with("delays")) {
                let skipped = "delays and order of events: give --publish-url".to_owned();
                self.report.skipped.push(skipped);
            }
            return Ok(());
        }
        // Once all subscribers have received the first probe, all of them are connected.
        let all_have = |number: u64| {
            let has = |trace: ClientTrace| trace.probes.iter().any(|(came, _)| *came == number);
            subscribers.traces().into_iter().all(has)
        };
        let give_up = Instant::now() + PATIENCE;
        while !all_have(0) && Instant::now() < give_up {
            sleep(Duration::from_millis(50)).await;
        }
        let mut sent = Vec::new();
        for number in 1..=PROBES {
            let at = Instant::now();
            self.publish(number).await?;
            sent.push(at);
            sleep_until(at + PROBE_PAUSE).await;
        }
        let give_up = Instant::now() + PATIENCE;
        while !all_have(PROBES) && Instant::now() < give_up {
            sleep(Duration::from_millis(50)).await;
        }
        self.delays(&subscribers.traces(), &sent, is_long_poll);
        Ok(())
    }

    fn delays(&mut self, traces: &[ClientTrace], sent: &[Instant], is_long_poll: bool) {
        let mut delays: Vec<Duration> = Vec::new();
        for trace in traces {
            let numbers: Vec<u64> = trace.probes.iter().map(|(number, _)| *number).collect();
            let expected: Vec<u64> = (0..=PROBES).collect();
            if numbers != expected {
                self.find(
                    Fault::NotOnce,
                    format!("of probes 0 to {PROBES} a client got {numbers:?}"),
                );
            }
            for (number, came) in trace.probes.iter().filter(|(number, _)| *number > 0) {
                if let Some(sent) = sent.get(*number as usize - 1) {
                    delays.push(came.saturating_duration_since(*sent));
                }
            }
        }
        delays.sort_unstable();
        let Some(median) = delays.get(delays.len() / 2).copied() else { return };
        let longest = delays.last().copied().unwrap_or_default();
        self.measure("event_delay_p50_ms", median.as_millis() as u64);
        self.measure("event_delay_max_ms", longest.as_millis() as u64);
        if median > if is_long_poll { DELAY_LONG_POLL_MAX } else { DELAY_MAX } {
            let seen = format!("half of the events take more than {:.1} s", median.as_secs_f64());
            self.find(Fault::Late, seen);
        }
    }

    /// Checks that a response ends with its segment, and is not handed out after it.
    async fn boundary(&mut self, kept: Kept, is_long_poll: bool) -> Result<(), HttpError> {
        let Kept { mut probe, cursor, block: Some(block) } = kept else { return Ok(()) };
        let Some(ends_at) = block.ends_at else { return Ok(()) };
        if is_long_poll {
            // A cache may keep a finished long poll for a minute, but not that of a fresh join.
            return self.joined_afresh().await;
        }
        let length = ends_at / block.number.saturating_add(1);
        let length = Duration::from_millis(length.min(*SEGMENT_MS.end()));
        self.measure("segment_s", length.as_secs_f64());
        match probe.end(Instant::now() + 2 * length + FORGOTTEN_AFTER).await {
            End::Clean { is_closed: true } => {}
            End::Clean { is_closed: false } => {
                self.find(Fault::Premature, "a stream ended without its closing block");
            }
            End::Broken(why) => self.find(Fault::Premature, format!("a stream was cut: {why}")),
            End::Never => self.find(Fault::Premature, "a stream did not end with its segment"),
        }
        sleep(FORGOTTEN_AFTER).await;
        let ask = ProbeRequest { path: self.path.clone(), cursor: Some(cursor), headers: vec![] };
        let is_replayed = async |address: &Address| {
            let mut again = Probe::at(address, &ask).await?;
            let block = again.opening().await.map(|(block, _)| block);
            Ok::<_, HttpError>(block.is_some_and(|block| block.ends_at == Some(ends_at)))
        };
        let url = self.arguments.url.clone();
        if is_replayed(&url).await? {
            sleep(Duration::from_secs(1)).await;
            match is_replayed(&url).await? {
                true => self.find(Fault::Ttl, "a finished segment is handed out after its max-age"),
                false => self.find(Fault::Grace, "a finished segment is handed out once more"),
            }
        }
        Ok(())
    }

    fn traces(&mut self, traces: &[ClientTrace], is_long_poll: bool) {
        for trace in traces {
            if let Some(why) = &trace.closed {
                self.find(Fault::DeadOnError, format!("a client was closed permanently: {why}"));
            }
            if let Some(why) = trace.cut.first() {
                self.find(Fault::Premature, format!("a client's stream was cut: {why}"));
            }
            let second = Duration::from_secs(1);
            let most = trace.opened.iter().map(|first| {
                let within = |at: &&Instant| **at >= *first && **at < *first + second;
                trace.opened.iter().filter(within).count()
            });
            let most = most.max().unwrap_or_default();
            // Each event ends a long poll, and at most two probes are published within a second.
            if most > OPENED_A_SEGMENT_MAX + if is_long_poll { 2 } else { 0 } {
                self.find(Fault::Loop, format!("a client came back {most} times within a second"));
            }
        }
    }
}

/// The position directly before an id: no event of any channel lies between the two.
fn before(id: EventId) -> EventId {
    match id.seq.checked_sub(1) {
        Some(seq) => EventId { seq, ..id },
        None => EventId { ms: id.ms.saturating_sub(1), seq: u64::from(u32::MAX) },
    }
}

/// A response that is watched to its end.
struct Kept {
    probe: Probe,
    cursor: String,
    block: Option<SegmentBlock>,
}
