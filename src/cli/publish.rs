//! `headwater publish` publishes one event from the command line, or each line of standard input.
//!
//! Lines are sent as they arrive; lines that are ready together form one batch. Every batch has an
//! idempotency key, so a batch whose response was lost is sent again and still stored only once.

use super::{block_on, channel_name, fail, misused, readable};
use crate::client::agent::Agent;
use crate::client::http::{self, Address, HttpError};
use crate::core::event::ChannelName;
use crate::sync::random::random;
use bytes::Bytes;
use clap::Args;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Split};
use tokio::time::timeout;

/// The number of lines, and of bytes, at which a batch takes no further line.
const BATCH_LINES_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Longest wait of a batch for its next line.
const LINGER: Duration = Duration::from_millis(5);
/// The data that stands for standard input.
const STANDARD_INPUT: &str = "-";
/// How often a batch is sent before the command fails, and the pause after each attempt.
const TRIES: u32 = 10;
const TRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub struct PublishArguments {
    /// Channel to publish to
    #[arg(value_parser = channel_name)]
    channel: ChannelName,
    /// Data of the event; without it, or with -, each line of standard input is an event
    data: Option<String>,
    /// Type of the events
    #[arg(long)]
    event: Option<String>,
    /// Key of the events; the newest event of a key is the state of this key
    #[arg(long)]
    key: Option<String>,
    /// Remove the key from the state; the event is delivered like any other, and DATA is optional
    #[arg(long)]
    remove: bool,
    /// Print the id of each event from standard input
    #[arg(long)]
    ids: bool,
    /// URL of the origin
    #[arg(long, env = "HEADWATER_URL", default_value = "http://127.0.0.1:8080")]
    url: Address,
    /// Bearer token for the requests to the origin
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

struct Publisher {
    agent: Agent,
    run: u64,
    batches: u64,
}

/// Lines that are sent in one request.
#[derive(Default)]
struct Batch {
    /// The JSON object of each line.
    lines: Vec<String>,
    bytes: usize,
    /// Why the line that follows cannot be sent; `None` when the batch has no such line.
    bad: Option<String>,
}

pub fn run(arguments: PublishArguments) -> ExitCode {
    if arguments.remove && arguments.key.is_none() {
        return misused("--remove takes a key out of the state; name it with --key");
    }
    let published = block_on(async {
        let address = arguments.url.clone().with_token(arguments.token.clone());
        let mut publisher = Publisher::new(address);
        // An event that removes its key needs no data.
        let data = arguments.data.as_deref().or(arguments.remove.then_some(""));
        let data = data.filter(|data| *data != STANDARD_INPUT);
        match data {
            Some(data) => publisher.publish_one(&arguments, data).await.map(|id| println!("{id}")),
            None => publisher.publish_lines(&arguments).await,
        }
    });
    match published {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

impl Publisher {
    fn new(address: Address) -> Self {
        let run = random();
        Self { agent: Agent::new(address), run, batches: 0 }
    }

    async fn publish_one(
        &mut self,
        arguments: &PublishArguments,
        data: &str,
    ) -> Result<String, HttpError> {
        let mut query = Vec::new();
        for (name, value) in [("event", &arguments.event), ("key", &arguments.key)] {
            let value = value.as_deref().map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
            query.extend(value.map(|value| format!("{name}={value}")));
        }
        query.extend(arguments.remove.then(|| "remove=true".to_owned()));
        let path = format!("/channels/{}?{}", arguments.channel, query.join("&"));
        let sent = self.send_surely(&path, "text/plain", data.to_owned().into()).await;
        let answer = sent.map_err(|refused| HttpError(refused.text))?;
        let answer: Value =
            serde_json::from_str(&answer).map_err(|error| HttpError(error.to_string()))?;
        Ok(answer["id"].as_str().unwrap_or_default().to_owned())
    }

    async fn publish_lines(&mut self, arguments: &PublishArguments) -> Result<(), HttpError> {
        let path = format!("/channels/{}", arguments.channel);
        let mut input = BufReader::new(tokio::io::stdin()).split(b'\n');
        let progress = progress_bar();
        let (mut stored, mut last_id) = (0, None);
        loop {
            let batch = Batch::read(&mut input, arguments, &progress).await?;
            if batch.lines.is_empty() && batch.bad.is_none() {
                break;
            }
            let ids = self.send_batch(&path, &batch.lines, stored).await?;
            if arguments.ids {
                ids.iter().for_each(|id| println!("{id}"));
            }
            stored += ids.len();
            last_id = ids.into_iter().next_back().or(last_id);
            if let Some(why) = batch.bad {
                return Err(not_stored(stored + 1, &why));
            }
        }
        progress.finish_and_clear();
        match last_id {
            None => eprintln!("headwater: standard input had no line; nothing was published"),
            Some(id) => eprintln!("headwater: {} stored; the last id is {id}", events(stored)),
        }
        Ok(())
    }

    /// Sends lines, and returns the ids of their events. When the origin refuses one of the lines, the lines
    /// before it are still sent, as if they had arrived earlier.
    async fn send_batch(
        &mut self,
        path: &str,
        lines: &[String],
        stored: usize,
    ) -> Result<Vec<String>, HttpError> {
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let kind = "application/x-ndjson";
        let refused = match self.send_surely(path, kind, lines.concat().into()).await {
            Ok(answer) => return Ok(ids_of(&answer)),
            Err(refused) => refused,
        };
        let good = refused.line.and_then(|line| lines.get(..line.checked_sub(1)?));
        let good = good.unwrap_or_default();
        if !good.is_empty() {
            let sent = self.send_surely(path, kind, good.concat().into()).await;
            sent.map_err(|refused| not_stored(stored + 1, &refused.text))?;
        }
        Err(not_stored(stored + good.len() + 1, &refused.text))
    }

    /// Sends a body until the origin has stored or refused it, but not more often than `TRIES`.
    async fn send_surely(
        &mut self,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<String, Refused> {
        self.batches += 1;
        let key = format!("{:016x}-{}", self.run, self.batches);
        let mut last = "not tried".to_owned();
        for attempt in 1..=TRIES {
            match self.send(path, kind, &key, body.clone()).await {
                Ok((StatusCode::CREATED | StatusCode::OK, answer)) => return Ok(answer),
                Ok((status, answer)) if is_final(status) => return Err(Refused::of(&answer)),
                Ok((_, answer)) => last = Refused::of(&answer).text,
                Err(HttpError(why)) => {
                    self.agent.disconnect();
                    last = why;
                }
            }
            if attempt == 1 {
                eprintln!("headwater: {last}; the publish is repeated for {TRIES} seconds");
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        let text = format!("given up after {TRIES} tries: {last}");
        Err(Refused { text, line: None })
    }

    async fn send(
        &mut self,
        path: &str,
        kind: &str,
        key: &str,
        body: Bytes,
    ) -> Result<(StatusCode, String), HttpError> {
        let headers = [(CONTENT_TYPE, kind), (HeaderName::from_static("idempotency-key"), key)];
        let answer = self.agent.send(Method::POST, path, &headers, body).await?;
        let status = answer.status();
        Ok((status, http::text(answer).await?))
    }
}

/// Why a publish failed.
struct Refused {
    text: String,
    /// The line of the batch that is at fault, counted from 1.
    line: Option<usize>,
}

impl Refused {
    fn of(answer: &str) -> Self {
        let problem: Value = serde_json::from_str(answer).unwrap_or_default();
        let line = problem["line"].as_u64().and_then(|line| usize::try_from(line).ok());
        Self { text: readable(answer), line }
    }
}

impl Batch {
    /// Waits for a line, and reads the lines that follow it without a pause.
    async fn read(
        input: &mut Split<impl AsyncBufRead + Unpin>,
        arguments: &PublishArguments,
        progress: &ProgressBar,
    ) -> Result<Self, HttpError> {
        let mut batch = Self::default();
        while batch.lines.len() < BATCH_LINES_MAX && batch.bytes < BATCH_BYTES_MAX {
            let line = match batch.lines.is_empty() {
                true => Ok(input.next_segment().await),
                false => timeout(LINGER, input.next_segment()).await,
            };
            let line = match line {
                Err(_) | Ok(Ok(None)) => break,
                Ok(Ok(Some(line))) => line,
                Ok(Err(error)) => {
                    batch.bad = Some(format!("standard input cannot be read: {error}"));
                    break;
                }
            };
            match std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(&line)) {
                Ok(text) => batch.add(text, arguments),
                Err(error) => {
                    let at = error.valid_up_to() + 1;
                    batch.bad = Some(format!("it is not UTF-8 from its byte {at} on"));
                    break;
                }
            }
            progress.inc(1);
        }
        Ok(batch)
    }

    fn add(&mut self, text: &str, arguments: &PublishArguments) {
        let mut object = json!({ "data": text, "event": arguments.event, "key": arguments.key });
        if arguments.remove {
            object["remove"] = true.into();
        }
        let line = format!("{object}\n");
        self.bytes += line.len();
        self.lines.push(line);
    }
}

/// The ids in the answer to a batch.
fn ids_of(answer: &str) -> Vec<String> {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let ids = answer["ids"].as_array().into_iter().flatten();
    ids.map(|id| id.as_str().unwrap_or_default().to_owned()).collect()
}

fn events(count: usize) -> String {
    if count == 1 { "1 event is".to_owned() } else { format!("{count} events are") }
}

fn not_stored(line: usize, why: &str) -> HttpError {
    let stored = match line {
        1 => "nothing was stored".to_owned(),
        2 => "line 1 was stored".to_owned(),
        line => format!("lines 1 to {} were stored", line - 1),
    };
    HttpError(format!("line {line} was not published: {why}; {stored}"))
}

/// Whether the origin would refuse the same request again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// A progress bar, which is visible only when standard error is a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} events  {per_sec}  {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
