//! Publishes over HTTP/1.1 from many keep-alive connections, each of which waits for its answer:
//! `load ADDRESS PATH CONNECTIONS SECONDS [CREATE-PATH]`. Prints publishes a second. The path of a
//! stream that must be created first is given as CREATE-PATH and sent with PUT.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
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
    let (count, begun) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let stream = TcpStream::connect(address).expect("a server");
                stream.set_nodelay(true).expect("a socket");
                let mut stream = BufReader::new(stream);
                while begun.elapsed() < time {
                    send(&mut stream, &request);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let rate = count.into_inner() as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} publishes/s from {connections} connections");
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
