//! `headwater tail` prints a channel's events on standard output as they arrive.

use super::output::reader_gone;
use super::{block_on, channel_name, fail, readable};
use crate::client::http::Address;
use crate::client::{EventSource, Interruption, Message, Signal};
use crate::core::event::ChannelName;
use clap::Args;
use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The command has one token and cannot get another one, so it ends when the token has expired.
const TOKEN_EXPIRED: &str =
    "the token has expired: start again with a new one (--token or HEADWATER_TOKEN)";

#[derive(Args, Debug)]
pub struct TailArguments {
    /// Channel to read; several channels are separated by commas
    #[arg(value_parser = channel_name, value_delimiter = ',', required = true)]
    channel: Vec<ChannelName>,
    /// Start after this cursor; 0-0 for everything that is kept [default: the state of a channel
    /// with keys, else the current segment]
    #[arg(long)]
    after: Option<String>,
    /// Start at this instant: 2026-11-25T20:00:00Z, Unix seconds, or -5m for five minutes before
    /// the running segment began
    #[arg(long, allow_hyphen_values = true, conflicts_with = "after")]
    since: Option<String>,
    /// Start with this number of the newest events of each channel (1 to 1000)
    #[arg(long, conflicts_with_all = ["after", "since"])]
    last: Option<u64>,
    /// Stop after this number of events
    #[arg(long)]
    count: Option<u64>,
    /// Print each event as a JSON object with channel, id, event, key, data and removed
    #[arg(long)]
    json: bool,
    /// URL of the origin, or of a cache in front of it
    #[arg(long, env = "HEADWATER_URL", default_value = "http://127.0.0.1:8080")]
    url: Address,
    /// Bearer token for the requests to the origin
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

pub fn run(arguments: TailArguments) -> ExitCode {
    let tailed = block_on(async {
        tokio::select! {
            tailed = tail(arguments) => tailed,
            () = reader_gone() => Ok(()),
        }
    });
    match tailed {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

async fn tail(arguments: TailArguments) -> Result<(), String> {
    let path = arguments.path();
    let url = arguments.url.with_token(arguments.token);
    let mut source = EventSource::new(url, path, arguments.after.as_deref());
    let mut printed = 0;
    while arguments.count.is_none_or(|count| printed < count) {
        match source.next().await {
            Signal::Opened => {}
            Signal::Message(message) if message.kind == "segment" => {}
            Signal::Message(message) if message.kind == "shed" => {
                let why: Value = serde_json::from_str(&message.data).unwrap_or_default();
                if why["reason"] == "token-expired" {
                    return Err(TOKEN_EXPIRED.to_owned());
                }
                eprintln!("headwater: the server has no stream for now: {}", message.data);
            }
            Signal::Message(message) => {
                // Without --json, standard output has nothing but events of publishers.
                let is_shown = match message.kind.as_str() {
                    "gap" => {
                        eprintln!("headwater: events are missing: {}", message.data);
                        arguments.json
                    }
                    "end" => {
                        eprintln!("headwater: a channel has ended: {}", message.data);
                        arguments.json
                    }
                    _ => {
                        printed += 1;
                        true
                    }
                };
                if is_shown && print(&message, arguments.json).is_err() {
                    // The reader of standard output has closed its pipe.
                    return Ok(());
                }
            }
            Signal::Reconnecting { why: Interruption::End, .. } => {}
            Signal::Reconnecting { after, why: Interruption::Broken(why) } => {
                eprintln!("headwater: {why}; again in {:.1} s", after.as_secs_f64());
            }
            Signal::Closed { status: Some(StatusCode::NO_CONTENT), .. } => return Ok(()),
            Signal::Closed { why, .. } => return Err(readable(&why)),
        }
    }
    Ok(())
}

impl TailArguments {
    fn path(&self) -> String {
        let last = self.last.map(|count| count.to_string());
        let format = self.json.then(|| "json".to_owned());
        let mut query = Vec::new();
        for (name, value) in [("since", &self.since), ("last", &last), ("format", &format)] {
            let value = value.as_deref().map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
            query.extend(value.map(|value| format!("{name}={value}")));
        }
        let channels: Vec<_> = self.channel.iter().map(ChannelName::as_str).collect();
        format!("/channels/{}?{}", channels.join(","), query.join("&"))
    }
}

fn print(message: &Message, as_json: bool) -> std::io::Result<()> {
    let Message { kind, data, .. } = message;
    let line = match kind.as_str() {
        _ if as_json => object(message).to_string(),
        "message" => data.clone(),
        _ => format!("{kind}: {data}"),
    };
    let mut out = std::io::stdout().lock();
    let line = if out.is_terminal() { harmless(&line) } else { line };
    writeln!(out, "{line}")?;
    out.flush()
}

/// Escapes control characters, so that a publisher cannot send control sequences to the terminal.
fn harmless(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_plain(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// The JSON object of an event; its id is the cursor from which a stream resumes. The object of a
/// control event has the type of that event, and its data as text.
fn object(message: &Message) -> Value {
    let sent: Value = serde_json::from_str(&message.data).unwrap_or_default();
    let is_event = message.kind == "message";
    let kind = if is_event { sent["event"].as_str().unwrap_or("message") } else { &message.kind };
    let data = if is_event { sent["data"].clone() } else { message.data.clone().into() };
    let mut object = json!({
        "channel": sent["channel"], "id": message.last_event_id, "event": kind, "data": data,
    });
    for name in ["key", "removed"] {
        if !sent[name].is_null() {
            object[name] = sent[name].clone();
        }
    }
    object
}
