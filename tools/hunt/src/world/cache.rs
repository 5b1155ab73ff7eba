//! A shared cache (RFC 9111) in front of the origins. It collapses requests for the same key while
//! a fetch is under way, and it may keep objects too long, expire them early, evict them, abort a
//! response in its middle, or hold a body back until it is complete. After a response that is not
//! kept, each request for its key may go to the origin alone for some time (hit-for-miss).

use super::World;
use super::origin::Origin;
use crate::random::Random;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What an edge answers while it reaches no origin, so that no `EventSource` ends.
const UNREACHABLE: &[u8] = b"retry: 5000\n\n";

/// The head of a response, as far as clients and caches need it.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub status: u16,
    pub content_type: String,
    /// How long the response stays fresh after it was received, in ms.
    fresh_ms: u64,
    /// The number of the origin that sent it.
    pub origin: Option<usize>,
}

/// How a cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// For how long an object is served after its freshness, in ms.
    pub keep_late_ms: u64,
    /// By how much an object expires early, in ms.
    pub early_ms: u64,
    /// Whether a body is held back until it is complete.
    pub holds_back: bool,
    /// One response in this many is not kept, although it may be. 0: every such response is kept.
    pub unkept_one_in: u64,
    /// For how long each request goes to the origin alone after a response that is not kept, in ms.
    pub hit_for_miss_ms: u64,
}

/// A cache, or a tier of one.
pub struct Cache {
    world: Arc<World>,
    upstream: Upstream,
    manner: Manner,
    random: Mutex<Random>,
    objects: Mutex<BTreeMap<String, Arc<Object>>>,
}

/// Where a client or a cache sends its requests.
#[derive(Clone)]
pub enum Upstream {
    /// To any origin.
    Origins,
    /// To a cache.
    Cache(Arc<Cache>),
}

/// A response in a cache.
#[derive(Default)]
pub struct Object {
    content: Mutex<Content>,
    changed: Notify,
}

#[derive(Default)]
struct Content {
    head: Option<Head>,
    body: Vec<u8>,
    /// How the body has ended: whole, or aborted.
    is_whole: Option<bool>,
    fresh_until: u64,
    /// Until when each request for the key goes to the origin alone.
    alone_until: u64,
}

/// The body of a response that is being read.
pub enum Body {
    Direct(Incoming, #[expect(dead_code, reason = "dropping it closes the connection")] Connection),
    Stored(Arc<Object>, usize, bool),
}

type Answer<'a> = Pin<Box<dyn Future<Output = (Head, Body)> + Send + 'a>>;

/// A connection, which is closed when it is dropped.
pub struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Head {
    fn of(response: &Response<Incoming>, origin: usize) -> Self {
        let text = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let control = text(CACHE_CONTROL.as_str());
        let max_age = control.split("max-age=").nth(1).and_then(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|age| age.parse::<u64>().ok())
        });
        let exact = text("headwater-fresh").parse::<f64>().ok().map(|left| (left * 1_000.0) as u64);
        let fresh_ms = exact.or(max_age.map(|age| age * 1_000)).unwrap_or(0);
        Self {
            status: response.status().as_u16(),
            content_type: text(CONTENT_TYPE.as_str()),
            fresh_ms,
            origin: Some(origin),
        }
    }
}

impl Body {
    /// Returns the next bytes; `None` at the end of a whole body.
    ///
    /// # Errors
    /// Fails when the body is aborted.
    pub async fn next(&mut self) -> Option<Result<Bytes, ()>> {
        match self {
            Self::Direct(body, _) => match body.frame().await? {
                Ok(frame) => Some(Ok(frame.into_data().unwrap_or_default())),
                Err(_) => Some(Err(())),
            },
            Self::Stored(object, from, holds_back) => loop {
                let changed = object.changed.notified();
                {
                    let content = object.content.lock();
                    let is_ready = !*holds_back || content.is_whole == Some(true);
                    match content.is_whole {
                        Some(false) => return Some(Err(())),
                        _ if is_ready && *from < content.body.len() => {
                            let bytes = Bytes::copy_from_slice(&content.body[*from..]);
                            *from = content.body.len();
                            return Some(Ok(bytes));
                        }
                        Some(true) => return None,
                        None => {}
                    }
                }
                changed.await;
            },
        }
    }
}

/// Sends a request to an origin.
async fn ask_origin(
    origin: &Origin,
    path: &str,
    cursor: &str,
) -> Option<(Head, Incoming, Connection)> {
    let pipe = TokioIo::new(origin.connect());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(pipe).await.ok()?;
    let connection = Connection(tokio::spawn(async move { connection.await.unwrap_or_default() }));
    let mut request = Request::get(path)
        .header(HOST, "world")
        .header("accept", "text/event-stream")
        .header(CACHE_CONTROL, "no-cache");
    if !cursor.is_empty() {
        request = request.header("last-event-id", cursor);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
    let head = Head::of(&response, origin.number);
    Some((head, response.into_body(), connection))
}

impl Upstream {
    /// Requests a path. Returns `None` if nothing can be reached.
    pub async fn get(
        &self,
        world: &Arc<World>,
        random: &mut Random,
        path: &str,
        cursor: &str,
    ) -> Option<(Head, Body)> {
        match self {
            Self::Origins => {
                let origin = world.any_origin(random)?;
                let (head, body, connection) = ask_origin(&origin, path, cursor).await?;
                Some((head, Body::Direct(body, connection)))
            }
            Self::Cache(cache) => Some(cache.get(path, cursor).await),
        }
    }
}

impl Cache {
    /// Returns an empty cache.
    pub fn new(world: Arc<World>, upstream: Upstream, manner: Manner, random: Random) -> Arc<Self> {
        let (random, objects) = (Mutex::new(random), Mutex::default());
        Arc::new(Self { world, upstream, manner, random, objects })
    }

    /// Forgets all objects. Responses that are being sent go on.
    pub fn evict(&self) {
        self.objects.lock().clear();
    }

    /// Breaks off all responses that are being received.
    pub fn abort(&self) {
        let objects = std::mem::take(&mut *self.objects.lock());
        objects.values().for_each(|object| object.end(false));
    }

    /// Answers a request. The future is boxed because a cache may be behind a cache.
    fn get<'a>(self: &'a Arc<Self>, path: &'a str, cursor: &'a str) -> Answer<'a> {
        Box::pin(self.answer(path, cursor))
    }

    async fn answer(self: &Arc<Self>, path: &str, cursor: &str) -> (Head, Body) {
        let key = format!("{path} {cursor}");
        let now = self.world.time.passed_ms();
        let (object, is_new) = {
            let mut objects = self.objects.lock();
            match objects.get(&key) {
                Some(object) if object.serves(now, self.manner) => (object.clone(), false),
                found => {
                    // No other request finds the object of a request that goes alone.
                    let is_alone =
                        found.is_some_and(|object| object.content.lock().alone_until > now);
                    let key = if is_alone { format!("{key} {}", objects.len()) } else { key };
                    let object = Arc::new(Object::default());
                    objects.insert(key, object.clone());
                    (object, true)
                }
            }
        };
        if is_new {
            let seed = self.random.lock().number();
            let fill = self.clone().fill(object.clone(), path.to_owned(), cursor.to_owned(), seed);
            tokio::spawn(fill);
        }
        let head = object.head().await;
        (head, Body::Stored(object, 0, self.manner.holds_back))
    }

    /// Fetches a response, also if its first client leaves.
    async fn fill(self: Arc<Self>, object: Arc<Object>, path: String, cursor: String, seed: u64) {
        let mut random = Random::of(seed, "fetch", 0);
        let answer = self.upstream.get(&self.world, &mut random, &path, &cursor).await;
        let Some((head, mut body)) = answer else {
            let head = Head {
                status: 200,
                content_type: "text/event-stream".to_owned(),
                ..Head::default()
            };
            object.begin(head, 0, 0);
            object.push(UNREACHABLE);
            object.end(true);
            return;
        };
        // Errors are not kept, and the requests that wait for them share them.
        let Manner { unkept_one_in, hit_for_miss_ms, .. } = self.manner;
        let is_refused = unkept_one_in > 0 && Random::of(seed, "unkept", 0).one_in(unkept_one_in);
        let is_kept = matches!(head.status, 200 | 204) && !is_refused;
        let (now, fresh_ms) = (self.world.time.passed_ms(), head.fresh_ms);
        match is_kept {
            true => object.begin(head, now + fresh_ms, 0),
            false => object.begin(head, 0, now + hit_for_miss_ms),
        }
        loop {
            match body.next().await {
                Some(Ok(bytes)) => object.push(&bytes),
                Some(Err(())) => return object.end(false),
                None => return object.end(true),
            }
        }
    }
}

impl Object {
    fn serves(&self, now: u64, manner: Manner) -> bool {
        let content = self.content.lock();
        let until = (content.fresh_until + manner.keep_late_ms).saturating_sub(manner.early_ms);
        content.is_whole != Some(false)
            && (content.head.is_none() || content.fresh_until > 0 && now < until)
    }

    fn begin(&self, head: Head, fresh_until: u64, alone_until: u64) {
        let mut content = self.content.lock();
        content.head = Some(head);
        (content.fresh_until, content.alone_until) = (fresh_until, alone_until);
        drop(content);
        self.changed.notify_waiters();
    }

    fn push(&self, bytes: &[u8]) {
        self.content.lock().body.extend_from_slice(bytes);
        self.changed.notify_waiters();
    }

    fn end(&self, is_whole: bool) {
        self.content.lock().is_whole.get_or_insert(is_whole);
        self.changed.notify_waiters();
    }

    /// Waits for the head. A tier behind this one may keep the response for what is left of its
    /// freshness.
    async fn head(&self) -> Head {
        loop {
            let changed = self.changed.notified();
            if let Some(head) = self.content.lock().head.clone() {
                return head;
            }
            changed.await;
        }
    }
}
