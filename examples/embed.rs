//! A program that contains an origin, and publishes a number every second.
//!
//! ```text
//! cargo run --example embed
//! curl -N http://127.0.0.1:8080/channels/counter
//! ```

use headwater::event::{ChannelName, Event};
use headwater::{Config, Headwater, Listeners, Shutdown, StoreAddress};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.store.address = StoreAddress::Memory;
    let origin = Headwater::open(config).await?;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listeners = Listeners::bind(&[address.parse()?], &[])?;
    eprintln!("read the channel with: curl -N {}/channels/counter", listeners.urls()[0]);

    let publisher = origin.publisher();
    let counter = ChannelName::parse("counter")?;
    let publish = async {
        for number in 1_u64.. {
            let event = Event::new(None, None, number.to_string(), false);
            publisher.publish(&counter, vec![event]).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    };
    let shutdown = Shutdown::default();
    let stop = async {
        tokio::signal::ctrl_c().await?;
        // The streams end at their next boundary, at most 30 seconds later.
        shutdown.stop();
        std::future::pending().await
    };
    tokio::select! {
        ended = origin.run(listeners, shutdown.clone()) => ended.map(drop).map_err(Into::into),
        failed = publish => failed,
        failed = stop => failed,
    }
}
