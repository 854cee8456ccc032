//! What can be set about telemetry.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Check, ConfigError, ensure, within};

/// Metrics and traces.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Whether anything is counted. Without it `/metrics` is empty. Default true.
    pub metrics: bool,
    /// Base URL of an OpenTelemetry collector that takes OTLP over HTTP in protobuf, such as `http://collector:4318`; metrics go
    /// to `/v1/metrics` of it and traces to `/v1/traces`. Without one, no message is traced. Default none.
    pub otlp_endpoint: Option<String>,
    /// PEM file of the authorities that the collector's certificate is checked by. Default none: those of the system.
    pub otlp_ca_file: Option<PathBuf>,
    /// One export to the collector takes no longer (100 to 60 000 ms). Default 10 000.
    pub otlp_timeout_ms: u64,
    /// Metrics go to the collector this often (100 to 3 600 000 ms). Default 15 000.
    pub metrics_interval_ms: u64,
    /// Finished spans wait for the collector no longer than this (10 to 60 000 ms). Default 2 000.
    pub traces_interval_ms: u64,
    /// So many of all messages are traced, as decided once by the sender's edge (0 to 1). Default 0.001.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            metrics: true,
            otlp_endpoint: None,
            otlp_ca_file: None,
            otlp_timeout_ms: 10_000,
            metrics_interval_ms: 15_000,
            traces_interval_ms: 2_000,
            sample_ratio: 0.001,
        }
    }
}

impl Check for TelemetryConfig {
    fn check(&self) -> Result<(), ConfigError> {
        within("telemetry.otlp_timeout_ms", self.otlp_timeout_ms, 100..=60_000)?;
        within("telemetry.metrics_interval_ms", self.metrics_interval_ms, 100..=3_600_000)?;
        within("telemetry.traces_interval_ms", self.traces_interval_ms, 10..=60_000)?;
        let ratio = (0.0..=1.0).contains(&self.sample_ratio);
        ensure("telemetry.sample_ratio", ratio, self.sample_ratio, "must be between 0 and 1")?;
        let endpoint = self.otlp_endpoint.as_deref().unwrap_or("http://collector:4318");
        let fix = "give the base URL of a collector, such as http://collector:4318";
        ensure("telemetry.otlp_endpoint", is_base_url(endpoint), endpoint, fix)
    }
}

/// `http` or `https`, a host, and at most a path.
fn is_base_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@')) && uri.query().is_none();
    plain && matches!(uri.scheme_str(), Some("http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        TelemetryConfig::default().check().unwrap();
        type Spoil = fn(&mut TelemetryConfig);
        let wrong: [(&str, Spoil); 7] = [
            ("telemetry.sample_ratio", |config| config.sample_ratio = 1.5),
            ("telemetry.sample_ratio", |config| config.sample_ratio = f64::NAN),
            ("telemetry.otlp_endpoint", |config| config.otlp_endpoint = Some("collector:4318".to_owned())),
            ("telemetry.otlp_endpoint", |config| config.otlp_endpoint = Some("http://me:secret@collector".to_owned())),
            ("telemetry.metrics_interval_ms", |config| config.metrics_interval_ms = 1),
            ("telemetry.traces_interval_ms", |config| config.traces_interval_ms = 0),
            ("telemetry.otlp_timeout_ms", |config| config.otlp_timeout_ms = 0),
        ];
        for (field, spoil) in wrong {
            let mut config = TelemetryConfig::default();
            spoil(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }
}
