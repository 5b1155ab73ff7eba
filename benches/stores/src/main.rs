//! The embedded store beside redb and fjall, on the same work: durable publishes of 200 bytes, one
//! at a time and from 64 publishers at once, batches, catch-up, and opening a large log.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml [EVENTS] [DIRECTORY]` prints a
//! table in Markdown. Each engine runs in a process of its own, so that memory can be compared.
//! Give the machine nothing else to do meanwhile, and a DIRECTORY on the disk that counts.

mod engines;

use engines::{Engine, Fjall, Headwater, Redb};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// Bytes of one event's data.
const EVENT_BYTES: usize = 200;
const SINGLE: usize = 5_000;
const PUBLISHERS: usize = 64;
const FROM_MANY: usize = 64_000;
const BATCH: usize = 1_000;
/// The most events of one catch-up page, as the hub reads them.
const PAGE: usize = 1_000;

/// A publish that waits for its commit.
type Waiting = (Vec<u8>, Sender<()>);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [engine, events, directory] = &arguments[..]
        && let Ok(events) = events.parse()
    {
        return run(engine, events, Path::new(directory));
    }
    let events = arguments.first().map_or("1000000", String::as_str);
    let place = arguments.get(1).map_or(".", String::as_str);
    println!(
        "| engine | one at a time | 64 publishers | batches of 1,000 | bytes written per byte \
         (the same three) | catch-up | open {events} events | memory then |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for engine in ["redb", "fjall", "headwater"] {
        let directory = tempfile::tempdir_in(place).expect("a directory");
        let path = directory.path().to_str().expect("a path");
        let this = std::env::current_exe().expect("this program");
        let status = Command::new(this).args([engine, events, path]).status();
        assert!(status.expect("it runs").success(), "{engine} failed");
    }
}

fn run(engine: &str, events: usize, directory: &Path) {
    match engine {
        "redb" => measure(engine, Redb::open, events, directory),
        "fjall" => measure(engine, Fjall::open, events, directory),
        _ => measure(engine, Headwater::open, events, directory),
    }
}

fn measure<E: Engine>(name: &str, open: fn(&Path) -> E, events: usize, directory: &Path) {
    let single = {
        let engine = open(&directory.join("single"));
        let publish = || (0..SINGLE).for_each(|_| engine.commit(&[event()]));
        rate(SINGLE, publish)
    };
    let many = {
        let engine = open(&directory.join("many"));
        rate(FROM_MANY, || from_many(&engine))
    };
    let path = directory.join("batches");
    let engine = open(&path);
    let batch = vec![event(); BATCH];
    let batches = rate(events, || (0..events / BATCH).for_each(|_| engine.commit(&batch)));
    let (read, seconds) = timed(|| engine.read_all(PAGE));
    assert_eq!(read, events, "{name} reads all");
    drop(engine);
    let before = resident();
    let (engine, opened) = timed(|| open(&path));
    let grown = resident().saturating_sub(before);
    println!(
        "| {name} | {:.0}/s | {:.0}/s | {:.0}/s | {:.1}, {:.1}, {:.2} | {:.2} M/s | {:.0} ms | {} MiB |",
        single.0,
        many.0,
        batches.0,
        single.1,
        many.1,
        batches.1,
        events as f64 / seconds / 1e6,
        opened * 1e3,
        grown >> 20,
    );
    drop(engine);
}

/// Events a second, and bytes written for each byte of data.
fn rate(events: usize, work: impl FnOnce()) -> (f64, f64) {
    let before = written();
    let ((), seconds) = timed(work);
    let bytes = written() - before;
    (events as f64 / seconds, bytes as f64 / (events * EVENT_BYTES) as f64)
}

/// Publishers that each wait for their event, and one writer that commits all that wait: what the
/// store of Headwater does itself is done for the other engines here.
fn from_many<E: Engine>(engine: &E) {
    let (sender, queue): (Sender<Waiting>, Receiver<Waiting>) = channel();
    std::thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            let sender = sender.clone();
            scope.spawn(move || {
                for _ in 0..FROM_MANY / PUBLISHERS {
                    if E::GROUPS_COMMITS {
                        engine.commit(&[event()]);
                        continue;
                    }
                    let (reply, done) = channel();
                    sender.send((event(), reply)).expect("a writer");
                    done.recv().expect("an answer");
                }
            });
        }
        drop(sender);
        while let Ok(first) = queue.recv() {
            let (events, replies): (Vec<_>, Vec<_>) =
                std::iter::once(first).chain(queue.try_iter()).unzip();
            engine.commit(&events);
            replies.iter().for_each(|reply| reply.send(()).expect("a publisher"));
        }
    });
}

fn event() -> Vec<u8> {
    vec![b'x'; EVENT_BYTES]
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed().as_secs_f64())
}

fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).expect("a number")
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|number| number.trim().parse::<u64>().ok()).expect("a number") * 1024
}
