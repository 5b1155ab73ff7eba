//! The programs that print the events of a stream.

use super::program::{Program, within_patience};
use super::relay::Relay;
use super::{Durable, SEGMENT_MS, command_with};
use crate::kit::now_ms;
use futures_util::future::join_all;
use hyper::Method;
use std::time::Duration;
use tokio::time::sleep;

const FILES: [&str; 5] = ["read.mjs", "read.py", "read.go", "read.rs", "Read.java"];
/// A stream of several channels: the programs may not take the end of one for the end of all.
const CHANNELS: [&str; 2] = ["a", "b"];

/// What was published, as the programs print it.
#[derive(Default)]
struct Published(Vec<String>);

impl Published {
    /// Publishes events of different forms, and waits until each reader has printed them.
    async fn more(&mut self, durable: &Durable, readers: &mut [(Program, Relay)]) {
        self.silently(durable).await;
        for (program, _) in readers {
            program.until(|lines| lines.len() >= self.0.len()).await;
        }
    }

    /// The beginning of the data of the next event of the first channel without a type.
    fn next_text(&self) -> String {
        text(CHANNELS[0], self.0.len())
    }

    async fn silently(&mut self, durable: &Durable) {
        for channel in CHANNELS {
            let number = self.0.len();
            durable
                .origin
                .publish_with(channel, "event=note", &format!("{channel} {number}"))
                .await;
            let text = format!("{}\n{channel}  two: lines ", text(channel, number));
            durable.origin.publish(channel, &text).await;
            self.0.push(format!("{channel} {number}"));
            self.0.extend(text.split('\n').map(str::to_owned));
        }
    }
}

fn text(channel: &str, number: usize) -> String {
    format!("{channel} {number} ü")
}

/// The lines of one channel. The order of the channels among each other is not fixed.
fn of<'a>(channel: &str, lines: &'a [String]) -> Vec<&'a String> {
    lines.iter().filter(|line| line.starts_with(channel)).collect()
}

async fn end(durable: &Durable) {
    for channel in CHANNELS {
        let path = format!("/channels/{channel}");
        let answer = durable.origin.request(Method::DELETE, &path, &[], "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn readers_print_each_event_once_over_kills_cuts_and_silent_connections() {
    let mut durable = Durable::start();
    let mut readers = Vec::new();
    for file in FILES {
        let relay = Relay::start(durable.origin.listen).await;
        let url = format!("http://127.0.0.1:{}/channels/a,b?after=0-0", relay.port);
        readers.push((Program::start(&command_with(file, &url), &[]), relay));
    }
    let mut published = Published::default();
    for _ in 0..4 {
        published.more(&durable, &mut readers).await;
        // The following events are in another segment.
        let segment = now_ms() / SEGMENT_MS;
        while now_ms() / SEGMENT_MS == segment {
            sleep(Duration::from_millis(50)).await;
        }
    }
    let meet = join_all(readers.iter().map(|(_, relay)| relay.refuses(1)));
    durable.outage(within_patience("the readers meet the outage", meet)).await;
    published.more(&durable, &mut readers).await;

    // The `id` of the event arrives, and its data does not.
    let text = published.next_text();
    readers.iter().for_each(|(_, relay)| relay.cut_before(&text));
    published.more(&durable, &mut readers).await;
    assert!(readers.iter().all(|(_, relay)| relay.has_cut()));

    readers.iter().for_each(|(_, relay)| relay.silence());
    published.more(&durable, &mut readers).await;

    end(&durable).await;
    for ((program, _), file) in readers.into_iter().zip(FILES) {
        let (printed, _) = program.ends().await;
        for channel in CHANNELS {
            assert_eq!(of(channel, &printed), of(channel, &published.0), "{file}");
        }
        assert_eq!(printed.len(), published.0.len(), "{file}");
    }
}

#[tokio::test]
async fn readers_say_that_events_are_missing() {
    let durable = Durable::start();
    let mut published = Published::default();
    published.silently(&durable).await;
    end(&durable).await;
    let start = |file| {
        let url = format!("{}/channels/a,b?after=nonsense", durable.origin.address());
        Program::start(&command_with(file, &url), &[])
    };
    for (file, program) in FILES.map(|file| (file, start(file))) {
        let (_, errors) = program.ends().await;
        let has = |word: &str| errors.iter().any(|line| line.contains(word));
        assert!(has("unknown") && has("end"), "{file}: {errors:?}");
    }
}
