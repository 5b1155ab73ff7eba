//! How much the machine lets a process have: files, of which each connection is one, and memory.

use crate::server::ServerConfig;
use crate::telemetry::process::raise_file_limit;

/// The least `--answer-bytes`: some of the largest answers.
const ANSWER_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Files that are not for connections: the log, the listeners, operators and Redis.
const SPARE_FILES: usize = 64;
/// Connections over `--max-connections` that are still answered, with the advice to come back.
const OVERLOAD_CONNECTIONS: usize = 512;
/// With fewer files than this, an origin serves hardly anybody.
const FEW_FILES: usize = 1_024;

/// Bounds the connections, and those beyond them that are still answered, by the files that the
/// process may open.
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

/// Connections, and those beyond them, for so many files.
fn shares(files: usize) -> (usize, usize) {
    let overload = OVERLOAD_CONNECTIONS.min(files / 4);
    // Where hardly any file is spare, a quarter is for clients.
    (files.saturating_sub(SPARE_FILES + overload).max(files / 4), overload)
}

/// `--answer-bytes`; `None` stands for a part of the memory of the machine.
///
/// # Errors
/// When it is too little.
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
