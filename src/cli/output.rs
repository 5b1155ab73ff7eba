//! Standard output, which may be a pipe whose reader closes it, or a file on a full disk.
//!
//! The macros `print` and `println` of the standard library panic when they cannot write. Those of
//! this module take their place in all commands, and end the process: with success when the reader
//! has closed the pipe, as in `headwater stats | head`, and otherwise with an error.

use std::fmt;
use std::fs::File;
use std::future::pending;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

macro_rules! print {
    ($($text:tt)*) => { $crate::cli::output::write(format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => {{
        print!($($text)*);
        print!("\n");
    }};
}

/// Writes to standard output, and ends the process if that is not possible.
pub fn write(text: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_fmt(text).and_then(|()| output.flush()) {
        std::process::exit(i32::from(failure(&error).is_some()));
    }
}

/// Writes bytes to standard output.
pub fn write_bytes(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Err(error) => failure(&error).unwrap_or(ExitCode::SUCCESS),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Reports why standard output cannot be written, unless its reader has read enough.
fn failure(error: &io::Error) -> Option<ExitCode> {
    let is_of_interest = error.kind() != ErrorKind::BrokenPipe;
    is_of_interest.then(|| super::fail(&format!("cannot write to standard output: {error}")))
}

/// Completes when standard output is a pipe and its reader has closed it. While a command waits for
/// events it writes nothing, and so gets no error. It therefore watches the pipe, and ends when it
/// is closed. The pipe is opened again,
/// because the library makes its pipe non-blocking, and printing needs blocking writes.
pub async fn reader_gone() {
    let output = File::options().write(true).open("/proc/self/fd/1").and_then(Sender::from_file);
    let Ok(output) = output else { return pending().await };
    // The write end of a pipe reports an error when the pipe has no reader.
    output.ready(Interest::ERROR).await.map(drop).unwrap_or_default();
}
