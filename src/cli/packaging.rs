//! `headwater completions` and `headwater man`, which print the completions of shells and write the
//! manual pages that packages contain.

use super::output::write_bytes;
use super::{Arguments, fail};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub struct CompletionsArguments {
    /// Shell for which to print the completions
    shell: Shell,
}

#[derive(Args, Debug)]
pub struct ManArguments {
    /// Directory to write the pages to, one for each command; without it, headwater(1) is printed
    directory: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub fn completions(CompletionsArguments { shell }: &CompletionsArguments) -> ExitCode {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    // The library panics where it cannot write, so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(*shell, &mut command, name, &mut text);
    write_bytes(&text)
}

/// Prints headwater(1), or writes the pages of all commands.
pub fn man(ManArguments { directory }: &ManArguments) -> ExitCode {
    let command = Arguments::command();
    let Some(directory) = directory else {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        clap_mangen::Man::new(command).render(&mut text).unwrap_or_default();
        return write_bytes(&text);
    };
    let made = std::fs::create_dir_all(directory);
    match made.and_then(|()| clap_mangen::generate_to(command, directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write to {}: {error}", directory.display())),
    }
}
