//! Ten thousand hostile connections for a minute: the latency of honest clients must not rise above
//! five times the undisturbed one.

use crate::kit::socket::{Heard, Socket};
use crate::kit::{Origin, Random};
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
/// The number of hostile peers. It exceeds the asserted number of connections, because peers that
/// never read notice late that the origin closed their connection.
const PEERS: u64 = HOSTILE + 2_500;
/// The hostile peers connect over this time, so that the origin does not close all of them at once.
const GATHERING_MS: u64 = 20_000;
const SIEGE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(20);
/// The number of honest subscribers of each kind (streams and WebSockets).
const LISTENERS: usize = 25;
const PACE: Duration = Duration::from_millis(40);
/// The pause between two bytes of a peer that sends slowly.
const DRIP: Duration = Duration::from_secs(5);
const LAST: &str = "last";

/// What a hostile peer does with its connection until the origin closes it.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Sends nothing.
    Silence,
    /// Sends a request head that never ends, one byte at a time.
    SlowHead,
    /// Sends a request body that never ends, one byte at a time.
    SlowBody,
    /// Subscribes to the channel of the honest subscribers, and never reads.
    NeverReads,
    /// Sends the HTTP/2 preface and nothing after it.
    SilentH2,
    /// Opens a WebSocket, and neither reads nor answers pings.
    DeafSocket,
    /// Opens a WebSocket, and sends fragments of a message that never ends.
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
    /// Returns the bytes that are sent at once, and the bytes that are sent every `DRIP` after
    /// that.
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
            // The message begins with an empty text frame, and each continuation frame is empty
            // too.
            Self::EndlessMessage => (HANDSHAKE.to_owned(), b"\x00\x80mask"),
        }
    }
}

async fn connect(server: SocketAddr, number: u64) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // The receive buffer is small, and the peers are spread over 100 source addresses in each of
    // several ranges.
    socket.set_recv_buffer_size(4 * 1024)?;
    let own = [127, 0, 1 + (number / 20_000) as u8, 1 + (number % 100) as u8];
    socket.bind(SocketAddr::from((own, 0)))?;
    socket.connect(server).await
}

/// Repeats the attack whenever the origin closes the connection.
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
    /// Attacks over one connection until the origin closes it or the siege is over.
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

/// The time at which each event was sent, and its delay at each honest subscriber.
#[derive(Default)]
struct Notes {
    sent: Mutex<Vec<Instant>>,
    delays: Mutex<Vec<Duration>>,
}

impl Notes {
    /// Records the delay of an event, and checks that its number is `next`.
    fn heard(&self, data: &str, next: &mut usize) {
        let number: usize = data.parse().expect("a number");
        assert_eq!(number, *next, "lost or doubled");
        *next += 1;
        let delay = self.sent.lock().expect("no panic")[number].elapsed();
        self.delays.lock().expect("no panic").push(delay);
    }

    /// Returns the 99th percentile of the delays since the last call.
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

/// Publishes for `time`, alternately over HTTP and over a WebSocket.
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
    // The hostile peers run in a thread of their own, so that their cost does not delay the honest
    // clients in this process.
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
