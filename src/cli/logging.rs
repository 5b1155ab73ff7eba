//! The log of `serve`, on standard error.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text for each message
    Text,
    /// One JSON object for each message
    Json,
}

/// The running log, whose level can be changed.
pub struct Log(reload::Handle<Targets, Registry>);

/// Starts the log.
pub fn start_log(level: Level, format: LogFormat) -> Log {
    let (filter, handle) = reload::Layer::new(targets(level));
    // An empty NO_COLOR counts as none (no-color.org).
    let wants_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => {
            let is_colored = wants_color && std::io::stderr().is_terminal();
            lines.with_ansi(is_colored).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Log(handle)
}

impl Log {
    /// Changes the level.
    pub fn set_level(&self, level: Level) {
        // This fails only after the log has ended, which is when the process ends.
        self.0.reload(targets(level)).unwrap_or_default();
    }
}

/// The libraries of the connections of clients. They log single frames, so one client could fill the
/// log.
const CLIENT_LIBRARIES: [&str; 3] = ["h2", "hyper", "hyper_util"];

/// What is logged at a level. Of libraries only errors are logged, unless `level` is debug; of those
/// of the connections of clients, only errors at every level.
fn targets(level: Level) -> Targets {
    let of_libraries = if level > Level::INFO { level } else { Level::ERROR };
    let targets = Targets::new().with_default(of_libraries).with_target("headwater", level);
    targets.with_targets(CLIENT_LIBRARIES.map(|library| (library, Level::ERROR)))
}
