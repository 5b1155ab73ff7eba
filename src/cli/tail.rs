//! `headwater tail`: a channel's events on standard output, as they come.

use super::{block_on, fail};
use crate::client::http::Address;
use crate::client::{EventSource, Interruption, Message, Signal};
use clap::Args;
use hyper::StatusCode;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub struct TailArguments {
    /// Channel to read; several with commas between
    channel: String,
    /// Begin after this cursor; 0-0 for everything that is kept [default: the current segment]
    #[arg(long)]
    after: Option<String>,
    /// Stop after so many events
    #[arg(long)]
    count: Option<u64>,
    /// Print each event as a JSON object with event, id and data
    #[arg(long)]
    json: bool,
    /// The origin, or a cache in front of it
    #[arg(long, env = "HEADWATER_URL", default_value = "http://127.0.0.1:8080")]
    url: Address,
    /// Bearer token that the origin asks for
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

pub fn run(arguments: TailArguments) -> ExitCode {
    match block_on(tail(arguments)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

async fn tail(arguments: TailArguments) -> Result<(), String> {
    let path = format!("/channels/{}", arguments.channel);
    let url = arguments.url.with_token(arguments.token);
    let mut source = EventSource::new(url, path, arguments.after.as_deref());
    let mut printed = 0;
    while arguments.count.is_none_or(|count| printed < count) {
        match source.next().await {
            Signal::Opened => {}
            Signal::Message(message) if message.kind == "segment" => {}
            Signal::Message(message) => {
                if message.kind == "gap" {
                    eprintln!("headwater: events are missing: {}", message.data);
                }
                printed += 1;
                if print(&message, arguments.json).is_err() {
                    // Whoever read our output has had enough.
                    return Ok(());
                }
            }
            Signal::Reconnecting { why: Interruption::End, .. } => {}
            Signal::Reconnecting { after, why: Interruption::Broken(why) } => {
                eprintln!("headwater: {why}; again in {:.1} s", after.as_secs_f64());
            }
            Signal::Closed { status: Some(StatusCode::NO_CONTENT), .. } => return Ok(()),
            Signal::Closed { why, .. } => return Err(why),
        }
    }
    Ok(())
}

fn print(message: &Message, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let Message { kind, data, last_event_id } = message;
    if as_json {
        writeln!(out, "{}", json!({ "event": kind, "id": last_event_id, "data": data }))?;
    } else if kind == "message" {
        writeln!(out, "{data}")?;
    } else {
        writeln!(out, "{kind}: {data}")?;
    }
    out.flush()
}
