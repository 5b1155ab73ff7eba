//! The CPU time that the kernel alone needs: one thread calls `send` over loopback, once for each
//! client and event.
//!
//! To judge a result of `headwater bench`, run this benchmark on the same machine at about the same
//! time, and divide `server_cpu_us_per_delivery` by the time per `send` that it prints. Run it with
//! `cargo bench --bench floor -- <clients> <events a second>`.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const SECONDS: u32 = 8;
/// An event of 200 bytes with its id and its chunk.
const BYTES: usize = 240;
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<usize>().ok());
    let clients = numbers.next().unwrap_or(1_000);
    let rate = numbers.next().unwrap_or(100) as u32;
    headwater::telemetry::process::raise_file_limit();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (readers, writers): (Vec<TcpStream>, Vec<TcpStream>) = (0..clients)
        .map(|_| {
            let reader = TcpStream::connect(address).expect("it listens");
            reader.set_nonblocking(true).expect("a socket");
            let (writer, _) = listener.accept().expect("a client");
            writer.set_nodelay(true).expect("a socket");
            (reader, writer)
        })
        .unzip();
    // Ends when the writers are gone.
    let reading = std::thread::spawn(move || read_all(readers));
    let cpu_us = send_all(&writers, rate);
    drop(writers);
    reading.join().expect("the reader ends");
    let sends = f64::from(rate * SECONDS) * clients as f64;
    println!("{clients} clients, {rate} events/s: {:.2} us of CPU per send", cpu_us / sends);
}

/// Microseconds of this thread's CPU time.
fn send_all(writers: &[TcpStream], rate: u32) -> f64 {
    let (before, begun) = (thread_ticks(), Instant::now());
    let event = [b'x'; BYTES];
    for number in 1..=rate * SECONDS {
        for mut writer in writers {
            writer.write_all(&event).expect("the reader reads");
        }
        let due = Duration::from_secs(1) * number / rate;
        std::thread::park_timeout(due.saturating_sub(begun.elapsed()));
    }
    (thread_ticks() - before) / TICKS_PER_SECOND * 1e6
}

fn read_all(mut readers: Vec<TcpStream>) {
    let mut buffer = [0; 64 * 1024];
    while !readers.is_empty() {
        readers.retain_mut(|reader| match reader.read(&mut buffer) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn thread_ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().expect("ticks"))
        .sum()
}
