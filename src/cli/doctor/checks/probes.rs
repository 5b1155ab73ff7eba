//! Checks that need only one or two requests each: whether the edge passes the query on, whether a
//! cache keeps the response to a fresh join too long, the response to a failure of the origin, a
//! CORS preflight, and a publish without a token.

use super::super::findings::Fault;
use super::super::probe::{Probe, ProbeRequest};
use super::{Checks, FORGOTTEN_AFTER};
use crate::client::http::{self, Address, Connection, HttpError};
use crate::http::probe::FAULT_CHANNEL;
use bytes::Bytes;
use hyper::Method;
use tokio::time::sleep;

/// Least `retry` that an edge may send to clients while the origin fails, in ms.
const RETRY_MIN_MS: u64 = 1_000;

/// The `Origin` of a page of another site. At a loopback address without a key only pages of the
/// same machine may read, so for such an address it is a page of this machine.
pub(super) fn stranger(url: &Address) -> &'static str {
    match url.is_loopback() {
        true => "http://headwater-doctor.localhost",
        false => "https://headwater-doctor.example",
    }
}

impl Checks {
    /// The number of streams that the origin has opened; `None` without the URL of its metrics.
    pub(super) async fn origin_streams(&self) -> Result<Option<u64>, HttpError> {
        let Some(address) = &self.arguments.admin_url else { return Ok(None) };
        let mut connection = Connection::open(address).await?;
        let request = connection.request(Method::GET, "/metrics");
        let text = http::text(connection.send(request, Bytes::new()).await?).await?;
        let counts = text.lines().filter(|line| line.starts_with("headwater_streams_opened_total"));
        let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(Some(counts.sum()))
    }

    pub(super) async fn query(&mut self) -> Result<(), HttpError> {
        let cursor = self.cursor();
        let path = format!("{}?after={cursor}", self.path);
        let mut probe =
            Probe::at(&self.arguments.url, &ProbeRequest { path, ..ProbeRequest::default() })
                .await?;
        let Some(report) = probe.report() else { return Ok(()) };
        self.opening(&mut probe, &cursor, Fault::QueryDropped, &report).await;
        Ok(())
    }

    /// Checks that no cache keeps the response to a fresh join for longer than one second.
    pub(super) async fn joined_afresh(&mut self) -> Result<(), HttpError> {
        let ask = ProbeRequest { path: self.path.clone(), ..ProbeRequest::default() };
        let first = Probe::at(&self.arguments.url, &ask).await?.report();
        sleep(FORGOTTEN_AFTER).await;
        let second = Probe::at(&self.arguments.url, &ask).await?.report();
        if first.is_some() && first == second {
            let seen =
                "a client without a cursor receives an answer that was made for others seconds ago";
            self.find(Fault::Ttl, seen);
        }
        Ok(())
    }

    pub(super) async fn fault(&mut self) -> Result<(), HttpError> {
        let path = format!("/channels/{FAULT_CHANNEL}");
        let mut probe =
            Probe::at(&self.arguments.url, &ProbeRequest { path, ..ProbeRequest::default() })
                .await?;
        if !probe.is_stream() {
            let seen = format!("a failure of the origin reaches clients as {}", probe.status);
            self.find(Fault::DeadOnError, seen);
            return Ok(());
        }
        match probe.retry().await {
            Some(retry) if retry >= RETRY_MIN_MS => {}
            Some(retry) => {
                let seen = format!("a failure of the origin is answered with retry: {retry}");
                self.find(Fault::NoRetry, seen);
            }
            None => {
                let seen = "a failure of the origin is answered with a body without retry:";
                self.find(Fault::NoRetry, seen);
            }
        }
        Ok(())
    }

    pub(super) async fn preflight(&mut self) -> Result<(), HttpError> {
        let mut connection = Connection::open(&self.arguments.url).await?;
        let request = connection
            .request(Method::OPTIONS, &self.path)
            .header("origin", stranger(&self.arguments.url))
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "last-event-id");
        let answer = connection.send(request, Bytes::new()).await?;
        let allowed = answer.headers().get("access-control-allow-headers").cloned();
        let names_it = allowed
            .and_then(|value| value.to_str().map(str::to_ascii_lowercase).ok())
            .is_some_and(|value| value.contains("last-event-id") || value.contains('*'));
        // The body is invalid, so that nothing is stored even where no token is needed.
        let request = connection.request(Method::POST, &self.path);
        let request = request.header("content-type", "application/x-ndjson");
        let posted = connection.send(request, Bytes::from_static(b"not JSON")).await?.status();
        if posted == 400 {
            self.find(Fault::OpenPublish, "anyone may publish here, without a token");
        }
        if !answer.status().is_success() || !names_it {
            let seen = format!("OPTIONS {} is answered with {}", self.path, answer.status());
            self.find(Fault::Preflight, seen);
        }
        Ok(())
    }
}
