//! Fuzz targets for the parsers that bytes from outside reach. One program has all of them; the
//! variable `FUZZ_TARGET` chooses one (see `tests/fuzz`).

#![no_main]

mod input;
mod memory;
mod stream_model;
mod targets;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

libfuzzer_sys::fuzz_target!(init: targets::choose(), |bytes: &[u8]| targets::run(bytes));
