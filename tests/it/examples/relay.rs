//! A relay between the programs and an origin, which breaks connections in the ways that a test
//! chooses.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A relay on a port of its own. It ends when the value is dropped.
pub struct Relay {
    pub port: u16,
    faults: Arc<Faults>,
    _running: JoinSet<()>,
}

#[derive(Default)]
struct Faults {
    /// Each answer with a multiple of this number is withheld; 0: none is.
    withhold_every: AtomicUsize,
    answers: AtomicUsize,
    withheld: AtomicUsize,
    /// How many connections the origin has refused.
    refused: AtomicUsize,
    /// The next answer with this text is cut before it.
    cut_before: Mutex<Option<String>>,
    /// How often `silence` was called. A connection from before the last call is silent.
    silences: AtomicUsize,
}

impl Relay {
    pub async fn start(origin: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let faults = Arc::<Faults>::default();
        let mut running = JoinSet::new();
        let shared = faults.clone();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                connections.spawn(shared.clone().connection(client, origin));
            }
        });
        Self { port, faults, _running: running }
    }

    /// Withholds each answer with a multiple of this number, and closes its connection instead; 0
    /// withholds none. An answer is what arrives from the origin at once, so this is for publishes.
    pub fn withhold_every(&self, number: usize) {
        self.faults.withhold_every.store(number, SeqCst);
    }

    /// From now on, the connections that are open carry nothing, but stay open.
    pub fn silence(&self) {
        self.faults.silences.fetch_add(1, SeqCst);
    }

    /// Closes the next connection that delivers this text, before the text.
    pub fn cut_before(&self, text: &str) {
        *self.faults.cut_before.lock().expect("no panic") = Some(text.to_owned());
    }

    /// Whether the connection was cut for which `cut_before` was called.
    pub fn has_cut(&self) -> bool {
        self.faults.cut_before.lock().expect("no panic").is_none()
    }

    /// The number of answers so far.
    pub fn answers(&self) -> usize {
        self.faults.answers.load(SeqCst)
    }

    pub fn withheld(&self) -> usize {
        self.faults.withheld.load(SeqCst)
    }

    /// Waits until the origin has refused `count` connections more than at the call.
    pub async fn refuses(&self, count: usize) {
        let before = self.faults.refused.load(SeqCst);
        while self.faults.refused.load(SeqCst) < before + count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `count` answers were withheld.
    pub async fn withholds(&self, count: usize) {
        while self.withheld() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Faults {
    async fn connection(self: Arc<Self>, client: TcpStream, origin: SocketAddr) {
        let era = self.silences.load(SeqCst);
        let Ok(server) = TcpStream::connect(origin).await else {
            self.refused.fetch_add(1, SeqCst);
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // When one direction ends, both connections are closed.
        tokio::select! {
            () = self.carry(from_client, to_server, era, false) => {}
            () = self.carry(from_server, to_client, era, true) => {}
        }
    }

    async fn carry(
        &self,
        mut from: OwnedReadHalf,
        mut to: impl AsyncWriteExt + Unpin,
        era: usize,
        has_answers: bool,
    ) {
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if self.silences.load(SeqCst) > era {
                continue;
            }
            if has_answers && self.is_withheld() {
                return;
            }
            let cut = if has_answers { self.cut(&buffer[..read]) } else { None };
            let is_sent = to.write_all(&buffer[..cut.unwrap_or(read)]).await.is_ok();
            if cut.is_some() || !is_sent {
                return;
            }
        }
    }

    /// The place in these bytes at which the connection is to be closed.
    fn cut(&self, bytes: &[u8]) -> Option<usize> {
        let mut text = self.cut_before.lock().expect("no panic");
        let wanted = text.as_ref()?.as_bytes();
        let place = bytes.windows(wanted.len()).position(|window| window == wanted)?;
        *text = None;
        Some(place)
    }

    /// Counts an answer.
    fn is_withheld(&self) -> bool {
        let number = self.answers.fetch_add(1, SeqCst) + 1;
        let every = self.withhold_every.load(SeqCst);
        let is_withheld = every > 0 && number.is_multiple_of(every);
        self.withheld.fetch_add(usize::from(is_withheld), SeqCst);
        is_withheld
    }
}
