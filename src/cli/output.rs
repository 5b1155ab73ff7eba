//! Standard output as the other end of a pipe: a command that waits for events must end when nobody
//! reads what it would print.

use std::fs::File;
use std::future::pending;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// Ends when standard output is a pipe and its reader has gone. Opened a second time, because the
/// library makes its pipe non-blocking, and printing must go on to block.
pub async fn reader_gone() {
    let output = File::options().write(true).open("/proc/self/fd/1").and_then(Sender::from_file);
    let Ok(output) = output else { return pending().await };
    // A pipe has an error for its writer when it has no reader.
    output.ready(Interest::ERROR).await.map(drop).unwrap_or_default();
}
