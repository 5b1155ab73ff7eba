//! `headwater backup --keep`, as a timer of the system calls it: each call makes a directory that
//! is named by the time, and removes the oldest backups beyond the given number.

use crate::store::local::copy::{self, Report};
use crate::sync::clock::Clock;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// What the name of a copy ends with until the copy is whole.
const UNFINISHED: &str = ".unfinished";
/// A name with a digit for each `0`.
const NAME: &str = "0000-00-00T00-00-00Z";

/// Copies the log in `from` to a new directory below `to`, then removes the oldest copies there
/// beyond `keep`, and what former runs have left unfinished. If the log is damaged, nothing is
/// removed.
///
/// # Errors
/// Fails when the log cannot be copied, and then removes nothing, or when a copy cannot be removed.
pub fn backup(from: &Path, to: &Path, keep: NonZeroUsize) -> io::Result<Report> {
    let name = name(Clock::default().machine_now());
    let unfinished = to.join(format!("{name}{UNFINISHED}"));
    let whole = to.join(&name);
    if whole.exists() {
        return Err(io::Error::other(format!("{} exists already", whole.display())));
    }
    let report = copy::backup(from, &unfinished)?;
    fs::rename(&unfinished, &whole)?;
    fs::File::open(to)?.sync_all()?;
    // What is damaged in the log may be whole in an older copy.
    if report.damage.is_empty() {
        for copy in expendable(to, keep)? {
            fs::remove_dir_all(&copy)?;
        }
    }
    eprintln!("headwater: the backup is {}", whole.display());
    Ok(report)
}

/// The name of a copy that is made at this time (ms since the Unix epoch).
fn name(now: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(now));
    time.to_string().replace(':', "-")
}

/// The copies beyond the newest `keep`, and unfinished ones. Other files and directories are not
/// touched.
fn expendable(directory: &Path, keep: NonZeroUsize) -> io::Result<Vec<PathBuf>> {
    let (mut whole, mut expendable) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_name(&name) {
            whole.push(entry.path());
        } else if name.strip_suffix(UNFINISHED).is_some_and(is_name) {
            expendable.push(entry.path());
        }
    }
    whole.sort();
    let old = whole.len().saturating_sub(keep.get());
    expendable.extend(whole.drain(..old));
    Ok(expendable)
}

fn is_name(text: &str) -> bool {
    let is_like = |(is, pattern): (u8, u8)| match pattern {
        b'0' => is.is_ascii_digit(),
        _ => is == pattern,
    };
    text.len() == NAME.len() && text.bytes().zip(NAME.bytes()).all(is_like)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_times_in_their_order() {
        assert_eq!(name(1_764_201_600_123), "2025-11-27T00-00-00Z");
        assert!(is_name(&name(0)) && !is_name("2025-11-27T00:00:00Z") && !is_name("notes"));
    }
}
