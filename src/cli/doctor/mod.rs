//! `headwater doctor` examines a deployment from the side of its clients, and reports faults.
//!
//! It needs no access to the cache. The origin names each response to a request for a stream
//! (`Headwater-Response`), and the opening block of a response shows for which cursor it was made
//! and when it ends. A few clients with cursors that no other client uses can therefore see whether
//! the cache shares, delays or mixes responses.

mod checks;
mod findings;
mod probe;
mod subscribers;

use super::block_on;
use crate::client::http::Address;
use crate::core::event::ChannelName;
use checks::Checks;
use clap::Args;
use findings::Report;
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::time::Duration;

/// Exit status when the deployment could not be examined.
const EXIT_UNREACHABLE: u8 = 3;

#[derive(Args, Debug, Clone)]
pub struct DoctorArguments {
    /// URL that clients connect to: the public URL of the edge
    url: Address,
    /// Channel to examine; with --publish-url, events are published to it
    #[arg(long, default_value = "headwater.doctor", value_parser = channel)]
    channel: String,
    /// URL to publish probes to; without it nothing is published and delays are not measured
    #[arg(long)]
    publish_url: Option<Address>,
    /// Bearer token for publishing
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// URL of the origin's admin listener, if it can be reached; its count of streams is reported
    #[arg(long)]
    admin_url: Option<Address>,
    /// Number of clients that send the same request at once (count)
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1000))]
    clients: u64,
    /// Do not expect shared responses: there is no cache, or a cache that does not share them
    /// (nginx/stream.conf). An origin without an edge still has one finding, dead-on-error: only an
    /// edge can keep a failure from ending an EventSource
    #[arg(long)]
    direct: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: DoctorArguments) -> ExitCode {
    let as_json = arguments.json;
    let progress = ProgressBar::new(checks::STEPS);
    let style = ProgressStyle::with_template("{bar:20} {elapsed} {msg}");
    progress.set_style(style.unwrap_or(ProgressStyle::default_bar()));
    progress.enable_steady_tick(Duration::from_millis(200));
    let url = arguments.url.clone();
    let report = block_on(Checks::run(arguments, progress.clone()));
    progress.finish_and_clear();
    match report {
        Ok(Ok(report)) => {
            if as_json {
                println!("{:#}", report.json(&url));
            } else {
                print(&report, &url);
            }
            let is_ill = report.findings.iter().any(|finding| finding.fault.is_problem());
            if is_ill { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Ok(Err(why)) => unreachable_exit(&why, &url, as_json),
        Err(why) => unreachable_exit(&why, &url, as_json),
    }
}

fn unreachable_exit(why: &dyn std::fmt::Display, url: &Address, as_json: bool) -> ExitCode {
    if as_json {
        println!("{:#}", serde_json::json!({ "url": url.to_string(), "error": why.to_string() }));
    }
    eprintln!("headwater: {why}; nothing could be examined");
    ExitCode::from(EXIT_UNREACHABLE)
}

fn print(report: &Report, url: &Address) {
    println!("{url}");
    for (name, value) in &report.measured {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        println!("  {name:<28} {value}");
    }
    for finding in &report.findings {
        let mark = if finding.fault.is_problem() { "PROBLEM" } else { "note" };
        println!("\n{mark}: {} ({})", finding.seen, finding.fault.code());
        println!("  {}", finding.fault.change());
    }
    for skipped in &report.skipped {
        println!("\nnot looked at: {skipped}");
    }
    if !report.findings.iter().any(|finding| finding.fault.is_problem()) {
        println!("\nno problem found");
    }
}

fn channel(text: &str) -> Result<String, String> {
    ChannelName::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
