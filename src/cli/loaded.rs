//! The arguments of `serve` with the values of the configuration file.

use super::config_file::ConfigFile;
use super::serve_flags::ServeArguments;
use super::variables::Variables;
use super::{Arguments, EXIT_USAGE, variable_behind};
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::process::ExitCode;

/// The arguments of a command with the flags of `serve`.
pub struct Loaded {
    pub arguments: ServeArguments,
    pub matches: ArgMatches,
    pub file: Option<ConfigFile>,
    command: Command,
}

/// Why the arguments cannot be used.
pub enum LoadError {
    /// The file cannot be used; the text names it.
    File(String),
    /// A flag has a wrong value, which may come from the file.
    Flags(clap::Error, Option<Box<ConfigFile>>),
}

impl Loaded {
    /// Reads the command line, the variables and the configuration file. `path` is the path of the
    /// command, such as `config`, `check`.
    ///
    /// # Errors
    /// Fails when one of them cannot be read.
    pub fn load(path: &[&str]) -> Result<Self, LoadError> {
        let wrong = |error| LoadError::Flags(error, None);
        let root = Arguments::command();
        let typed = root.clone().try_get_matches().map_err(wrong)?;
        let named = leaf(typed, path).get_one::<String>("config").cloned();
        let command = path
            .iter()
            .fold(&root, |command, name| command.find_subcommand(name).unwrap_or(command));
        let command = command.clone();
        let file = ConfigFile::find(named.as_deref(), &command).map_err(LoadError::File)?;
        let root = match &file {
            Some(file) => changed(root, path, &|command| file.apply(command)),
            None => root,
        };
        let parsed = root.try_get_matches().map(|matches| leaf(matches, path));
        let parsed = parsed.and_then(|matches| {
            let arguments = ServeArguments::from_arg_matches(&matches)?;
            Ok((matches, arguments))
        });
        match parsed {
            Ok((matches, arguments)) => Ok(Self { arguments, matches, file, command }),
            Err(error) => Err(LoadError::Flags(error, file.map(Box::new))),
        }
    }

    /// The values of an argument, as they were written.
    pub fn values(&self, id: &str) -> Vec<String> {
        let values = self.matches.get_raw(id).into_iter().flatten();
        values.map(|value| value.to_string_lossy().into_owned()).collect()
    }

    /// A warning if a secret in the file can be read by every user of the machine.
    pub fn exposure(&self) -> Option<String> {
        self.file.as_ref()?.exposure(&self.command)
    }

    /// Describes an error in the flags, and what has set a flag that is not on the command line.
    pub fn explained(&self, error: &str) -> String {
        let note = note(error, self.file.as_ref()).map(|note| format!(" ({note})"));
        format!("{error}{}", note.unwrap_or_default())
    }

    /// Prints an error in the flags.
    pub fn misused(&self, error: &str) -> ExitCode {
        eprintln!("headwater: {}", self.explained(error));
        ExitCode::from(EXIT_USAGE)
    }
}

impl LoadError {
    /// Prints the error.
    pub fn report(self) -> ExitCode {
        match self {
            Self::File(why) => {
                eprintln!("headwater: {why}");
                ExitCode::from(EXIT_USAGE)
            }
            Self::Flags(error, file) => report(&error, file.as_deref()),
        }
    }

    /// The error as one line for the log.
    pub fn line(&self) -> String {
        match self {
            Self::File(why) => why.clone(),
            Self::Flags(error, file) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default().to_owned();
                match note(&text, file.as_deref()) {
                    Some(note) => format!("{first} ({note})"),
                    None => first,
                }
            }
        }
    }
}

/// Prints an error of the command line, and what has set a flag that is not on the command line.
pub fn report(error: &clap::Error, file: Option<&ConfigFile>) -> ExitCode {
    // If the error cannot be printed, there is no other way to report it.
    error.print().unwrap_or_default();
    if error.use_stderr()
        && let Some(note) = note(&error.to_string(), file)
    {
        eprintln!("\nheadwater: {note}");
    }
    ExitCode::from(error.exit_code() as u8)
}

fn note(text: &str, file: Option<&ConfigFile>) -> Option<String> {
    let typed: Vec<_> = std::env::args_os().collect();
    let variables = Variables::of(&Arguments::command());
    let is_set =
        |flag: &str| variables.of_flag(flag).is_some_and(|name| std::env::var_os(name).is_some());
    let in_file = file.and_then(|file| file.behind(text, &typed, is_set));
    let notes: Vec<_> = variable_behind(text).into_iter().chain(in_file).collect();
    (!notes.is_empty()).then(|| notes.join(", "))
}

/// The matches of the subcommand at `path`.
fn leaf(mut matches: ArgMatches, path: &[&str]) -> ArgMatches {
    for _ in path {
        if let Some((_, inner)) = matches.remove_subcommand() {
            matches = inner;
        }
    }
    matches
}

/// Changes the subcommand at `path`.
fn changed(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [name, rest @ ..] => command.mut_subcommand(name, |inner| changed(inner, rest, change)),
    }
}
