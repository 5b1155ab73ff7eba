//! Standard output as a pipe. While a command waits for events it writes nothing, and so gets no
//! error when the reader closes the pipe. It therefore watches the pipe, and ends when it is
//! closed.

use std::fs::File;
use std::future::pending;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// Completes when standard output is a pipe and its reader has closed it. The pipe is opened again,
/// because the library makes its pipe non-blocking, and printing needs blocking writes.
pub async fn reader_gone() {
    let output = File::options().write(true).open("/proc/self/fd/1").and_then(Sender::from_file);
    let Ok(output) = output else { return pending().await };
    // The write end of a pipe reports an error when the pipe has no reader.
    output.ready(Interest::ERROR).await.map(drop).unwrap_or_default();
}
