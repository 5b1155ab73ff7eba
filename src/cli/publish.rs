//! `headwater publish`: one event from the command line, or a line each from standard input.
//!
//! Lines go out as they come, those that wait together as one batch. Every batch carries an
//! idempotency key, so one whose answer was lost is sent again and still stored once.

use super::{block_on, fail};
use crate::client::http::{self, Address, Connection, HttpError};
use bytes::Bytes;
use clap::Args;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

/// Most lines and bytes in a batch.
const BATCH_LINES_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// How long a batch waits for its next line.
const LINGER: Duration = Duration::from_millis(5);
/// How often a batch is sent again before it is given up, and the pause between.
const TRIES: u32 = 10;
const TRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub struct PublishArguments {
    /// Channel to publish to
    channel: String,
    /// The event's data; without it events are read from standard input, a line each
    data: Option<String>,
    /// Type of the events
    #[arg(long)]
    event: Option<String>,
    /// Key whose state the event becomes
    #[arg(long)]
    key: Option<String>,
    /// The origin
    #[arg(long, env = "HEADWATER_URL", default_value = "http://127.0.0.1:8080")]
    url: Address,
    /// Bearer token that the origin asks for
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

struct Publisher {
    address: Address,
    connection: Option<Connection>,
    run: u64,
    batches: u64,
}

pub fn run(arguments: PublishArguments) -> ExitCode {
    let published = block_on(async {
        let mut publisher =
            Publisher::new(arguments.url.clone().with_token(arguments.token.clone()));
        match &arguments.data {
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
        let run = RandomState::new().build_hasher().finish();
        Self { address, connection: None, run, batches: 0 }
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
        let path = format!("/channels/{}?{}", arguments.channel, query.join("&"));
        let answer = self.send_surely(&path, "text/plain", data.to_owned().into()).await?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer).map_err(|error| HttpError(error.to_string()))?;
        Ok(answer["id"].as_str().unwrap_or_default().to_owned())
    }

    async fn publish_lines(&mut self, arguments: &PublishArguments) -> Result<(), HttpError> {
        let why = |error: std::io::Error| HttpError(format!("standard input: {error}"));
        let path = format!("/channels/{}", arguments.channel);
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let progress = progress_bar();
        while let Some(first) = lines.next_line().await.map_err(why)? {
            let mut batch = String::new();
            let (mut next, mut count) = (Some(first), 0);
            while let Some(line) = next.take() {
                progress.inc(1);
                let (event, key) = (&arguments.event, &arguments.key);
                batch.push_str(&json!({ "data": line, "event": event, "key": key }).to_string());
                batch.push('\n');
                count += 1;
                if count < BATCH_LINES_MAX && batch.len() < BATCH_BYTES_MAX {
                    let line = tokio::time::timeout(LINGER, lines.next_line()).await;
                    next = line.unwrap_or(Ok(None)).map_err(why)?;
                }
            }
            self.send_surely(&path, "application/x-ndjson", batch.into()).await?;
        }
        progress.finish();
        Ok(())
    }

    /// Sends until the origin has it, or has refused it.
    async fn send_surely(
        &mut self,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<String, HttpError> {
        self.batches += 1;
        let key = format!("{:016x}-{}", self.run, self.batches);
        let mut last = HttpError("not tried".to_owned());
        for _ in 0..TRIES {
            match self.send(path, kind, &key, body.clone()).await {
                Ok((StatusCode::CREATED | StatusCode::OK, answer)) => return Ok(answer),
                Ok((status, answer)) if is_final(status) => return Err(HttpError(answer)),
                Ok((_, answer)) => last = HttpError(answer),
                Err(error) => {
                    self.connection = None;
                    last = error;
                }
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        Err(HttpError(format!("given up after {TRIES} tries: {last}")))
    }

    async fn send(
        &mut self,
        path: &str,
        kind: &str,
        key: &str,
        body: Bytes,
    ) -> Result<(StatusCode, String), HttpError> {
        let mut connection = match self.connection.take().filter(Connection::is_open) {
            Some(connection) => connection,
            None => Connection::open(&self.address).await?,
        };
        let request = connection.request(Method::POST, path);
        let request = request.header(CONTENT_TYPE, kind).header("idempotency-key", key);
        let answer = connection.send(request, body).await?;
        let status = answer.status();
        let text = http::text(answer).await?;
        self.connection = Some(connection);
        Ok((status, text))
    }
}

/// Refused for what it is, so that it would be refused again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// Shown when standard error is a terminal, and only then.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} events  {per_sec}  {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
