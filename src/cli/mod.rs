//! The command line: flags in, finished values out. One file a command; the first line of each
//! flag's help is what `--help` shows, with its unit.

mod access;
mod bench;
mod capacity;
mod copies;
mod doctor;
mod edge;
mod limits;
mod logging;
mod output;
mod publish;
mod serve;
mod serve_flags;
mod signals;
mod tail;
mod token;
mod units;
mod variables;

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
    /// Serve channels: take events over HTTP and stream them as cacheable segments
    Serve(Box<serve_flags::ServeArguments>),
    /// Publish one event, or events from standard input, a line each
    Publish(publish::PublishArguments),
    /// Make a token, for development
    Token(token::TokenArguments),
    /// Print a channel's events as they come; reconnects and keeps its place
    Tail(tail::TailArguments),
    /// Print the configuration of a cache in front: Varnish, nginx, Squid or Fastly
    Edge(edge::EdgeArguments),
    /// Look at a deployment from outside, and say what is wrong with its cache
    Doctor(doctor::DoctorArguments),
    /// Read every record of a log on disk and say what is damaged
    Check(copies::CheckArguments),
    /// Copy a log on disk, also while it is served
    Backup(copies::CopyArguments),
    /// Copy a backup to where it can be served, and note in every channel what it lacks
    Restore(copies::CopyArguments),
    /// Open subscribers, publish at a rate, and measure what arrives
    Bench(bench::BenchArguments),
}

/// The exit status of every mistake in flags and variables, as clap has it for those that it finds.
const EXIT_USAGE: u8 = 2;

/// Reads the command line and runs what it asks for.
pub fn start() -> ExitCode {
    let variables = Variables::of(&Arguments::command());
    if let Some(error) = variables.misspelt(std::env::vars_os().map(|(name, _)| name)) {
        return misused(&error);
    }
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => {
            // What was not printed could not be said in another way either.
            error.print().unwrap_or_default();
            if error.use_stderr()
                && let Some(note) = variable_behind(&error.to_string())
            {
                eprintln!("\nheadwater: {note}");
            }
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Publish(arguments) => publish::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Edge(arguments) => edge::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Check(arguments) => copies::check(arguments),
        Command::Backup(arguments) => copies::backup(arguments),
        Command::Restore(arguments) => copies::restore(arguments),
        Command::Bench(arguments) => bench::run(arguments),
    }
}

fn variable_behind(text: &str) -> Option<String> {
    let typed: Vec<_> = std::env::args_os().collect();
    let is_set = |name: &str| std::env::var_os(name).is_some();
    Variables::of(&Arguments::command()).behind(text, &typed, is_set)
}

/// Says what is wrong with the flags, and which variable set a flag that nobody typed.
fn misused(error: &str) -> ExitCode {
    let note = variable_behind(error).map(|note| format!(" ({note})")).unwrap_or_default();
    eprintln!("headwater: {error}{note}");
    ExitCode::from(EXIT_USAGE)
}

/// A refusal of the origin as a sentence; anything else as it came.
fn readable(answer: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    match ["title", "detail"].map(|name| problem[name].as_str()) {
        [Some(title), Some(detail)] => format!("{title}: {detail}"),
        _ => answer.to_owned(),
    }
}

/// Says what went wrong, once.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("headwater: {error}");
    ExitCode::FAILURE
}

/// A runtime for the client commands.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
