//! Ten thousand hostile connections for a minute, and what honest clients notice of them.

use crate::kit::{Origin, Random};
use crate::socket_kit::{Heard, Socket};
use headwater::client::{EventSource, Signal};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

const HOSTILE: u64 = 10_000;
/// More than are counted: those that never read notice late that they were cut off.
const PEERS: u64 = HOSTILE + 2_500;
/// They come one after another for so long, so that not all are cut off at once.
const GATHERING_MS: u64 = 20_000;
const SIEGE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(20);
/// Honest listeners of each way, and the pause between two events.
const LISTENERS: usize = 25;
const PACE: Duration = Duration::from_millis(40);
/// Between two bytes of who sends slowly.
const DRIP: Duration = Duration::from_secs(5);
const LAST: &str = "last";

/// What a hostile peer does with its connection, until it is cut off.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Sends nothing.
    Silence,
    /// A head that never ends, a byte at a time.
    SlowHead,
    /// A body that never ends, a byte at a time.
    SlowBody,
    /// Subscribes to what others hear too, and never reads.
    NeverReads,
    /// HTTP/2 that never goes on.
    SilentH2,
    /// A WebSocket that neither reads nor answers pings.
    DeafSocket,
    /// A WebSocket that sends pieces of a message that never ends.
    EndlessMessage,
}

const ATTACKS: [Attack; 7] = [
    Attack::Silence,
    Attack::SlowHead,
    Attack::SlowBody,
    Attack::NeverReads,
    Attack::SilentH2,
    Attack::DeafSocket,
    Attack::EndlessMessage,
];
const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Attack {
    /// What is sent at once, and what after that from time to time.
    fn bytes(self) -> (String, &'static [u8]) {
        match self {
            Self::Silence => (String::new(), b""),
            Self::SlowHead => {
                ("GET /channels/a HTTP/1.1\r\nHost: localhost\r\nX: ".to_owned(), b"x")
            }
            Self::SlowBody => {
                let head = "POST /channels/hostile HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n";
                (format!("{head}\r\n"), b"x")
            }
            Self::NeverReads => {
                ("GET /channels/a?after=0-0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), b"")
            }
            Self::SilentH2 => ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), b""),
            Self::DeafSocket => (HANDSHAKE.to_owned(), b""),
            // Behind an empty piece of text more and more of it, as empty.
            Self::EndlessMessage => (HANDSHAKE.to_owned(), b"\x00\x80mask"),
        }
    }
}

async fn connect(server: SocketAddr, number: u64) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Little room for what is not read, and an address of its own for every hundredth.
    socket.set_recv_buffer_size(4 * 1024)?;
    let own = [127, 0, 1 + (number / 20_000) as u8, 1 + (number % 100) as u8];
    socket.bind(SocketAddr::from((own, 0)))?;
    socket.connect(server).await
}

/// Attacks again whenever it is cut off.
async fn besiege(server: SocketAddr, number: u64, is_over: Arc<AtomicBool>) {
    let attack = ATTACKS[number as usize % ATTACKS.len()];
    let mut random = Random::new(number);
    sleep(Duration::from_millis(random.below(GATHERING_MS))).await;
    while !is_over.load(Ordering::Relaxed) {
        match connect(server, number).await {
            Ok(stream) => attack.keep_up(stream, &is_over).await.unwrap_or_default(),
            Err(_) => sleep(Duration::from_millis(100 + random.below(400))).await,
        }
    }
}

impl Attack {
    /// Until it is cut off.
    async fn keep_up(self, mut stream: TcpStream, is_over: &AtomicBool) -> std::io::Result<()> {
        let (at_once, drip) = self.bytes();
        stream.write_all(at_once.as_bytes()).await?;
        let mut drips = interval(DRIP);
        drips.reset();
        if let Self::EndlessMessage = self {
            stream.write_all(b"\x01\x80mask").await?;
        }
        let reads = matches!(self, Self::SlowHead | Self::SlowBody | Self::Silence);
        let mut buffer = [0; 512];
        while !is_over.load(Ordering::Relaxed) {
            tokio::select! {
                read = stream.read(&mut buffer), if reads => if read? == 0 {
                    return Ok(());
                },
                _ = drips.tick() => stream.write_all(drip).await?,
            }
            let readiness = stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
            if !reads && readiness.is_read_closed() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// When each event was sent, and how long it took to each honest listener.
#[derive(Default)]
struct Notes {
    sent: Mutex<Vec<Instant>>,
    delays: Mutex<Vec<Duration>>,
}

impl Notes {
    /// Notes an event; the next must follow it.
    fn heard(&self, data: &str, next: &mut usize) {
        let number: usize = data.parse().expect("a number");
        assert_eq!(number, *next, "lost or doubled");
        *next += 1;
        let delay = self.sent.lock().expect("no panic")[number].elapsed();
        self.delays.lock().expect("no panic").push(delay);
    }

    /// The 99th percentile since the last look.
    fn p99(&self) -> Duration {
        let mut delays = std::mem::take(&mut *self.delays.lock().expect("no panic"));
        assert!(delays.len() > 5_000, "{} delays prove little", delays.len());
        delays.sort_unstable();
        delays[delays.len() * 99 / 100]
    }
}

async fn listen_to_a_stream(mut source: EventSource, notes: Arc<Notes>) {
    let mut next = 0;
    loop {
        match source.next().await {
            Signal::Message(message) if message.data == LAST => return,
            Signal::Message(message) if message.kind == "message" => {
                notes.heard(&message.data, &mut next);
            }
            Signal::Closed { why, .. } => panic!("closed: {why}"),
            _ => {}
        }
    }
}

async fn listen_to_a_socket(server: SocketAddr, notes: Arc<Notes>) {
    let mut socket = Socket::connect(server).await;
    socket.subscribe("a", Some("0-0")).await;
    let mut next = 0;
    loop {
        match socket.next().await {
            Heard::Frame(frame) if frame["data"] == LAST => return,
            Heard::Frame(frame) => notes.heard(frame["data"].as_str().expect("data"), &mut next),
            Heard::Closed(why) => panic!("closed: {why:?}"),
        }
    }
}

/// Publishes for a while, by turns over HTTP and over a socket.
async fn publish_for(origin: &Origin, socket: &mut Socket, notes: &Notes, time: Duration) {
    let (begun, mut pace) = (Instant::now(), interval(PACE));
    while begun.elapsed() < time {
        pace.tick().await;
        let number = {
            let mut sent = notes.sent.lock().expect("no panic");
            sent.push(Instant::now());
            sent.len() - 1
        };
        let data = number.to_string();
        if number % 2 == 0 {
            origin.publish("a", &data).await;
        } else {
            let frame = json!({ "type": "publish", "channel": "a", "data": data });
            socket.say(frame).await;
            assert_eq!(socket.hear().await["type"], "ack");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_connections_cost_honest_clients_nothing() {
    let _alone = crate::kit::alone().await;
    headwater::telemetry::process::raise_file_limit();
    let origin = Origin::start();
    let notes = Arc::new(Notes::default());
    let mut listeners = JoinSet::new();
    for _ in 0..LISTENERS {
        let source = origin.source("/channels/a", Some("0-0"));
        listeners.spawn(listen_to_a_stream(source, notes.clone()));
        listeners.spawn(listen_to_a_socket(origin.listen, notes.clone()));
    }
    let mut publisher = Socket::connect(origin.listen).await;
    publish_for(&origin, &mut publisher, &notes, QUIET).await;
    let quiet = notes.p99();
    let is_over = Arc::new(AtomicBool::new(false));
    let (server, flag) = (origin.listen, is_over.clone());
    // A thread of their own: what they cost themselves is not the origin's.
    let hostile = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut peers = JoinSet::new();
            (0..PEERS).for_each(|number| drop(peers.spawn(besiege(server, number, flag.clone()))));
            while peers.join_next().await.is_some() {}
        });
    });
    while origin.metric("headwater_connections_open").await < HOSTILE as f64 {
        publish_for(&origin, &mut publisher, &notes, Duration::from_millis(200)).await;
    }
    notes.delays.lock().expect("no panic").clear();
    let (begun, mut fewest) = (Instant::now(), f64::MAX);
    while begun.elapsed() < SIEGE {
        publish_for(&origin, &mut publisher, &notes, Duration::from_secs(1)).await;
        fewest = fewest.min(origin.metric("headwater_connections_open").await);
    }
    let besieged = notes.p99();
    is_over.store(true, Ordering::Relaxed);
    origin.publish("a", LAST).await;
    let all = async { while listeners.join_next().await.is_some_and(|one| one.is_ok()) {} };
    timeout(Duration::from_secs(30), all).await.expect("everyone has the last event");
    assert!(listeners.is_empty(), "a listener lost something");
    hostile.join().expect("they end by themselves");
    println!("p99 {quiet:?} quiet, {besieged:?} besieged; {fewest} connections at least");
    assert!(fewest >= HOSTILE as f64, "{fewest} connections");
    assert!(besieged < quiet * 5, "{besieged:?} besieged, {quiet:?} quiet");
}
