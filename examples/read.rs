//! Prints the data of each event of a stream, over the ends of segments, faults and restarts, until
//! its channels have ended:
//!
//! ```text
//! cargo run --example read -- 'http://127.0.0.1:8080/channels/greetings?after=0-0'
//! ```

use headwater::client::{EventSource, Interruption, Signal};
use std::time::Duration;
use tokio::time::timeout;

/// A response ends with its segment, after 32 seconds at most (`--segment`). When nothing has
/// happened for longer than that, the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the first argument is the URL of a stream")?;
    let (address, path) = url.split_at(url.find("/channels/").ok_or("this is no stream")?);
    let mut source = EventSource::new(address.parse()?, path, None);
    loop {
        match timeout(SILENCE_MAX, source.next()).await {
            Ok(Signal::Message(message)) => match &*message.kind {
                "segment" => {}
                "gap" | "end" | "shed" => eprintln!("{}: {}", message.kind, message.data),
                _ => println!("{}", message.data),
            },
            Ok(Signal::Reconnecting { why: Interruption::Broken(why), .. }) => eprintln!("{why}"),
            Ok(Signal::Opened | Signal::Reconnecting { .. }) => {}
            Ok(Signal::Closed { status: Some(status), .. }) if status == 204 => return Ok(()),
            // A proxy has no origin; the next source goes on from the last id.
            Ok(Signal::Closed { status: Some(status), .. }) if status.is_server_error() => {
                let cursor = source.last_event_id().to_owned();
                source = EventSource::new(address.parse()?, path, Some(&cursor));
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            Ok(Signal::Closed { why, .. }) => return Err(why.into()),
            Err(_) => source.disconnect(Duration::ZERO),
        }
    }
}
