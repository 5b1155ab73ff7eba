//! The events of `serve --demo`: the departures board of an airport, and a price ticker.
//!
//! The events of both are published through the hub, like those of any other publisher. The ticker
//! gives its prices consecutive numbers, also across restarts, so that a page can check that no
//! price is missing and none arrives twice.

use crate::core::event::{ChannelName, Event, Field};
use crate::hub::Hub;
use crate::hub::channel::ReadError;
use crate::store::{Publication, State, StoreError};
use crate::sync::random::random;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const BOARD_PAUSE: Duration = Duration::from_millis(900);
const TICKER_PAUSE: Duration = Duration::from_millis(100);
const FLIGHTS: usize = 12;
/// The span of the departure times, in minutes: several times what the flights of the board need.
const DEPARTURES_MINUTES: u64 = 240;
const FAULT_PAUSE: Duration = Duration::from_secs(1);

const CITIES: [&str; 16] = [
    "Lisbon", "Oslo", "Nairobi", "Osaka", "Lima", "Cairo", "Dublin", "Hanoi", "Quito", "Vienna",
    "Accra", "Athens", "Bogotá", "Perth", "Zürich", "Denver",
];
const STAGES: [&str; 5] = ["Scheduled", "Check-in", "Boarding", "Final call", "Departed"];
const SYMBOLS: [(&str, f64); 6] = [
    ("EURUSD", 1.07),
    ("USDJPY", 151.3),
    ("GBPUSD", 1.26),
    ("BRENT", 82.4),
    ("GOLD", 2391.0),
    ("WHEAT", 5.71),
];

struct Flight {
    number: u32,
    city: &'static str,
    gate: String,
    minute: u64,
    stage: usize,
}

/// Publishes the events of the demo until the future is dropped.
pub async fn feed(hub: Arc<Hub>) {
    tokio::join!(departures(&hub), ticker(&hub));
}

async fn departures(hub: &Hub) {
    // The flights by departure time, the earliest first.
    let mut board: VecDeque<Flight> = VecDeque::new();
    let mut numbers = (random() % 900) as u32..;
    // Flights of an earlier run are removed, because no later event would remove them.
    while let Err(error) = clear(hub, "departures").await {
        pause_after(&error).await;
    }
    loop {
        if board.len() < FLIGHTS {
            let number = 100 + numbers.next().unwrap_or_default() % 900;
            let flight = Flight::new(number, free_minute(&board, hub.clock().now() / 60_000));
            surely(hub, "departures", event(&flight.key(), flight.data(), false)).await;
            let place = board.partition_point(|other| other.minute < flight.minute);
            board.insert(place, flight);
            continue;
        }
        tokio::time::sleep(BOARD_PAUSE).await;
        let early = random() as usize % FLIGHTS / 2;
        board[early].stage += 1;
        // The event of the last stage also removes the flight's key from the state.
        let flight = &board[early];
        let is_gone = flight.stage + 1 == STAGES.len();
        let event = event(&flight.key(), flight.data(), is_gone);
        surely(hub, "departures", event).await;
        board.retain(|flight| flight.stage + 1 < STAGES.len());
    }
}

/// A minute of the next hours that is more than three minutes apart from every departure.
fn free_minute(board: &VecDeque<Flight>, now: u64) -> u64 {
    let is_free = |minute: &u64| board.iter().all(|other| other.minute.abs_diff(*minute) > 3);
    let first = random() % DEPARTURES_MINUTES;
    let minutes = (0..DEPARTURES_MINUTES).map(|n| now + 20 + (first + n) % DEPARTURES_MINUTES);
    minutes.into_iter().find(is_free).unwrap_or(now)
}

async fn ticker(hub: &Hub) {
    let mut number = loop {
        match last_number(hub).await {
            Ok(number) => break number,
            Err(error) => pause_after(&error).await,
        }
    };
    let mut prices = SYMBOLS;
    let mut ticks = tokio::time::interval(TICKER_PAUSE);
    loop {
        ticks.tick().await;
        number += 1;
        let (symbol, price) = &mut prices[random() as usize % SYMBOLS.len()];
        *price *= 1.0 + (random() % 2001) as f64 / 1e6 - 0.001;
        let data = json!({ "n": number, "symbol": symbol, "price": (*price * 1e4).round() / 1e4 });
        surely(hub, "ticker", event(symbol, data.to_string(), false)).await;
    }
}

async fn state(hub: &Hub, name: &str) -> Result<State, StoreError> {
    match hub.state(&channel(name)?).await {
        Ok((state, _)) => Ok(state),
        Err(ReadError::Store(error)) => Err(error),
        Err(ReadError::NoMemory(_)) => Err(StoreError::Down("no memory is left".to_owned())),
    }
}

async fn last_number(hub: &Hub) -> Result<u64, StoreError> {
    let state = state(hub, "ticker").await?;
    let number = |data: &str| serde_json::from_str::<Value>(data).ok()?["n"].as_u64();
    Ok(state.events.iter().filter_map(|stored| number(&stored.event.data)).max().unwrap_or(0))
}

async fn clear(hub: &Hub, name: &str) -> Result<(), StoreError> {
    let state = state(hub, name).await?;
    for stored in state.events {
        let key = stored.event.key.as_ref().map(Field::as_str).unwrap_or_default();
        publish(hub, name, event(key, String::new(), true)).await?;
    }
    Ok(())
}

/// Publishes an event, and repeats this until the store accepts it.
async fn surely(hub: &Hub, name: &str, event: Event) {
    while let Err(error) = publish(hub, name, event.clone()).await {
        pause_after(&error).await;
    }
}

async fn publish(hub: &Hub, name: &str, event: Event) -> Result<(), StoreError> {
    let channel = channel(name)?;
    hub.publish(Publication { channel, events: vec![event], idempotency: None }).await?;
    Ok(())
}

fn event(key: &str, data: String, removes_key: bool) -> Event {
    Event::new(None, Field::key(key).ok(), data, removes_key)
}

fn channel(name: &str) -> Result<ChannelName, StoreError> {
    ChannelName::parse(name).map_err(|error| StoreError::Down(error.to_string()))
}

async fn pause_after(error: &StoreError) {
    tracing::warn!(%error, "the demo cannot publish");
    tokio::time::sleep(FAULT_PAUSE).await;
}

impl Flight {
    fn new(number: u32, minute: u64) -> Self {
        Self {
            number,
            city: CITIES[random() as usize % CITIES.len()],
            gate: format!("{}{}", char::from(b'A' + (random() % 4) as u8), 1 + random() % 24),
            minute,
            stage: 0,
        }
    }

    fn key(&self) -> String {
        format!("HW{}", self.number)
    }

    fn data(&self) -> String {
        let minute = self.minute % (24 * 60);
        json!({
            "flight": self.key(),
            "minute": self.minute,
            "to": self.city,
            "time": format!("{:02}:{:02}", minute / 60, minute % 60),
            "gate": self.gate,
            "status": STAGES[self.stage],
        })
        .to_string()
    }
}
