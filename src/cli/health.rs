//! `headwater healthcheck` asks a running origin for its health: the check of a container, whose
//! image contains no other program.

use super::{block_on, fail, readable};
use crate::client::http::{self, Address, Connection};
use bytes::Bytes;
use clap::Args;
use hyper::{Method, StatusCode};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub struct HealthArguments {
    /// Admin listener of the origin (--admin-listen)
    #[arg(long, env = "HEADWATER_ADMIN_URL", default_value = "http://127.0.0.1:8081")]
    admin_url: Address,
    /// Also fail while the origin is not ready, as /readyz does; without it only when it is not
    /// alive
    #[arg(long)]
    ready: bool,
}

/// Asks for the health. The exit status is 1 when the answer is not 200.
pub fn run(HealthArguments { admin_url, ready }: &HealthArguments) -> ExitCode {
    let path = if *ready { "/readyz" } else { "/healthz" };
    match block_on(request(admin_url, path)) {
        Ok(Ok(text)) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Err(why)) => fail(&why),
        Err(error) => fail(&error),
    }
}

async fn request(address: &Address, path: &str) -> Result<String, String> {
    let failed = |error: http::HttpError| format!("{address}{path}: {error}");
    let mut connection = Connection::open(address).await.map_err(failed)?;
    let request = connection.request(Method::GET, path);
    let answer = connection.send(request, Bytes::new()).await.map_err(failed)?;
    let status = answer.status();
    let text = http::text(answer).await.map_err(failed)?;
    match status {
        StatusCode::OK => Ok(text),
        _ => Err(format!("{address}{path} answers {status}: {}", readable(&text))),
    }
}
