//! Arguments in, exit code out; everything else is in the library.

use clap::Parser;
use headwater::cli;
use std::process::ExitCode;

/// Of the usual allocators the one that leaves least behind for many small connections
/// (resident KiB for an idle one: jemalloc 9.3, glibc 12.0, mimalloc 20.2; docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
