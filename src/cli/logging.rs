//! The log of `serve`, on standard error.

use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log. Libraries log warnings about single frames of single clients, so one client
/// could fill the log; therefore only their errors are logged, unless `level` is debug or trace.
pub fn start_log(level: Level) {
    let of_libraries = if level > Level::INFO { level } else { Level::ERROR };
    let targets = Targets::new().with_default(of_libraries).with_target("headwater", level);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .finish()
        .with(targets)
        .init();
}
