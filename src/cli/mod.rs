//! The command line. Each command, or small group of commands, has a file, which reads the flags,
//! checks them and runs the command. The doc comment of a flag is its text in `--help`. If the
//! value has a unit, the text ends with the unit.
// The text of `--help` is no Markdown.
#![allow(rustdoc::bare_urls, rustdoc::invalid_html_tags)]

// First, because its macros are used by the other modules.
#[macro_use]
mod output;

mod access;
mod admin;
mod bench;
mod capacity;
mod channel_settings;
mod channels;
mod config;
mod config_file;
mod copies;
mod demo_cache;
mod doctor;
mod edge;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod headings;
mod health;
mod limits;
mod loaded;
mod logging;
mod packaging;
mod publish;
mod redis;
mod reload;
mod rotation;
mod scrape;
mod serve;
mod serve_flags;
mod service;
mod signals;
mod stats;
mod table;
mod tail;
mod token;
mod traces;
mod units;
mod variables;

use crate::core::event::ChannelName;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use variables::Variables;

/// The SSE-first broadcast origin for CDN fan-out.
#[derive(Parser, Debug)]
#[command(name = "headwater", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve channels: accept events over HTTP and stream them as cacheable segments
    Serve(Box<serve_flags::ServeArguments>),
    /// Check, show or create the configuration of `serve`
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make a running origin read its settings and keys again, as SIGHUP does
    Reload(reload::ReloadArguments),
    /// Ask a running origin for its health; the check of a container
    Healthcheck(health::HealthArguments),
    /// Publish one event, or each line of standard input as an event
    Publish(publish::PublishArguments),
    /// Make a token for development
    Token(token::TokenArguments),
    /// Print a channel's events as they arrive; reconnects and resumes after the last event
    Tail(tail::TailArguments),
    /// List the channels of an origin, or show one of them
    #[command(subcommand)]
    Channels(channels::ChannelsCommand),
    /// Show the load, the delays and the busiest channels of one or more origins, again and again
    Stats(stats::StatsArguments),
    /// Print the configuration of a cache in front of an origin: Varnish, nginx, Squid or Fastly
    Edge(edge::EdgeArguments),
    /// Examine a deployment from outside, and report what is wrong with its cache
    Doctor(doctor::DoctorArguments),
    /// Read every record of a log on disk, and report damage
    Check(copies::CheckArguments),
    /// Copy a log on disk, also while an origin serves it
    Backup(copies::BackupArguments),
    /// Copy a backup to a new directory, and note in every channel that later events are lost
    Restore(copies::CopyArguments),
    /// Print the completions of the commands for a shell
    Completions(packaging::CompletionsArguments),
    /// Print the manual page, or write the pages of all commands
    Man(packaging::ManArguments),
    /// Open subscribers, publish events at a fixed rate, and measure their delivery
    Bench(bench::BenchArguments),
}

/// The exit status of errors in flags and variables. clap exits with the same status.
const EXIT_USAGE: u8 = 2;

/// Reads the command line and runs its command.
pub fn start() -> ExitCode {
    let variables = Variables::of(&Arguments::command());
    if let Some(error) = variables.misspelt(std::env::vars_os().map(|(name, _)| name)) {
        return misused(&error);
    }
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => loaded::report(&error, None),
    }
}

fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Serve(_) => serve::run(),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Healthcheck(arguments) => health::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Publish(arguments) => publish::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Channels(command) => channels::run(command),
        Command::Stats(arguments) => stats::run(arguments),
        Command::Edge(arguments) => edge::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Check(arguments) => copies::check(arguments),
        Command::Backup(arguments) => copies::backup(arguments),
        Command::Restore(arguments) => copies::restore(arguments),
        Command::Completions(arguments) => packaging::completions(&arguments),
        Command::Man(arguments) => packaging::man(&arguments),
        Command::Bench(arguments) => bench::run(arguments),
    }
}

fn variable_behind(text: &str) -> Option<String> {
    let typed: Vec<_> = std::env::args_os().collect();
    let is_set = |name: &str| std::env::var_os(name).is_some();
    Variables::of(&Arguments::command()).behind(text, &typed, is_set)
}

/// Prints an error about flags, and the variable that set a flag that is not on the command line.
fn misused(error: &str) -> ExitCode {
    let note = variable_behind(error).map(|note| format!(" ({note})")).unwrap_or_default();
    eprintln!("headwater: {error}{note}");
    ExitCode::from(EXIT_USAGE)
}

/// Checks the name of a channel on the command line.
fn channel_name(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| format!("a channel's name {error}"))
}

/// Turns a problem document (RFC 9457) into a sentence, and returns any other text unchanged.
fn readable(answer: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    match ["title", "detail"].map(|name| problem[name].as_str()) {
        [Some(title), Some(detail)] => format!("{title}: {detail}"),
        _ => answer.to_owned(),
    }
}

/// Prints an error and returns the exit status of a failure.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("headwater: {error}");
    ExitCode::FAILURE
}

/// Runs the future of a client command on a new runtime.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
