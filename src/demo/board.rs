//! The departures of an airport, on the channel `departures`: one key for each flight.
//!
//! One second is one minute of the board, so that a visitor sees a flight go through all of its
//! stages. The stage of a flight follows from its departure time and the time of the board. Both
//! follow from the clock, so the board goes on after a restart as if there had been none.

use super::{key_of, patiently, publish, remove, set, state};
use crate::core::event::Event;
use crate::hub::Hub;
use crate::sync::random::random;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

const CHANNEL: &str = "departures";
const FLIGHTS: usize = 14;
const PAUSE: Duration = Duration::from_millis(400);
const MINUTE_MS: u64 = 1_000;
const DAY_MINUTES: u64 = 24 * 60;
/// The first flight of an empty board leaves after this number of minutes.
const FIRST_MINUTES: u64 = 3;
/// Two departures are at least this number of minutes apart, and at most twice that.
const GAP_MINUTES: u64 = 3;
/// A flight stays on the board for this number of minutes after its departure.
const GONE_MINUTES: u64 = 3;
/// One flight of this number is late.
const LATE_EVERY: u64 = 5;
/// Most late flights of the board. Each leaves a gap, in which nothing departs.
const LATE_MAX: usize = 2;
const LATE_MINUTES: std::ops::Range<u64> = 12..25;
/// A late flight is announced as late from this number of minutes before its departure on.
const LATE_KNOWN_MINUTES: u64 = 28;

const CITIES: [&str; 24] = [
    "Lisbon",
    "Oslo",
    "Nairobi",
    "Osaka",
    "Lima",
    "Cairo",
    "Dublin",
    "Hanoi",
    "Quito",
    "Vienna",
    "Accra",
    "Athens",
    "Bogotá",
    "Perth",
    "Zürich",
    "Denver",
    "Helsinki",
    "Jakarta",
    "Montréal",
    "Reykjavík",
    "Santiago",
    "Singapore",
    "Tallinn",
    "Wellington",
];

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    flight: String,
    /// The departure, in minutes of the board since the epoch.
    minute: u64,
    to: String,
    gate: String,
    /// The minutes by which the flight is late; known from `LATE_KNOWN_MINUTES` on.
    late: u64,
    status: String,
}

/// The flights, the earliest first.
#[derive(Debug, Default)]
struct Board(Vec<Flight>);

/// Publishes the changes of the board, one at a time.
pub async fn run(hub: &Hub) {
    let minute = || hub.clock().now() / MINUTE_MS;
    let kept = patiently(|| Box::pin(state(hub, CHANNEL))).await;
    let mut board = Board::default();
    for stored in &kept.events {
        match serde_json::from_str::<Flight>(&stored.event.data) {
            Ok(flight) if flight.minute + GONE_MINUTES > minute() => board.insert(flight),
            // Only an event removes a flight of an earlier run.
            _ => publish(hub, CHANNEL, vec![remove(key_of(&stored.event))]).await,
        }
    }
    loop {
        if let Some(event) = board.step(minute(), &mut random) {
            publish(hub, CHANNEL, vec![event]).await;
        }
        // A board that is not full yet fills at once.
        if board.0.len() >= FLIGHTS {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Board {
    fn insert(&mut self, flight: Flight) {
        let place = self.0.partition_point(|other| other.minute < flight.minute);
        self.0.insert(place, flight);
    }

    /// Makes the next change that is due, and returns its event.
    fn step(&mut self, now: u64, random: &mut impl FnMut() -> u64) -> Option<Event> {
        if self.0.first().is_some_and(|first| first.minute + GONE_MINUTES <= now) {
            return Some(remove(&self.0.remove(0).flight));
        }
        if self.0.len() < FLIGHTS {
            let flight = self.next_flight(now, random);
            let event = flight.event(now);
            self.insert(flight);
            return Some(event);
        }
        let changed = self.0.iter().position(|flight| flight.status != flight.stage(now))?;
        let mut flight = self.0.remove(changed);
        let stage = flight.stage(now);
        if stage == "Delayed" {
            flight.minute = self.free_minute(flight.minute + flight.late);
        }
        flight.status = stage.to_owned();
        let event = flight.event(now);
        self.insert(flight);
        Some(event)
    }

    fn next_flight(&self, now: u64, random: &mut impl FnMut() -> u64) -> Flight {
        let last = self.0.last().map_or(now + FIRST_MINUTES, |last| last.minute);
        let minute = last.max(now + FIRST_MINUTES) + GAP_MINUTES + random() % (GAP_MINUTES + 1);
        let late_flights = self.0.iter().filter(|flight| flight.late > 0).count();
        let is_late = random().is_multiple_of(LATE_EVERY) && late_flights < LATE_MAX;
        let late = LATE_MINUTES.start + random() % (LATE_MINUTES.end - LATE_MINUTES.start);
        let mut flight = Flight {
            flight: self.free_number(random),
            minute,
            to: self.free_city(random).to_owned(),
            gate: format!("{}{}", char::from(b'A' + (random() % 4) as u8), 1 + random() % 24),
            late: if is_late && minute > now + LATE_KNOWN_MINUTES { late } else { 0 },
            status: String::new(),
        };
        flight.status = flight.stage(now).to_owned();
        flight
    }

    /// A flight number that the board does not have.
    fn free_number(&self, random: &mut impl FnMut() -> u64) -> String {
        let first = random() % 900;
        let names = (0..900).map(|n| format!("HW{}", 100 + (first + n) % 900));
        let is_free = |name: &String| self.0.iter().all(|flight| flight.flight != *name);
        names.into_iter().find(is_free).unwrap_or_default()
    }

    /// A city to which no flight of the board goes.
    fn free_city(&self, random: &mut impl FnMut() -> u64) -> &'static str {
        let first = random() as usize % CITIES.len();
        let mut cities = (0..CITIES.len()).map(|n| CITIES[(first + n) % CITIES.len()]);
        cities.find(|city| self.0.iter().all(|flight| flight.to != *city)).unwrap_or(CITIES[0])
    }

    /// The first minute from `minute` on at which no flight of the board leaves.
    fn free_minute(&self, minute: u64) -> u64 {
        let is_free = |minute: &u64| self.0.iter().all(|flight| flight.minute != *minute);
        (minute..).find(is_free).unwrap_or(minute)
    }
}

impl Flight {
    /// The stage at a time of the board. A flight is `Delayed` between the moment at which this
    /// becomes known and the boarding.
    fn stage(&self, now: u64) -> &'static str {
        match self.minute.saturating_sub(now) {
            0 => "Departed",
            1..=4 => "Final call",
            5..=14 => "Boarding",
            15.. if self.status == "Delayed" => "Delayed",
            15..=LATE_KNOWN_MINUTES if self.late > 0 => "Delayed",
            15..=25 => "Check-in",
            _ => "Scheduled",
        }
    }

    fn event(&self, now: u64) -> Event {
        let clock = |minute: u64| {
            format!("{:02}:{:02}", minute % DAY_MINUTES / 60, minute % DAY_MINUTES % 60)
        };
        let mut data = json!(self);
        data["time"] = clock(self.minute).into();
        data["clock"] = clock(now).into();
        set(&self.flight, data.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashMap;

    /// Numbers that look random and are the same in each run.
    fn numbers() -> impl FnMut() -> u64 {
        let mut last: u64 = 1;
        move || {
            last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            last >> 33
        }
    }

    #[test]
    fn every_flight_goes_through_its_stages_in_order_and_leaves_at_its_time() {
        const ORDER: [&str; 6] =
            ["Scheduled", "Check-in", "Delayed", "Boarding", "Final call", "Departed"];
        let (mut board, mut random) = (Board::default(), numbers());
        let mut seen: HashMap<String, usize> = HashMap::new();
        let (mut departed, mut delayed) = (0, 0);
        for now in 10_000..14_000 {
            while let Some(event) = board.step(now, &mut random) {
                let key = key_of(&event).to_owned();
                if event.removes_key() {
                    assert_eq!(seen.remove(&key), Some(ORDER.len() - 1), "{key} has not departed");
                    departed += 1;
                    continue;
                }
                let data: Value = serde_json::from_str(&event.data).expect("JSON");
                let stage = ORDER.iter().position(|name| *name == data["status"]).expect("a stage");
                let before = seen.insert(key.clone(), stage);
                assert!(before.is_none_or(|before| before < stage), "{key}: {before:?}, {stage}");
                delayed += usize::from(ORDER[stage] == "Delayed");
                assert_eq!(ORDER[stage] == "Departed", data["minute"] == now, "{data}");
            }
            let mut minutes: Vec<u64> = board.0.iter().map(|flight| flight.minute).collect();
            assert!(minutes.is_sorted() && minutes.len() == FLIGHTS);
            let delayed = board.0.iter().filter(|flight| flight.status == "Delayed").count();
            assert!(delayed <= LATE_MAX, "{delayed} flights are delayed");
            minutes.dedup();
            assert_eq!(minutes.len(), FLIGHTS, "two flights leave in the same minute");
        }
        assert!(departed > 700 && delayed > 50, "{departed} departed, {delayed} delayed");
    }
}
