//! The parser of the configuration file, for `tools/fuzz`.

pub use super::units::{bytes, duration};

use super::Arguments;
use super::config_file::ConfigFile;
use clap::CommandFactory;

/// The values of each setting in the text of a configuration file, in the order of the names, and
/// whether `serve` accepts all of them.
///
/// # Errors
/// Fails with the number of the faulty line and the text of the error.
pub fn settings(text: &str) -> Result<(Vec<(String, Vec<String>)>, bool), (usize, String)> {
    let command = Arguments::command();
    let Some(serve) = command.find_subcommand("serve") else { return Err((0, String::new())) };
    let file = ConfigFile::of_text(text, serve)?;
    let is_accepted = file.apply(serve.clone()).try_get_matches_from(["serve"]).is_ok();
    Ok((file.into_values(), is_accepted))
}
