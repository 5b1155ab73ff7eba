//! All publishers in one thread with epoll. Each has one keep-alive connection and one request under
//! way, and sends at the times of a schedule, or as soon as it has its answer.

use crate::event::Stamp;
use crate::http::Response;
use crate::plan::Plan;
use crate::tally::{Numbers, Shared, times};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

const BUFFER_BYTES: usize = 64 * 1024;
const WAIT_MAX: Duration = Duration::from_millis(20);
/// Longest wait for answers when no more is sent.
const LAST_ANSWERS_NS: u64 = 5_000_000_000;
/// Time before a connection is made anew that the server has refused or closed.
const RECONNECT_NS: u64 = 20_000_000;
/// Bytes of a refusal that are kept, to say why.
const REFUSAL_BYTES: usize = 300;

struct Publisher {
    stream: Option<TcpStream>,
    connected: bool,
    response: Response,
    /// When the request was written that waits for its answer.
    sent: Option<u64>,
    /// The number of the next event.
    next: u32,
    /// When a connection is made, where there is none.
    connect_at: u64,
    acknowledged: Numbers,
}

pub struct Publishers<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    poll: Poll,
    all: Vec<Publisher>,
    begun: u64,
    answers: Histogram<u64>,
    unanswered: u64,
    refused: u64,
    refusal: Option<String>,
    buffer: Vec<u8>,
    request: Vec<u8>,
}

pub struct Outcome {
    /// The events that the server acknowledged, for each publisher.
    pub acknowledged: Vec<Numbers>,
    /// Times from the write of a request to the end of its answer.
    pub answers: Histogram<u64>,
    /// Requests whose connection ended before the answer.
    pub unanswered: u64,
    /// Requests whose answer had another status than 2xx, and the first of them.
    pub refused: u64,
    pub refusal: Option<String>,
}

impl<'a> Publishers<'a> {
    pub fn new(plan: &'a Plan, shared: &'a Shared) -> Self {
        let unconnected = || Publisher {
            stream: None,
            connected: false,
            response: Response::default(),
            sent: None,
            next: 0,
            connect_at: 0,
            acknowledged: Numbers::default(),
        };
        Self {
            plan,
            shared,
            poll: Poll::new().expect("epoll"),
            all: std::iter::repeat_with(unconnected).take(plan.publishers).collect(),
            begun: shared.now(),
            answers: times(),
            unanswered: 0,
            refused: 0,
            refusal: None,
            buffer: vec![0; BUFFER_BYTES],
            request: Vec::new(),
        }
    }

    /// Publishes until that is no longer wanted, then waits for the last answers.
    pub fn run(mut self) -> Outcome {
        let mut events = Events::with_capacity(256);
        let mut stopped_at = None;
        loop {
            let now = self.shared.now();
            if !self.shared.publishing.load(Ordering::Relaxed) {
                let stopped_at = *stopped_at.get_or_insert(now);
                let waiting = self.all.iter().any(|publisher| publisher.sent.is_some());
                if !waiting || now - stopped_at > LAST_ANSWERS_NS {
                    break;
                }
            }
            let wait = if stopped_at.is_some() { WAIT_MAX } else { self.send_due(now) };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => result.expect("epoll waits"),
            }
            for event in &events {
                self.all[event.token().0].connected |= event.is_writable();
                self.read(event.token().0);
            }
        }
        Outcome {
            acknowledged: self.all.into_iter().map(|publisher| publisher.acknowledged).collect(),
            answers: self.answers,
            unanswered: self.unanswered,
            refused: self.refused,
            refusal: self.refusal,
        }
    }

    /// Sends what is due; how long nothing else is.
    fn send_due(&mut self, now: u64) -> Duration {
        let mut wait = WAIT_MAX;
        for number in 0..self.all.len() {
            let publisher = &self.all[number];
            let due = if publisher.stream.is_none() {
                publisher.connect_at
            } else if publisher.sent.is_none() && publisher.connected {
                self.due(number)
            } else {
                continue;
            };
            if due > now {
                wait = wait.min(Duration::from_nanos(due - now));
            } else if publisher.stream.is_none() {
                self.connect(number);
            } else {
                self.send(number);
            }
        }
        wait
    }

    /// When the next event of a publisher is due. The publishers take turns evenly.
    fn due(&self, number: usize) -> u64 {
        if self.plan.rate == 0.0 {
            return 0;
        }
        let turn = f64::from(self.all[number].next) * self.all.len() as f64 + number as f64;
        self.begun + (turn / self.plan.rate * 1e9) as u64
    }

    fn connect(&mut self, number: usize) {
        let publisher = &mut self.all[number];
        publisher.connect_at = self.shared.now() + RECONNECT_NS;
        let Ok(mut stream) = TcpStream::connect(self.plan.publish_address) else {
            return;
        };
        stream.set_nodelay(true).expect("an option");
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), interest).expect("epoll");
        (publisher.stream, publisher.connected) = (Some(stream), false);
        publisher.response = Response::default();
    }

    fn send(&mut self, number: usize) {
        let publisher = &mut self.all[number];
        let Some(stream) = &mut publisher.stream else {
            return;
        };
        let sent = self.shared.now();
        let sequence = publisher.next;
        let stamp = Stamp { run: self.plan.run, publisher: number as u8, sequence, sent };
        let [before, after] = &self.plan.publish;
        self.request.clear();
        self.request.extend_from_slice(before);
        self.request.extend_from_slice(stamp.data().as_bytes());
        self.request.extend_from_slice(after);
        publisher.next += 1;
        publisher.sent = Some(sent);
        publisher.response = Response::default();
        // The socket has room for a request, since the request before it was answered.
        if stream.write_all(&self.request).is_err() {
            self.disconnect(number);
        }
    }

    fn read(&mut self, number: usize) {
        loop {
            let publisher = &mut self.all[number];
            let Some(stream) = &mut publisher.stream else {
                return;
            };
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => return self.disconnect(number),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.disconnect(number),
            };
            if publisher.response.feed(&self.buffer[..count], |_| {}).is_err() {
                return self.disconnect(number);
            }
            if publisher.response.is_done() {
                self.answered(number, count);
            }
            if count < BUFFER_BYTES {
                return;
            }
        }
    }

    fn answered(&mut self, number: usize, count: usize) {
        let publisher = &mut self.all[number];
        let Some(sent) = publisher.sent.take() else {
            return self.disconnect(number);
        };
        let now = self.shared.now();
        if self.shared.in_window(sent) {
            self.answers.saturating_record((now - sent).max(1));
        }
        if (200..300).contains(&publisher.response.status) {
            publisher.acknowledged.insert(publisher.next - 1);
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused += 1;
            let text = &self.buffer[..count.min(REFUSAL_BYTES)];
            self.refusal.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
        }
        if publisher.response.closes {
            self.disconnect(number);
        }
    }

    fn disconnect(&mut self, number: usize) {
        let publisher = &mut self.all[number];
        publisher.stream = None;
        self.unanswered += u64::from(publisher.sent.take().is_some());
    }
}
