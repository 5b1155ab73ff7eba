//! `headwater channels` lists the channels of an origin, changes their settings, and deletes
//! channels.

use super::channel_settings::{SettingArguments, described};
use super::table::{aligned, grouped};
use super::{admin, block_on, channel_name, fail};
use crate::client::http::Address;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::store::ChannelSettings;
use crate::sync::clock::machine_now;
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::io::{BufRead, IsTerminal};
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
    /// Give one channel settings of its own, before its first event or later. They apply from its
    /// next event on, and times at once
    Set(SetArguments),
    /// End a channel and delete its events, its state and its settings
    Delete(DeleteArguments),
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
pub struct SetArguments {
    /// Channel whose settings change
    #[arg(value_parser = channel_name)]
    channel: ChannelName,
    #[command(flatten)]
    settings: SettingArguments,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args, Debug)]
pub struct DeleteArguments {
    /// Channel to delete
    #[arg(value_parser = channel_name)]
    channel: ChannelName,
    /// Delete without a question
    #[arg(long)]
    yes: bool,
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
    /// Earlier versions have neither of these.
    #[serde(default)]
    settings: ChannelSettings,
    #[serde(default)]
    limits: ChannelSettings,
}

pub fn run(command: ChannelsCommand) -> ExitCode {
    let printed = block_on(async {
        match command {
            ChannelsCommand::List(arguments) => list(arguments).await,
            ChannelsCommand::Show(arguments) => show(arguments).await,
            ChannelsCommand::Set(arguments) => set(arguments).await,
            ChannelsCommand::Delete(arguments) => delete(arguments).await,
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
    let channels = channels.into_iter().map(described_channel).collect::<Result<Vec<_>, _>>()?;
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
    let channel = described_channel(value)?;
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
    print_limits(&channel);
    Ok(())
}

fn print_limits(Channel { settings, limits, .. }: &Channel) {
    let own: Vec<_> = described(settings).into_iter().map(|(name, _)| name).collect();
    for (name, value) in described(limits) {
        let note = if own.contains(&name) { "  (set for this channel)" } else { "" };
        println!("{name:<18}  {value}{note}");
    }
}

async fn set(SetArguments { channel, settings, common }: SetArguments) -> Result<(), String> {
    let patch = settings.patch()?.to_string();
    let path = format!("/channels/{channel}/settings");
    let answer = admin::send(&common.admin_url, Method::PATCH, &path, patch.into()).await?;
    if common.json {
        println!("{answer}");
        return Ok(());
    }
    let new: ChannelSettings = serde_json::from_str(&answer)
        .map_err(|error| format!("the answer cannot be read: {error}"))?;
    let shown: Vec<_> =
        described(&new).iter().map(|(name, value)| format!("{name} {value}")).collect();
    match shown.is_empty() {
        true => println!("{channel} has no settings of its own any more"),
        false => println!("{channel} has these settings of its own: {}", shown.join(", ")),
    }
    Ok(())
}

async fn delete(DeleteArguments { channel, yes, common }: DeleteArguments) -> Result<(), String> {
    if !yes && !is_confirmed(&channel)? {
        return Err("nothing was deleted".to_owned());
    }
    let path = format!("/channels/{channel}");
    let answer = admin::request(&common.admin_url, Method::DELETE, &path).await?;
    match common.json {
        true => println!("{answer}"),
        false => println!("{channel} has ended, and its events, state and settings are deleted"),
    }
    Ok(())
}

/// Asks at the terminal whether a channel shall be deleted.
fn is_confirmed(channel: &ChannelName) -> Result<bool, String> {
    let mut input = std::io::stdin();
    if !input.is_terminal() {
        return Err("deleting cannot be undone; confirm it with --yes".to_owned());
    }
    eprint!("Delete all events and the state of {channel}? This cannot be undone. [y/N] ");
    let mut answer = String::new();
    std::io::BufReader::new(&mut input)
        .read_line(&mut answer)
        .map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
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

fn described_channel(value: Value) -> Result<Channel, String> {
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
