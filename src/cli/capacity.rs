//! The limits of the machine: how many files the process may open (each connection is a file), and
//! how much memory it may use.

use crate::server::ServerConfig;
use crate::telemetry::process::raise_file_limit;

/// Least value of `--answer-bytes`, in bytes: room for several of the largest responses.
const ANSWER_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Files that connections may not use: the log, the listeners, operators and Redis need them.
const SPARE_FILES: usize = 64;
/// Connections over `--max-connections` that are still answered: their streams are shed.
const OVERLOAD_CONNECTIONS: usize = 512;
/// With fewer files than this, an origin can serve only a few clients.
const FEW_FILES: usize = 1_024;

/// Limits the served connections, and the additional ones that are shed, by the number of files
/// that the process may open.
pub fn bound(server: &mut ServerConfig) {
    let files = usize::try_from(raise_file_limit()).unwrap_or(usize::MAX);
    if files < FEW_FILES {
        tracing::warn!(files, "this process may open few files only; raise ulimit -n");
    }
    let (possible, overload) = shares(files);
    if possible < server.max_connections {
        tracing::info!(files, connections = possible, "the file limit bounds the connections");
        server.max_connections = possible;
    }
    server.overload_connections = overload;
}

/// The connections to serve, and the additional ones to shed, for this number of files.
fn shares(files: usize) -> (usize, usize) {
    let overload = OVERLOAD_CONNECTIONS.min(files / 4);
    // With very few files, a quarter of them is still for clients.
    (files.saturating_sub(SPARE_FILES + overload).max(files / 4), overload)
}

/// Checks `--answer-bytes`. `None` stands for a part of the memory of the machine.
///
/// # Errors
/// Fails when the value is less than 16 MiB, but not 0.
pub fn answer_bytes(asked: u64) -> Result<Option<usize>, String> {
    match asked {
        0 => Ok(None),
        1..ANSWER_BYTES_MIN => Err("--answer-bytes takes at least 16MiB, or 0".to_owned()),
        bytes => Ok(Some(bytes as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_however_few_there_are() {
        assert_eq!(shares(64), (16, 16));
        assert_eq!(shares(1_024), (704, 256));
        assert_eq!(shares(20_000), (19_424, 512));
    }
}
