//! What a process tells about itself: logs to standard error, metrics for Prometheus and for a collector, and the traces of
//! sampled messages. Never addresses, tokens, keys, ciphertext or ids of accounts.
//!
//! Metrics go through the OpenTelemetry API wherever they arise; [`start`] decides where they end. It comes before any
//! service is built: instruments that were made before it count for nobody.

mod collector;
mod config;
mod exposition;
pub mod instruments;
mod logs;
mod process;
pub mod tally;
pub mod trace;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

pub use self::config::TelemetryConfig;
pub use self::exposition::Exposition;
pub use self::logs::{LogFormat, init, is_filter};
use crate::health::Health;

/// When the process leaves, what is not with the collector by then is given up.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who speaks.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// `causeway-edge` and the like.
    pub service: &'static str,
    /// Of the binary.
    pub version: &'static str,
    /// Name of the deployment.
    pub deployment: &'a str,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    /// A filter such as `info`; see [`is_filter`].
    pub filter: &'a str,
    /// How lines look.
    pub format: LogFormat,
}

/// Why the process cannot tell what it should.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter to Prometheus could not be made.
    #[error("metrics for Prometheus: {0}")]
    Prometheus(String),
    /// The exporter to the collector could not be made.
    #[error("telemetry.otlp_endpoint: {0}")]
    Collector(String),
    /// The certificates that the collector's is checked by cannot be read.
    #[error("telemetry.otlp_ca_file {path}: {reason}")]
    CaFile {
        /// The configured path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The process's telemetry, to be ended with [`Telemetry::finish`].
#[derive(Debug)]
pub struct Telemetry {
    meters: Option<SdkMeterProvider>,
    tracers: Option<SdkTracerProvider>,
}

static EXPOSITION: OnceLock<Exposition> = OnceLock::new();

/// Sets up logs, metrics and traces for the process, once. To be called within the Tokio runtime that the process goes on
/// to use.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(log: Log<'_>, config: &TelemetryConfig, who: Identity<'_>) -> Result<Telemetry, TelemetryError> {
    let resource = resource(who);
    let collector = config.otlp_endpoint.as_ref().map(|_| collector::Client::new(config)).transpose()?;
    let tracers = match &collector {
        Some(client) => Some(collector::tracers(client, config, resource.clone())?),
        None => None,
    };
    logs::subscribe(log.filter, log.format, tracers.as_ref().map(|provider| provider.tracer("causeway")));
    if tracers.is_some() {
        trace::record(config.sample_ratio);
    }
    if !config.metrics {
        return Ok(Telemetry { meters: None, tracers });
    }
    let (exposition, reader) = Exposition::new()?;
    let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(reader);
    if let Some(client) = &collector {
        builder = builder.with_reader(collector::metrics(client, config)?);
    }
    let meters = builder.build();
    global::set_meter_provider(meters.clone());
    let _set_before = EXPOSITION.set(exposition);
    process::observe(who);
    Ok(Telemetry { meters: Some(meters), tracers })
}

/// What `/metrics` of this process answers with: nothing unless [`start`] has been told to count.
pub fn exposition() -> Exposition {
    EXPOSITION.get().cloned().unwrap_or_default()
}

/// Tells the process's health as metrics, too.
pub fn observe_health(health: &Health) {
    process::observe_health(health.clone());
}

impl Telemetry {
    /// Gives the collector what it has not got, for at most two seconds each of metrics and traces. Blocks; the runtime that
    /// it was started in must still run.
    pub fn finish(self) {
        if let Some(tracers) = self.tracers {
            let _collector_is_away = tracers.shutdown_with_timeout(FAREWELL);
        }
        if let Some(meters) = self.meters {
            let _collector_is_away = meters.shutdown_with_timeout(FAREWELL);
        }
    }
}

/// Who speaks, in the words of the semantic conventions. `OTEL_RESOURCE_ATTRIBUTES` adds to it.
fn resource(who: Identity<'_>) -> Resource {
    use std::hash::{BuildHasher as _, RandomState};
    // Any number that no other process has will do.
    let instance = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    Resource::builder()
        .with_service_name(who.service)
        .with_attributes([
            KeyValue::new("service.version", who.version),
            KeyValue::new("service.namespace", who.deployment.to_owned()),
            KeyValue::new("service.instance.id", instance),
        ])
        .build()
}
