//! Runs the command line and returns its exit code. Everything else is in the library.

use headwater::cli;
use std::process::ExitCode;

/// Chosen for many small connections: it gives back what they leave behind.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::start()
}
