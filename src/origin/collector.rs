//! Exports spans to a collector of OpenTelemetry, by OTLP over HTTP.

use super::config::TracesConfig;
use crate::client::http::{self, Address, Connection};
use crate::telemetry::traces::{Exports, Traces};
use bytes::Bytes;
use hyper::{Request, Response, Uri};
use opentelemetry::KeyValue;
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// The path below the address of a collector that takes spans (OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// The longest wait for the answer of the collector.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The name of the service, unless this variable of OpenTelemetry has another one.
const SERVICE: &str = "headwater";
const SERVICE_VARIABLE: &str = "OTEL_SERVICE_NAME";

type Answered = Result<Response<Bytes>, Box<dyn Error + Send + Sync>>;

/// Sends the requests of the exporter, which runs in a thread of its own, in the runtime.
#[derive(Debug)]
struct Collector {
    runtime: Handle,
    exports: Exports,
    is_failing: AtomicBool,
}

/// Starts the export of traces, if it is configured. It needs a runtime.
///
/// # Errors
/// Fails when the address of the collector cannot be used; the text says why.
pub fn traces(config: Option<&TracesConfig>) -> Result<Traces, String> {
    let Some(TracesConfig { endpoint, ratio }) = config else { return Ok(Traces::default()) };
    let wrong = |why: &dyn std::fmt::Display| format!("{endpoint}: {why} (--otlp-endpoint)");
    let endpoint_url = format!("{}{PATH}", endpoint.trim_end_matches('/'));
    let uri: Uri = endpoint_url.parse().map_err(|error| wrong(&error))?;
    address(&uri).map_err(|error| wrong(&error))?;
    let exports = Exports::default();
    let (runtime, is_failing) = (Handle::current(), AtomicBool::new(false));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { runtime, exports: exports.clone(), is_failing })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint_url)
        .build()
        .map_err(|error| wrong(&error))?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    if std::env::var_os(SERVICE_VARIABLE).is_none() {
        resource = resource.with_service_name(SERVICE);
    }
    Ok(Traces::exported_to(exporter, exports, *ratio, resource.build()))
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Answered> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            // The timer is created in the runtime, too.
            let sent = async { tokio::time::timeout(TIME_MAX, send(request)).await };
            let answered = self.runtime.spawn(sent).await?;
            let answered = answered.unwrap_or_else(|_| Err(format!("no answer in {TIME_MAX:?}")));
            self.note(&answered);
            Ok(answered?)
        })
    }
}

impl Collector {
    /// Counts a request, and logs the first of several failures, and their end.
    fn note(&self, answered: &Result<Response<Bytes>, String>) {
        let failure = match answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(error.clone()),
        };
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) => {
                self.exports.failed.inc();
                if !was_failing {
                    tracing::warn!(
                        error,
                        "traces cannot be exported, and are lost (--otlp-endpoint)"
                    );
                }
            }
            None => {
                self.exports.accepted.inc();
                if was_failing {
                    tracing::info!("traces are exported again");
                }
            }
        }
    }
}

async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let (head, body) = request.into_parts();
    let address = address(&head.uri)?;
    let failed = |error: http::HttpError| error.to_string();
    let mut connection = Connection::open(&address).await.map_err(failed)?;
    let mut builder = connection.request(head.method, head.uri.path());
    for (name, value) in &head.headers {
        builder = builder.header(name, value);
    }
    let answer = connection.send(builder, body).await.map_err(failed)?;
    let status = answer.status();
    let mut response = Response::new(http::body(answer).await.map_err(failed)?);
    *response.status_mut() = status;
    Ok(response)
}

/// Returns the address of the server in a URL.
fn address(uri: &Uri) -> Result<Address, String> {
    let (scheme, authority) = (uri.scheme_str(), uri.authority());
    let (Some(scheme), Some(authority)) = (scheme, authority) else {
        return Err("write it as http://host:port or https://host".to_owned());
    };
    format!("{scheme}://{authority}").parse()
}
