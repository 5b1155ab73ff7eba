//! What to measure: a JSON object that the script `run` writes for each server and each row.

use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

pub struct Plan {
    pub subscribe_address: SocketAddr,
    pub publish_address: SocketAddr,
    /// The request that opens a stream, with its head and all.
    pub subscribe: Vec<u8>,
    /// The request of a publish; the event stands in the place of `{event}`.
    pub publish: [Vec<u8>; 2],
    /// Process of the server, at the top of its tree.
    pub server: u32,
    /// Number of this measurement, in each of its events.
    pub run: u16,
    pub subscribers: usize,
    pub publishers: usize,
    /// Events a second of all publishers together; 0 = each sends as soon as it has its answer.
    pub rate: f64,
    /// Time with load before the measurement begins.
    pub warm_up: Duration,
    pub time: Duration,
    /// Longest time for all streams to open.
    pub open_time: Duration,
    /// Longest time for the last events to arrive.
    pub drain_time: Duration,
}

impl Plan {
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let lacks = |name: &str| format!("the plan lacks a good `{name}`");
        let text = |name: &str| plan[name].as_str().ok_or_else(|| lacks(name));
        let count = |name: &str| plan[name].as_u64().ok_or_else(|| lacks(name));
        let number = |name: &str| plan[name].as_f64().ok_or_else(|| lacks(name));
        let seconds =
            |name: &str| Duration::try_from_secs_f64(number(name)?).map_err(|_| lacks(name));
        let address = |name: &str| text(name)?.parse().map_err(|_| lacks(name));
        let (before, after) = text("publish")?.split_once("{event}").ok_or(lacks("publish"))?;
        Ok(Self {
            subscribe_address: address("subscribe_address")?,
            publish_address: address("publish_address")?,
            subscribe: text("subscribe")?.into(),
            publish: [before.into(), after.into()],
            server: count("server")? as u32,
            run: count("run")? as u16,
            subscribers: count("subscribers")? as usize,
            publishers: (count("publishers")? as usize).clamp(1, 256),
            rate: number("rate")?.max(0.0),
            warm_up: seconds("warm_up")?,
            time: seconds("time")?,
            open_time: seconds("open_time")?,
            drain_time: seconds("drain_time")?,
        })
    }
}
