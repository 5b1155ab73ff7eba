//! Prices, on the channel `ticker`: one key for each symbol.
//!
//! The prices have consecutive numbers, also across restarts, so that a page can check that no
//! price is missing and none arrives twice.

use super::{patiently, publish, set, state};
use crate::hub::Hub;
use crate::store::StoreError;
use crate::sync::random::random;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

const CHANNEL: &str = "ticker";
/// The market is calm for most of each period, and busy for the rest of it.
const PERIOD_MS: u64 = 30_000;
const BUSY_MS: u64 = 10_000;
/// 10 prices a second while the market is calm.
const CALM_PAUSE: Duration = Duration::from_millis(100);
/// 100 prices a second while it is busy: five together every 50 ms.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const BUSY_PRICES: usize = 5;

/// Each symbol with the price around which it moves.
const SYMBOLS: [(&str, f64); 12] = [
    ("EURUSD", 1.07),
    ("USDJPY", 151.3),
    ("GBPUSD", 1.26),
    ("USDCHF", 0.88),
    ("BRENT", 82.4),
    ("GOLD", 2391.0),
    ("SILVER", 28.4),
    ("COPPER", 9.71),
    ("WHEAT", 5.71),
    ("COFFEE", 2.43),
    ("COCOA", 8120.0),
    ("COTTON", 0.73),
];

/// Publishes prices.
pub async fn run(hub: &Hub) {
    let (mut number, mut prices) = patiently(|| Box::pin(last(hub))).await;
    loop {
        let is_busy = hub.clock().now() % PERIOD_MS >= PERIOD_MS - BUSY_MS;
        let (pause, count) = if is_busy { (BUSY_PAUSE, BUSY_PRICES) } else { (CALM_PAUSE, 1) };
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..ticks_of_a_second(pause) {
            ticks.tick().await;
            let mut events = Vec::with_capacity(count);
            for _ in 0..count {
                number += 1;
                let index = random() as usize % SYMBOLS.len();
                prices[index] = moved(prices[index], SYMBOLS[index].1, random());
                let (symbol, price) = (SYMBOLS[index].0, rounded(prices[index]));
                let data = json!({ "n": number, "symbol": symbol, "price": price });
                events.push(set(symbol, data.to_string()));
            }
            publish(hub, CHANNEL, events).await;
        }
    }
}

fn ticks_of_a_second(pause: Duration) -> u128 {
    Duration::from_secs(1).as_millis() / pause.as_millis()
}

/// The next price: a random step of at most 0.1 %, and a weak pull to the usual price.
fn moved(price: f64, usual: f64, random: u64) -> f64 {
    let step = (random % 2_001) as f64 / 1e6 - 0.001;
    price * (1.0 + step) + (usual - price) * 0.002
}

/// A price with five significant digits, as the boards show it.
fn rounded(price: f64) -> f64 {
    let factor = 10_f64.powi(4 - price.log10().floor() as i32);
    (price * factor).round() / factor
}

/// The last number, and the price of each symbol.
async fn last(hub: &Hub) -> Result<(u64, [f64; SYMBOLS.len()]), StoreError> {
    let state = state(hub, CHANNEL).await?;
    let values: Vec<Value> = state
        .events
        .iter()
        .filter_map(|stored| serde_json::from_str(&stored.event.data).ok())
        .collect();
    let number = values.iter().filter_map(|value| value["n"].as_u64()).max().unwrap_or(0);
    let prices = SYMBOLS.map(|(symbol, usual)| {
        let value = values.iter().find(|value| value["symbol"] == symbol);
        value.and_then(|value| value["price"].as_f64()).unwrap_or(usual)
    });
    Ok((number, prices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_keep_five_digits_and_stay_near_the_usual_price() {
        assert_eq!(
            [rounded(1.071_234), rounded(2391.456), rounded(0.731_239)],
            [1.0712, 2391.5, 0.73124]
        );
        let mut price = 100.0;
        for step in 0..100_000 {
            // The steps go up four times as often as down.
            price = moved(price, 100.0, if step % 5 == 0 { 0 } else { 2_000 });
        }
        assert!((100.0..150.0).contains(&price), "{price}");
    }
}
