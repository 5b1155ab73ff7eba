//! Instruction counts of the hot paths, which do not depend on what else the machine does.
//!
//! `cargo test --release --bench costs` compares them with the counts below, and fails where one
//! differs by more than the tolerance. The program runs itself under callgrind (Debian's valgrind)
//! with N and with 2N operations, so that the start of the process does not count. A count that
//! has fallen fails too: write the lower one here, so that later changes are compared with it.

use headwater::core::cursor::{Cursor, EventId};
use headwater::core::event::{ChannelName, Event, StoredEvent};
use headwater::core::resume::ResumeFrom;
use headwater::core::segment::SegmentClock;
use headwater::core::sse::{EventWriter, Format};
use headwater::core::tail_buffer::TailBuffer;
use headwater::fanout::group::{AfterSlice, Group, Joiner, Subscribers, WindowLimits};
use headwater::fanout::socket::Socket;
use headwater::http::route::{Query, Route};
use headwater::hub::event_stream::{CountedStream, EventStream, StreamAccount};
use headwater::hub::registry::ChannelRegistry;
use headwater::hub::{Hub, Join, Wanted};
use headwater::limits::budget::Budget;
use headwater::store::local::{Backing, FILE_BYTES, LocalConfig, LocalStore};
use headwater::store::{Limits, Publication};
use headwater::sync::clock::Clock;
use headwater::telemetry::metrics::JoinKind;
use std::hint::black_box;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

/// An operation, the number of its repetitions, the function whose instructions count (empty: those
/// of the whole program), and the instructions of one repetition.
const COSTS: [(&str, u64, &str, u64); 4] = [
    ("append", 2_000, "", 5_976),
    ("join", 1_000, "headwater::hub::join*", 5_597),
    ("parse", 2_000, "", 11_602),
    ("pass over 1,000 subscribers", 20, "headwater::fanout::group::Group::slice*", 125_544),
];
/// The most by which a count may differ. On one machine the counts differ by less than a thousandth;
/// another compiler or libc changes them by some percent.
const TOLERANCE: f64 = 0.10;

const SUBSCRIBERS: usize = 1_000;
const TIMEOUT: Duration = Duration::from_secs(60);
const BYTES: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name, count] = &words[..]
        && word == "run"
    {
        run(name, count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    // `cargo test FILTER` gives every test program the same arguments.
    if words.iter().any(|word| !word.starts_with('-') && !"costs".contains(word.as_str())) {
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        println!("costs: the counts are those of a release build, so nothing is compared here");
        return ExitCode::SUCCESS;
    }
    let mut is_right = true;
    for (name, count, function, expected) in COSTS {
        let all = instructions(name, 2 * count, function) - instructions(name, count, function);
        let cost = all / count;
        let change = cost as f64 / expected as f64 - 1.0;
        let is_near = change.abs() <= TOLERANCE;
        let verdict = if is_near { "ok" } else { "FAILED" };
        println!("costs: {name}: {cost} instructions, {:+.1} % ... {verdict}", change * 100.0);
        is_right &= is_near;
    }
    match is_right {
        true => ExitCode::SUCCESS,
        false => {
            println!("costs: a count is not the one in benches/costs.rs; see its head");
            ExitCode::FAILURE
        }
    }
}

/// The instructions in a function, of a process that does an operation `count` times.
fn instructions(name: &str, count: u64, function: &str) -> u64 {
    let this = std::env::current_exe().expect("this program");
    let within = (!function.is_empty()).then(|| format!("--toggle-collect={function}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(within)
        .arg(this)
        .args(["run", name, &count.to_string()])
        .output()
        .expect("valgrind runs (Debian package valgrind)");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    // A function that is not found, because of its name or because it was inlined, counts nothing,
    // and the comparison fails.
    let collected = report.lines().find_map(|line| line.split("Collected : ").nth(1));
    collected.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{report}"))
}

fn run(name: &str, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    match name {
        "append" => append(count),
        "join" => runtime.block_on(join(count)),
        "parse" => parse(count),
        _ => runtime.block_on(passes(count)),
    }
}

fn channel() -> ChannelName {
    ChannelName::parse("bench").expect("a name")
}

fn event() -> Event {
    Event::stored(None, None, &"x".repeat(200))
}

fn append(count: u64) {
    let mut log = TailBuffer::new(EventWriter::new(channel(), Format::Raw), BYTES);
    for ms in 1..=count {
        let stored = StoredEvent { id: EventId { ms, seq: 0 }, event: event() };
        log.append(EventId { ms: ms - 1, seq: 0 }, &[stored]);
    }
}

fn parse(count: u64) {
    for _ in 0..count {
        black_box(Route::parse(black_box("/channels/prices,news")).is_ok());
        let query = Query::parse(black_box("format=json&lane=0"));
        black_box((query.get("format"), query.get("lane"), query.get("after")));
        let cursor = b"1795278400903-0_1795278400710-2.1795278420000";
        black_box(ResumeFrom::cursor(black_box(cursor), 2));
    }
}

fn hub() -> Arc<Hub> {
    let clock = Clock::default();
    let registry = Arc::new(ChannelRegistry::new(clock.clone(), BYTES));
    let config = LocalConfig { timeout: TIMEOUT, reserve: 0, file_bytes: FILE_BYTES };
    let limits = Limits::default();
    let store = LocalStore::open(Backing::Memory, config, limits, clock.clone(), registry.clone());
    let store = Arc::new(store.expect("a store in memory"));
    // No segment ends while the program runs.
    let segments = SegmentClock { length_ms: 86_400_000, ..SegmentClock::default() };
    let budget = Budget::new(BYTES, TIMEOUT);
    Arc::new(Hub::new(clock, segments, registry, store, TIMEOUT, budget))
}

async fn publish(hub: &Hub) -> EventId {
    let publication = Publication { channel: channel(), events: vec![event()], idempotency: None };
    hub.publish(publication).await.expect("the store accepts it").ids[0]
}

async fn stream(hub: &Arc<Hub>, position: EventId) -> EventStream {
    let asked = ResumeFrom::After(Cursor { positions: vec![position], mark: None });
    let (names, format) = ([channel()], Format::Raw);
    let wanted = Wanted { names: &names, asked: &asked, lane: 0, is_endless: false, format };
    let Ok(Join::Stream(joined)) = hub.join(wanted).await else { panic!("the channel is open") };
    EventStream::new(hub.clone(), *joined, TIMEOUT, usize::MAX)
}

async fn join(count: u64) {
    let hub = hub();
    let position = publish(&hub).await;
    // The channel stays in memory, as with other clients.
    let _reader = stream(&hub, position).await;
    for _ in 0..count {
        black_box(stream(&hub, position).await.is_live());
    }
}

/// Publishes one event for each pass, and sends it to all subscribers.
async fn passes(count: u64) {
    headwater::telemetry::process::raise_file_limit();
    let hub = hub();
    let position = publish(&hub).await;
    let mut context = Context::from_waker(Waker::noop());
    let mut begun = async || {
        let mut stream = stream(&hub, position).await;
        while stream.poll_next(&mut context).is_ready() {}
        stream
    };
    let poll = mio::Poll::new().expect("a poll");
    let mut subscribers = Subscribers::new(poll.registry().try_clone().expect("a poll"));
    let mut group = Group::new(0, begun().await);
    let (mut clients, mut outcomes) = (Vec::new(), Vec::new());
    for _ in 0..SUBSCRIBERS {
        let (near, far) = UnixStream::pair().expect("sockets");
        near.set_nonblocking(true).expect("a socket");
        let account = StreamAccount::open(hub.clone(), JoinKind::Cursor);
        let stream = Box::new(CountedStream { stream: begun().await, account });
        let (reply, outcome) = tokio::sync::oneshot::channel();
        group.join(Joiner { socket: Socket::Unix(near), stream, reply }, &mut subscribers);
        clients.push(far);
        outcomes.push(outcome);
    }
    assert_eq!(group.len(), SUBSCRIBERS);
    let limits = WindowLimits { slow: BYTES, history: 16 * 1024 };
    for _ in 0..count {
        publish(&hub).await;
        let _pending = group.poll(&mut Context::from_waker(Waker::noop()));
        while group.slice(&mut subscribers, limits) == AfterSlice::Unfinished {}
    }
    assert_eq!(group.len(), SUBSCRIBERS, "no subscriber was too slow");
}
