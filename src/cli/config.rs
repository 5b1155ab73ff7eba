//! `headwater config` checks, shows and creates the configuration of `serve`.

use super::config_file::{DEFAULT_PATH, settings_of, shown, source_of};
use super::loaded::Loaded;
use super::serve_flags::ServeArguments;
use super::{Arguments, fail};
use crate::telemetry::process::memory_limit;
use clap::{Arg, ArgAction, Args, CommandFactory, Subcommand};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check the configuration file, the variables and the flags, as `serve` would at its start
    Check(Box<ServeArguments>),
    /// Print every setting that `serve` would use, and where its value comes from
    Show(Box<ServeArguments>),
    /// Write a configuration file with every setting, its meaning and its default
    Init(InitArguments),
}

#[derive(Args, Debug)]
pub struct InitArguments {
    /// File to write; - prints it
    #[arg(default_value = DEFAULT_PATH)]
    path: String,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// The longest line of a comment in the file that `init` writes, in characters.
const COMMENT_WIDTH: usize = 96;
/// Readable by every user, because a service often runs as a user of its own. Secrets belong into
/// other files.
const FILE_MODE: u32 = 0o644;

pub fn run(command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Check(_) => check(),
        ConfigCommand::Show(_) => show(),
        ConfigCommand::Init(arguments) => init(arguments),
    }
}

fn check() -> ExitCode {
    let loaded = match Loaded::load(&["config", "check"]) {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    let checked = loaded.arguments.config(memory_limit());
    let checked = checked.and_then(|config| loaded.arguments.check_openness(&config));
    if let Err(error) = checked {
        return loaded.misused(&error);
    }
    if let Some(warning) = loaded.exposure() {
        eprintln!("headwater: warning: {warning}");
    }
    match &loaded.file {
        Some(file) => println!("{} is valid", file.path().display()),
        None => println!("the flags and variables are valid; there is no configuration file"),
    }
    ExitCode::SUCCESS
}

fn show() -> ExitCode {
    let loaded = match Loaded::load(&["config", "show"]) {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    let mut text = String::new();
    let command = serve_command();
    for arg in settings_of(&command) {
        let values = loaded.values(arg.get_id().as_str());
        let source = source_of(arg, &loaded.matches, loaded.file.as_ref());
        let setting = setting(arg, values);
        // Writing to a string does not fail.
        match source {
            Some(source) => writeln!(text, "{setting}  # {source}"),
            None => writeln!(text, "# {setting}  # default"),
        }
        .unwrap_or_default();
    }
    print!("{text}");
    match loaded.arguments.config(memory_limit()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => loaded.misused(&error),
    }
}

fn init(InitArguments { path, force }: &InitArguments) -> ExitCode {
    let text = example();
    if path == "-" {
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE).create(true).truncate(true).create_new(!force);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {
            println!("{path} is written; every setting in it is a comment that shows the default");
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fail(&format!("{path} exists; give --force to replace it, or - to print the settings"))
        }
        Err(error) => fail(&format!("cannot write {path}: {error}")),
    }
}

fn serve_command() -> clap::Command {
    let command = Arguments::command();
    command.find_subcommand("serve").cloned().unwrap_or_default()
}

/// The text of a configuration file in which every setting is a comment.
fn example() -> String {
    let mut text =
        "# The configuration of `headwater serve`. A key has the name of a flag. A flag \
                    or a variable\n# takes precedence over this file, and this file over the \
                    defaults, which are shown here.\n# Every user can read this file: name a \
                    secret as \"@FILE\" or \"@credential:NAME\" (systemd).\n"
            .to_owned();
    let command = serve_command();
    let mut settings: Vec<_> = settings_of(&command).collect();
    let headings: Vec<_> = settings.iter().map(|arg| arg.get_help_heading()).collect();
    // The sort keeps the order inside of a group.
    settings.sort_by_key(|arg| headings.iter().position(|one| *one == arg.get_help_heading()));
    let mut heading = None;
    for arg in settings {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            text += &format!("\n\n### {}\n", heading.unwrap_or_default());
        }
        text.push('\n');
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        comment(&help, &mut text);
        let defaults = arg.get_default_values().iter();
        let defaults = defaults.map(|value| value.to_string_lossy().into_owned()).collect();
        text += &format!("# {}\n", setting(arg, defaults));
    }
    text
}

/// Appends a text as lines of a comment.
fn comment(help: &str, out: &mut String) {
    out.push('#');
    let mut length = 1;
    for word in help.split_whitespace() {
        if length + 1 + word.len() > COMMENT_WIDTH {
            out.push_str("\n#");
            length = 1;
        }
        out.push(' ');
        out.push_str(word);
        length += 1 + word.len();
    }
    out.push('\n');
}

/// Whether a switch is on, in any of the forms that a variable may have.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "y" | "yes" | "t" | "true" | "on")
}

/// A setting as a line of TOML, without secrets.
fn setting(arg: &Arg, values: Vec<String>) -> String {
    let flag = arg.get_long().unwrap_or_default();
    let is_secret = arg.is_hide_env_values_set();
    let text = |value: &String| {
        let value = if is_secret { shown(flag, value) } else { value.clone() };
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty();
        // A JSON string is also a string of TOML.
        if is_number { value } else { serde_json::Value::from(value).to_string() }
    };
    let value = match (arg.get_action(), &values[..]) {
        (ArgAction::SetTrue, [value]) => is_true(value).to_string(),
        (ArgAction::SetTrue, _) => "false".to_owned(),
        (ArgAction::Append, values) => {
            format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        (_, [value]) => text(value),
        (_, _) => "\"\"".to_owned(),
    };
    format!("{flag} = {value}")
}
