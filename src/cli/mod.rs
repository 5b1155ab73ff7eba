//! The command line: flags in, finished values out. One file a command; the first line of each
//! flag's help is what `--help` shows, with its unit.

mod access;
mod bench;
mod doctor;
mod edge;
mod limits;
mod publish;
mod serve;
mod tail;
mod token;
mod units;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    Serve(Box<serve::ServeArguments>),
    /// Publish one event, or events from standard input, a line each
    Publish(publish::PublishArguments),
    /// Make a token, for development
    Token(token::TokenArguments),
    /// Print a channel's events as they come; reconnects and keeps its place
    Tail(tail::TailArguments),
    /// Print the configuration of a cache in front: Varnish, nginx or Fastly
    Edge(edge::EdgeArguments),
    /// Look at a deployment from outside, and say what is wrong with its cache
    Doctor(doctor::DoctorArguments),
    /// Open subscribers, publish at a rate, and measure what arrives
    Bench(bench::BenchArguments),
}

/// The process was told something it cannot do: the sysexits code for that.
const EXIT_USAGE: u8 = 64;

/// Runs what the command line asks for.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Publish(arguments) => publish::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Edge(arguments) => edge::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
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
