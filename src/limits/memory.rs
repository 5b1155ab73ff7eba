//! Divides the memory that the process may use between its buffers and its connections. Flags
//! replace these defaults.
//!
//! The buffers, the store in memory and the connections together get at most five eighths of the
//! memory. The rest is for the program and its indexes, for the kernel's part of the sockets, and
//! for the allocator, which keeps freed memory for some seconds.

/// Most bytes of the tail buffers, however much memory there is.
const TAILS_MAX: u64 = 256 << 20;
/// Most bytes of publishes that are being read, however much memory there is.
const PUBLISHES_MAX: u64 = 64 << 20;
/// Most bytes that a store in memory keeps, however much memory there is.
const STORED_MAX: u64 = 1 << 30;
/// Most connections, however much memory there is.
const CONNECTIONS_MAX: u64 = 50_000;
/// Memory that is reserved for a connection. A stream needs about 1 KiB, a WebSocket 10 KiB, and a
/// connection that has served a request up to 11 KiB.
const CONNECTION_BYTES: u64 = 8 << 10;

/// The default limits for a process with a certain amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Most bytes of responses.
    pub answers: usize,
    /// Most bytes of the tail buffers of all channels.
    pub tails: usize,
    /// Most bytes of publishes that are being read.
    pub publishes: usize,
    /// Most bytes of what the pumps keep for slow subscribers.
    pub windows: usize,
    /// Most bytes of events and state in a store in memory.
    pub stored: u64,
    /// Most connections.
    pub connections: usize,
}

impl MemoryShares {
    /// Divides `memory` bytes.
    pub fn of(memory: u64) -> Self {
        let sixteenth = memory / 16;
        Self {
            answers: (memory / 4) as usize,
            tails: sixteenth.min(TAILS_MAX) as usize,
            publishes: sixteenth.min(PUBLISHES_MAX) as usize,
            windows: sixteenth as usize,
            stored: sixteenth.min(STORED_MAX),
            connections: (2 * sixteenth / CONNECTION_BYTES).clamp(1, CONNECTIONS_MAX) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_leave_three_eighths_of_the_memory() {
        for mib in [32, 64, 200, 512, 2_048, 8_192, 1 << 20] {
            let memory = mib << 20;
            let shares = MemoryShares::of(memory);
            let buffers = shares.answers + shares.tails + shares.publishes + shares.windows;
            let connections = shares.connections as u64 * CONNECTION_BYTES;
            let sum = buffers as u64 + shares.stored + connections;
            assert!(sum <= memory / 8 * 5, "{mib} MiB: {shares:?}");
        }
    }

    #[test]
    fn a_large_machine_has_the_largest_parts_and_a_small_one_smaller_parts() {
        let large = MemoryShares::of(64 << 30);
        assert_eq!((large.tails, large.publishes), (256 << 20, 64 << 20));
        assert_eq!((large.stored, large.connections), (1 << 30, 50_000));
        let small = MemoryShares::of(160 << 20);
        assert_eq!((small.answers, small.tails, small.publishes), (40 << 20, 10 << 20, 10 << 20));
        assert_eq!((small.stored, small.connections), (10 << 20, 2_560));
    }
}
