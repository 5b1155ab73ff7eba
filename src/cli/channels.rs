//! `headwater channels` lists the channels of an origin.

use super::table::{aligned, grouped};
use super::{admin, block_on, channel_name, fail};
use crate::client::http::Address;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::sync::clock::machine_now;
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// The number of channels in one request.
const PAGE: u64 = 1_000;
/// The number of units in the time since an event, such as hours and minutes.
const AGE_PARTS: usize = 2;

#[derive(Subcommand, Debug)]
pub enum ChannelsCommand {
    /// List the channels with their sizes and the number of their subscribers at this origin
    List(ListArguments),
    /// Show one channel
    Show(ShowArguments),
}

#[derive(Args, Debug)]
pub struct ListArguments {
    /// List only channels whose names begin with this text
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// List only channels that have subscribers at this origin
    #[arg(long)]
    subscribed: bool,
    /// Order of the list
    #[arg(long, value_enum, default_value_t = Order::Name)]
    sort: Order,
    /// Number of channels to list (count)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args, Debug)]
pub struct ShowArguments {
    /// Channel to show
    #[arg(value_parser = channel_name)]
    channel: ChannelName,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args, Debug)]
struct CommonArguments {
    /// Admin listener of the origin (--admin-listen)
    #[arg(long, env = "HEADWATER_ADMIN_URL", default_value = "http://127.0.0.1:8081")]
    admin_url: Address,
    /// Print the channels as JSON
    #[arg(long)]
    json: bool,
}

/// The order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// By name
    Name,
    /// The channel with the most events first
    Events,
    /// The channel with the most bytes first, of events and state
    Bytes,
    /// The channel with the most subscribers first
    Subscribers,
    /// The channel with the newest event first
    Newest,
}

/// A channel, as the origin describes it.
#[derive(Debug, Deserialize)]
struct Channel {
    name: String,
    events: u64,
    bytes: u64,
    keys: u64,
    state_bytes: u64,
    first: Option<String>,
    last: Option<String>,
    ended: bool,
    private: bool,
    subscribers: u64,
}

pub fn run(command: ChannelsCommand) -> ExitCode {
    let printed = block_on(async {
        match command {
            ChannelsCommand::List(arguments) => list(arguments).await,
            ChannelsCommand::Show(arguments) => show(arguments).await,
        }
    });
    match printed {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => fail(&why),
        Err(error) => fail(&error),
    }
}

async fn list(arguments: ListArguments) -> Result<(), String> {
    let mut channels = all(&arguments).await?;
    sort(&mut channels, arguments.sort);
    let count = channels.len() as u64;
    channels.truncate(usize::try_from(arguments.limit).unwrap_or(usize::MAX));
    if arguments.common.json {
        println!("{:#}", Value::from(channels));
        return Ok(());
    }
    let channels = channels.into_iter().map(described).collect::<Result<Vec<_>, _>>()?;
    let now = now_ms();
    let titles = ["CHANNEL", "SUBSCRIBERS", "EVENTS", "BYTES", "KEYS", "NEWEST EVENT", "STATUS"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(channels.iter().map(|channel| {
        vec![
            channel.name.clone(),
            grouped(channel.subscribers),
            grouped(channel.events),
            ByteSize(channel.bytes + channel.state_bytes).to_string(),
            grouped(channel.keys),
            channel.last.as_deref().map_or_else(|| "none".to_owned(), |id| age(id, now)),
            channel.status(),
        ]
    }));
    println!("{}", aligned(&rows));
    if count > arguments.limit {
        let shown = arguments.limit;
        eprintln!("headwater: {shown} of {count} channels or more; --limit lists more");
    }
    Ok(())
}

async fn show(ShowArguments { channel, common }: ShowArguments) -> Result<(), String> {
    let path = format!("/channels/{channel}");
    let value = fetched(&common.admin_url, &path).await?;
    if common.json {
        println!("{value:#}");
        return Ok(());
    }
    let channel = described(value)?;
    let now = now_ms();
    let event = |id: Option<&str>| {
        id.map_or_else(|| "none".to_owned(), |id| format!("{id} ({})", age(id, now)))
    };
    let rows = [
        ("channel", channel.name.clone()),
        ("status", channel.status()),
        ("subscribers here", grouped(channel.subscribers)),
        ("events kept", format!("{} ({})", grouped(channel.events), ByteSize(channel.bytes))),
        ("oldest event kept", event(channel.first.as_deref())),
        ("newest event", event(channel.last.as_deref())),
        (
            "keys of the state",
            format!("{} ({})", grouped(channel.keys), ByteSize(channel.state_bytes)),
        ),
    ];
    for (name, value) in rows {
        println!("{name:<18}  {value}");
    }
    Ok(())
}

/// Reads the channels that may be on the list. In the order of names these are the first ones, and
/// in every other order all of them.
async fn all(arguments: &ListArguments) -> Result<Vec<Value>, String> {
    let (mut channels, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!(
            "/channels?prefix={}&after={after}&limit={PAGE}&subscribed={}",
            utf8_percent_encode(&arguments.prefix, NON_ALPHANUMERIC),
            arguments.subscribed,
        );
        let mut page = fetched(&arguments.common.admin_url, &path).await?;
        if let Value::Array(found) = page["channels"].take() {
            channels.extend(found);
        }
        let is_enough = arguments.sort == Order::Name && channels.len() as u64 > arguments.limit;
        match page["next"].as_str() {
            Some(next) if !is_enough => after = next.to_owned(),
            _ => return Ok(channels),
        }
    }
}

fn sort(channels: &mut [Value], order: Order) {
    let number = |channel: &Value, field: &str| channel[field].as_u64().unwrap_or_default();
    match order {
        // The origin lists the channels by name.
        Order::Name => {}
        Order::Events => channels.sort_by_key(|channel| Reverse(number(channel, "events"))),
        Order::Bytes => channels.sort_by_key(|channel| {
            Reverse(number(channel, "bytes") + number(channel, "state_bytes"))
        }),
        Order::Subscribers => {
            channels.sort_by_key(|channel| Reverse(number(channel, "subscribers")));
        }
        Order::Newest => channels.sort_by_key(|channel| {
            let last = channel["last"].as_str().and_then(|id| EventId::parse(id).ok());
            Reverse(last.unwrap_or_default())
        }),
    }
}

async fn fetched(address: &Address, path: &str) -> Result<Value, String> {
    let text = admin::request(address, Method::GET, path).await?;
    serde_json::from_str(&text).map_err(|error| format!("{address}{path}: {error}"))
}

fn described(value: Value) -> Result<Channel, String> {
    serde_json::from_value(value).map_err(|error| format!("the answer cannot be read: {error}"))
}

impl Channel {
    fn status(&self) -> String {
        let words = [("ended", self.ended), ("private", self.private)];
        let words: Vec<_> = words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
        if words.is_empty() { "open".to_owned() } else { words.join(", ") }
    }
}

fn now_ms() -> u64 {
    let now = machine_now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

/// The time since an event was stored. Its id begins with that instant.
fn age(id: &str, now: u64) -> String {
    let Ok(EventId { ms, .. }) = EventId::parse(id) else { return id.to_owned() };
    let seconds = now.saturating_sub(ms) / 1_000;
    let time = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let parts: Vec<_> = time.split(' ').take(AGE_PARTS).collect();
    format!("{} ago", parts.join(" "))
}
