//! Publishes over HTTP/1.1 from many keep-alive connections, each of which waits for its answer:
//! `load ADDRESS PATH CONNECTIONS SECONDS [CREATE-PATH]`. Prints publishes a second, and how long
//! their answers took. The path of a stream that must be created first is given as CREATE-PATH and
//! sent with PUT.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const EVENT_BYTES: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, connections, seconds, create @ ..] = &arguments[..] else {
        panic!("load ADDRESS PATH CONNECTIONS SECONDS [CREATE-PATH]");
    };
    let connections: usize = connections.parse().expect("a number");
    let time = Duration::from_secs(seconds.parse().expect("a number"));
    if let [create] = create {
        let mut stream = BufReader::new(TcpStream::connect(address).expect("a server"));
        send(&mut stream, &request("PUT", create, b""));
    }
    let request = request("POST", path, &[b'x'; EVENT_BYTES]);
    let (times, begun) = (Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let stream = TcpStream::connect(address).expect("a server");
                stream.set_nodelay(true).expect("a socket");
                let mut stream = BufReader::new(stream);
                let mut own = Vec::new();
                while begun.elapsed() < time {
                    let sent = Instant::now();
                    send(&mut stream, &request);
                    own.push(sent.elapsed().as_micros() as u32);
                }
                times.lock().expect("no panic").extend(own);
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut times = times.into_inner().expect("no panic");
    times.sort_unstable();
    let at = |part: f64| f64::from(times[((times.len() - 1) as f64 * part) as usize]) / 1e3;
    println!(
        "{:.0} publishes/s from {connections} connections; ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, \
         most {:.1}",
        times.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn send(stream: &mut BufReader<TcpStream>, request: &[u8]) {
    stream.get_mut().write_all(request).expect("it is sent");
    let (mut length, mut line) = (0, String::new());
    stream.read_line(&mut line).expect("an answer");
    assert!(line.contains(" 2"), "{line}");
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(number) = header.strip_prefix("content-length:") {
            length = number.trim().parse().expect("a length");
        }
    }
    stream.read_exact(&mut vec![0; length]).expect("a body");
}
