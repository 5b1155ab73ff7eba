//! All subscribers in one thread with epoll: a socket, a parser of its response and the numbers of
//! its events for each, no task and no timer.

use crate::event::Scanner;
use crate::http::Response;
use crate::plan::Plan;
use crate::tally::{Received, Shared};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most connections that wait for the head of their response at once. The queue of connections of
/// a listening socket has 511 places in nginx and Node.js.
const OPENING_MAX: usize = 128;
const BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;
/// The flag that ends the thread is read at least this often.
const WAIT_MAX: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Connecting,
    Open,
    Ended,
    Refused,
}

struct Subscriber {
    state: State,
    stream: Option<TcpStream>,
    response: Response,
    scanner: Scanner,
}

pub struct Subscribers<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    poll: Poll,
    all: Vec<Subscriber>,
    next: usize,
    opening: usize,
    received: Received,
    buffer: Vec<u8>,
}

/// What is left when the subscribers are closed.
pub struct Outcome {
    pub received: Received,
    /// Subscribers whose stream was open to the last.
    pub whole: Vec<usize>,
}

impl<'a> Subscribers<'a> {
    pub fn new(plan: &'a Plan, shared: &'a Shared) -> Self {
        let waiting = || Subscriber {
            state: State::Waiting,
            stream: None,
            response: Response::default(),
            scanner: Scanner::default(),
        };
        Self {
            plan,
            shared,
            poll: Poll::new().expect("epoll"),
            all: std::iter::repeat_with(waiting).take(plan.subscribers).collect(),
            next: 0,
            opening: 0,
            received: Received::new(plan.run, plan.subscribers, plan.publishers),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Opens the streams and reads them until they are no longer wanted.
    pub fn run(mut self) -> Outcome {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while self.shared.subscribing.load(Ordering::Relaxed) {
            while self.next < self.all.len() && self.opening < OPENING_MAX {
                self.connect(self.next);
                self.next += 1;
            }
            match self.poll.poll(&mut events, Some(WAIT_MAX)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => result.expect("epoll waits"),
            }
            for event in &events {
                let number = event.token().0;
                if self.all[number].state == State::Connecting
                    && event.is_writable()
                    && !self.all[number].response.has_head()
                {
                    self.subscribe(number);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(number);
                }
            }
        }
        let whole = (0..self.all.len()).filter(|number| self.all[*number].state == State::Open);
        Outcome { whole: whole.collect(), received: self.received }
    }

    fn connect(&mut self, number: usize) {
        self.opening += 1;
        self.all[number].state = State::Connecting;
        let Ok(mut stream) = TcpStream::connect(self.plan.subscribe_address) else {
            return self.end(number);
        };
        // A reset at the end leaves no socket in TIME_WAIT, so ports do not run out.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), interest).expect("epoll");
        self.all[number].stream = Some(stream);
    }

    fn subscribe(&mut self, number: usize) {
        let Some(stream) = &mut self.all[number].stream else {
            return;
        };
        let sent = stream.take_error().ok().flatten().is_none()
            && stream.write_all(&self.plan.subscribe).is_ok();
        // Events of room to write would wake the thread after each acknowledged segment.
        let registry = self.poll.registry();
        if !sent || registry.reregister(stream, Token(number), Interest::READABLE).is_err() {
            self.end(number);
        }
    }

    fn read(&mut self, number: usize) {
        loop {
            let Some(stream) = &mut self.all[number].stream else {
                return;
            };
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.end(number),
                Ok(count) if !self.take(number, count) => return self.end(number),
                // A read that does not fill the buffer has emptied the socket, as epoll(7) says.
                Ok(count) if count < BUFFER_BYTES => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.end(number),
            }
        }
    }

    /// Counts what is in the buffer; whether the stream goes on.
    fn take(&mut self, number: usize, count: usize) -> bool {
        let now = self.shared.now();
        let subscriber = &mut self.all[number];
        let mut new = 0;
        let read = subscriber.response.feed(&self.buffer[..count], |body| {
            subscriber.scanner.feed(body, |stamp| {
                new += u64::from(self.received.count(self.shared, number, stamp, now));
            });
        });
        if new > 0 {
            self.shared.delivered.fetch_add(new, Ordering::Relaxed);
        }
        if subscriber.state == State::Connecting && subscriber.response.has_head() {
            if subscriber.response.status != 200 {
                return false;
            }
            subscriber.state = State::Open;
            self.opening -= 1;
            self.shared.opened.fetch_add(1, Ordering::Relaxed);
        }
        read.is_ok() && !subscriber.response.is_done()
    }

    fn end(&mut self, number: usize) {
        let subscriber = &mut self.all[number];
        subscriber.stream = None;
        if subscriber.state == State::Open {
            subscriber.state = State::Ended;
            self.shared.ended.fetch_add(1, Ordering::Relaxed);
        } else {
            subscriber.state = State::Refused;
            self.opening -= 1;
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
