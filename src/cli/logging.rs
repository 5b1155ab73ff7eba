//! The log of `serve`, on standard error.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text for each message
    Text,
    /// One JSON object for each message
    Json,
}

/// Starts the log. Libraries log warnings about single frames of single clients, so one client
/// could fill the log; therefore only their errors are logged, unless `level` is debug or trace.
pub fn start_log(level: Level, format: LogFormat) {
    let of_libraries = if level > Level::INFO { level } else { Level::ERROR };
    let targets = Targets::new().with_default(of_libraries).with_target("headwater", level);
    // An empty NO_COLOR counts as none (no-color.org).
    let wants_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let is_colored = wants_color && std::io::stderr().is_terminal();
            log.with_ansi(is_colored).finish().with(targets).init();
        }
        LogFormat::Json => {
            log.json().flatten_event(true).with_target(false).finish().with(targets).init();
        }
    }
}
