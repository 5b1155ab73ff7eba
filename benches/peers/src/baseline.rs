//! The bare loop: a server that does nothing but one `send` for each client and event, which is the
//! cost of the kernel alone. It keeps no events, has one channel, and parses no more than it must.
//!
//! A publish is answered when it was sent to all, so publishers wait for the loop when it is slow.

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX);
/// Most bytes that wait for a client that does not read; then it is disconnected.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";

/// Faults that the loop makes, so that the load client can be checked.
#[derive(Default)]
pub struct Faults {
    /// Each delivery whose number is a multiple of this one is left out.
    pub drop_every: Option<u64>,
    /// Each delivery whose number is a multiple of this one is sent twice.
    pub repeat_every: Option<u64>,
    /// Bytes of a chunk, where an event is cut into several.
    pub chunk_bytes: Option<usize>,
    /// Time for which each event is held back.
    pub hold: Option<Duration>,
    pub dropped: AtomicU64,
    pub repeated: AtomicU64,
}

struct Connection {
    stream: TcpStream,
    subscribed: bool,
    inbox: Vec<u8>,
    waiting: Vec<u8>,
}

pub struct BareLoop<'a> {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    faults: &'a Faults,
    deliveries: u64,
    events: u64,
}

impl<'a> BareLoop<'a> {
    pub fn bind(address: SocketAddr, faults: &'a Faults) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (connections, free) = (Vec::new(), Vec::new());
        Ok(Self { poll, listener, connections, free, faults, deliveries: 0, events: 0 })
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Serves as long as `goes_on` says, which is asked at least ten times a second.
    pub fn serve(mut self, mut goes_on: impl FnMut() -> bool) {
        let mut events = Events::with_capacity(1024);
        while goes_on() {
            let wait = Duration::from_millis(100);
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.expect("epoll waits"),
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(number) if event.is_writable() && !self.flush(number) => {
                        self.close(number);
                    }
                    Token(number) if event.is_readable() && !self.read(number) => {
                        self.close(number);
                    }
                    _ => {}
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nodelay(true).expect("an option");
            let number = self.free.pop().unwrap_or(self.connections.len());
            self.connections.resize_with(self.connections.len().max(number + 1), || None);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(number), interest).expect("epoll");
            let (inbox, waiting) = (Vec::new(), Vec::new());
            let connection = Connection { stream, subscribed: false, inbox, waiting };
            self.connections[number] = Some(connection);
        }
    }

    fn close(&mut self, number: usize) {
        if self.connections[number].take().is_some() {
            self.free.push(number);
        }
    }

    /// Whether the connection stays.
    fn read(&mut self, number: usize) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(connection) = &mut self.connections[number] else {
                return true;
            };
            match connection.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => connection.inbox.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while let Some((publish, used)) = request(&self.connections[number]) {
            let Some(connection) = &mut self.connections[number] else {
                return true;
            };
            connection.inbox.drain(..used);
            connection.subscribed = publish.is_none();
            let answer = if publish.is_some() { ACCEPTED } else { STREAM_HEAD };
            if let Some(data) = publish {
                self.broadcast(&data);
            }
            if !self.send(number, answer) {
                return false;
            }
        }
        true
    }

    fn broadcast(&mut self, data: &[u8]) {
        self.events += 1;
        let until = self.faults.hold.map(|hold| Instant::now() + hold);
        while let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now()))
        {
            std::thread::park_timeout(left);
        }
        let event = [format!("id: {}\ndata: ", self.events).as_bytes(), data, b"\n\n"].concat();
        let mut frame = Vec::with_capacity(event.len() + 8);
        for piece in event.chunks(self.faults.chunk_bytes.unwrap_or(event.len())) {
            frame.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            frame.extend_from_slice(piece);
            frame.extend_from_slice(b"\r\n");
        }
        let due = |every: Option<u64>, number: u64| {
            every.is_some_and(|every| number.is_multiple_of(every))
        };
        for number in 0..self.connections.len() {
            if !self.connections[number].as_ref().is_some_and(|found| found.subscribed) {
                continue;
            }
            self.deliveries += 1;
            if due(self.faults.drop_every, self.deliveries) {
                self.faults.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let mut stays = self.send(number, &frame);
            if due(self.faults.repeat_every, self.deliveries) {
                self.faults.repeated.fetch_add(1, Ordering::Relaxed);
                stays &= self.send(number, &frame);
            }
            if !stays {
                self.close(number);
            }
        }
    }

    /// Sends, or keeps for later what the socket has no room for; whether the connection stays.
    fn send(&mut self, number: usize, bytes: &[u8]) -> bool {
        let Some(connection) = &mut self.connections[number] else {
            return true;
        };
        let mut sent = 0;
        if connection.waiting.is_empty() {
            sent = match connection.stream.write(bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return false,
            };
        }
        connection.waiting.extend_from_slice(&bytes[sent..]);
        connection.waiting.len() <= WAITING_BYTES_MAX
    }

    fn flush(&mut self, number: usize) -> bool {
        let Some(connection) = &mut self.connections[number] else {
            return true;
        };
        while !connection.waiting.is_empty() {
            match connection.stream.write(&connection.waiting) {
                Ok(count) => drop(connection.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

/// The first whole request of a connection: the data of a publish, or none where it asks for the
/// stream; and its length.
fn request(connection: &Option<Connection>) -> Option<(Option<Vec<u8>>, usize)> {
    let inbox = &connection.as_ref()?.inbox;
    let head = memmem::find(inbox, b"\r\n\r\n")? + 4;
    if inbox.starts_with(b"GET") {
        return Some((None, head));
    }
    let text = String::from_utf8_lossy(&inbox[..head]).to_ascii_lowercase();
    let (_, after_name) = text.split_once("content-length:")?;
    let length: usize = after_name.lines().next()?.trim().parse().ok()?;
    let data = inbox.get(head..head + length)?;
    Some((Some(data.to_vec()), head + length))
}
