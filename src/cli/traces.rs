//! The flags of `headwater serve` for the export of traces.

use super::headings;
use crate::origin::TracesConfig;
use clap::Args;

#[derive(Args, Clone, Debug)]
pub(super) struct TraceArguments {
    /// Collector of OpenTelemetry that receives the spans of traced publishes by OTLP over HTTP,
    /// such as http://127.0.0.1:4318. A publish is traced if its traceparent has the flag "sampled"
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of the publishes without a traceparent that is traced, too (0 to 1)
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_TRACE_RATIO", default_value_t = 0.0)]
    trace_ratio: f64,
}

impl TraceArguments {
    /// Returns the settings of the export, or `None` if nothing is exported.
    ///
    /// # Errors
    /// Fails when a flag has a wrong value; the text names the flag.
    pub(super) fn finish(&self) -> Result<Option<TracesConfig>, String> {
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return Err("--trace-ratio takes a number from 0 to 1".to_owned());
        }
        if self.trace_ratio > 0.0 && self.otlp_endpoint.is_none() {
            return Err("--trace-ratio has no effect without --otlp-endpoint".to_owned());
        }
        let config = |endpoint| TracesConfig { endpoint, ratio: self.trace_ratio };
        Ok(self.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty()).map(config))
    }
}
