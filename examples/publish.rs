//! Publishes each line of the standard input as one event, in order and each exactly once:
//!
//! ```text
//! cargo run --example publish -- http://127.0.0.1:8080/channels/greetings
//! ```
//!
//! A publish without a usable answer is repeated with the same Idempotency-Key, so the origin stores
//! the event once. The origin remembers a key for ten minutes (`--idempotency-age`); the program
//! gives up before that.

use headwater::client::{agent::Agent, http::text};
use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const GIVE_UP: Duration = Duration::from_secs(540);
const REQUEST: Duration = Duration::from_secs(10);

type Failed = Box<dyn std::error::Error>;

async fn publish(agent: &mut Agent, path: &str, key: &str, data: &str) -> Result<String, Failed> {
    let headers = [(HeaderName::from_static("idempotency-key"), key)];
    let (start, mut wait) = (Instant::now(), Duration::from_millis(100));
    loop {
        let attempt = async {
            let answer = agent.send(Method::POST, path, &headers, data.to_owned().into()).await?;
            Ok::<_, Failed>((answer.status(), text(answer).await?))
        };
        let (status, text) = match timeout(REQUEST, attempt).await.map_err(Into::into).flatten() {
            Ok((status, text)) if status.is_success() => return Ok(text),
            Ok(refused) => refused,
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        let is_temporary = status.is_server_error() || [408, 429].contains(&status.as_u16());
        if !is_temporary || start.elapsed() > GIVE_UP {
            return Err(format!("{status}: {text}").into());
        }
        sleep(wait).await;
        wait = Duration::from_secs(10).min(2 * wait);
    }
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let url = std::env::args().nth(1).ok_or("the first argument is the URL of a channel")?;
    let (address, path) = url.split_at(url.find("/channels/").ok_or("this is no channel")?);
    let (mut agent, run) = (Agent::new(address.parse()?), RandomState::new().hash_one(0));
    for (number, line) in std::io::stdin().lines().enumerate() {
        println!("{}", publish(&mut agent, path, &format!("{run:x}-{number}"), &line?).await?);
    }
    Ok(())
}
