//! The load client and the bare loop of the comparison of Headwater with its peers; the script
//! `benches/peers/run` calls them.
//!
//! `peers measure` reads a plan as JSON from its standard input and prints one JSON object.
//! `peers loop ADDRESS` serves the bare loop.
//!
//! The client has three threads (publishers, subscribers, and one that only takes the measurements),
//! because it has to leave the machine of two cores to the server. Publishers and subscribers are in
//! one process, so that one clock gives both ends of a latency.

mod baseline;
mod event;
mod http;
mod measure;
mod plan;
mod process;
mod publishers;
mod subscribers;
mod tally;
#[cfg(test)]
mod tests;

use baseline::{BareLoop, Faults};
use plan::Plan;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match &words[..] {
        ["measure"] => measure(),
        ["loop", address] => serve(address),
        _ => Err("peers measure < PLAN | peers loop ADDRESS".to_owned()),
    };
    if let Err(error) = result {
        eprintln!("peers: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn measure() -> Result<(), String> {
    let text = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?;
    let plan = Plan::parse(&text)?;
    println!("{}", measure::measure(&plan));
    Ok(())
}

fn serve(address: &str) -> Result<(), String> {
    let parsed = address.parse().map_err(|_| format!("{address} is no address"))?;
    let faults = Faults::default();
    let server = BareLoop::bind(parsed, &faults).map_err(|error| format!("{address}: {error}"))?;
    println!("listens on {}", server.address());
    server.serve(|| true);
    Ok(())
}
