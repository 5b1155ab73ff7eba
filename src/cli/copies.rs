//! `headwater check`, `backup` and `restore` work on the directory of a store on disk directly, and
//! not through a running origin. An origin may use the directory during a backup, but not during a
//! check.

use super::{fail, rotation};
use crate::store::local::copy::{self, Report};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub struct CheckArguments {
    /// Directory of a log that no process uses: --store disk:<directory>, or a backup
    directory: PathBuf,
}

#[derive(Args, Debug)]
pub struct CopyArguments {
    /// Directory to copy from
    from: PathBuf,
    /// New directory to copy to
    to: PathBuf,
}

#[derive(Args, Debug)]
pub struct BackupArguments {
    #[command(flatten)]
    copy: CopyArguments,
    /// Make the copy in a directory below TO that is named by the time (UTC), and remove the oldest
    /// such copies, so that this number is kept (count)
    #[arg(long, value_name = "COPIES")]
    keep: Option<NonZeroUsize>,
}

/// Prints a report about a log. The exit status is 1 when the log is damaged or cannot be read.
pub fn check(arguments: CheckArguments) -> ExitCode {
    let CheckArguments { directory } = arguments;
    match copy::check(&directory) {
        Err(error) => fail(&format!("cannot check {}: {error}", directory.display())),
        Ok(report) => {
            print!("{report}");
            match report.damage.is_empty() {
                true => ExitCode::SUCCESS,
                false => {
                    eprintln!(
                        "headwater: what is damaged is lost; serve sends gap events in its place, \
                         and everything else"
                    );
                    ExitCode::FAILURE
                }
            }
        }
    }
}

pub fn backup(arguments: BackupArguments) -> ExitCode {
    let BackupArguments { copy: CopyArguments { from, to }, keep } = arguments;
    let copied = match keep {
        None => copy::backup(&from, &to),
        Some(keep) => rotation::backup(&from, &to, keep),
    };
    match copied {
        Ok(copy) if !copy.damage.is_empty() => {
            print!("{copy}");
            fail(
                &"the log is damaged, and so is this copy; what was lost may be in an older copy, \
                 so none was removed",
            )
        }
        copied => report(copied.map_err(|error| {
            format!("cannot back up {} to {}: {error}", from.display(), to.display())
        })),
    }
}

pub fn restore(CopyArguments { from, to }: CopyArguments) -> ExitCode {
    let copied = copy::restore(&from, &to);
    report(
        copied.map_err(|error| {
            format!("cannot restore {} to {}: {error}", from.display(), to.display())
        }),
    )
}

fn report(done: Result<Report, String>) -> ExitCode {
    match done {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}
