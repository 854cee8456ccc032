//! The metrics in Prometheus's text format, for the one who asks.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use opentelemetry_prometheus::PrometheusExporter;
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::TelemetryError;

/// What has been counted. Cheap to clone; empty by default.
#[derive(Debug, Clone, Default)]
pub struct Exposition(Option<Arc<Registry>>);

impl Exposition {
    pub(super) fn new() -> Result<(Self, PrometheusExporter), TelemetryError> {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(|error| TelemetryError::Prometheus(error.to_string()))?;
        Ok((Self(Some(Arc::new(registry))), reader))
    }

    /// All metrics in Prometheus's text format, version 0.0.4.
    ///
    /// # Errors
    /// Two metrics contradict each other.
    pub fn text(&self) -> Result<String, TelemetryError> {
        let Some(registry) = &self.0 else { return Ok(String::new()) };
        let wrong = |error: prometheus::Error| TelemetryError::Prometheus(error.to_string());
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).map_err(wrong)?;
        String::from_utf8(text).map_err(|error| TelemetryError::Prometheus(error.to_string()))
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        Router::new().route("/metrics", get(expose)).with_state(self.clone())
    }
}

async fn expose(State(exposition): State<Exposition>) -> Response {
    match exposition.text() {
        Ok(text) => {
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, format)], text).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "metrics could not be told");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn names_units_labels_and_help_are_in_prometheus_form() {
        let (exposition, reader) = Exposition::new().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let meter = provider.meter("causeway.test");
        let transferred =
            meter.u64_counter("causeway.test.transferred").with_unit("By").with_description("Bytes").build();
        transferred.add(7, &[KeyValue::new("direction", "upload")]);
        let latency = meter.f64_histogram("causeway.test.ack.latency").with_unit("s").with_description("Time");
        latency.with_boundaries(vec![0.01, 0.1]).build().record(0.05, &[]);
        let sessions =
            meter.i64_up_down_counter("causeway.test.sessions").with_unit("{session}").with_description("Now");
        sessions.build().add(3, &[]);

        let request = http::Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
        let answer = exposition.router().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let body = axum::body::to_bytes(answer.into_body(), 100_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        for line in [
            "# HELP causeway_test_transferred_bytes_total Bytes",
            "# TYPE causeway_test_transferred_bytes_total counter",
            "causeway_test_transferred_bytes_total{direction=\"upload\"} 7",
            "causeway_test_ack_latency_seconds_bucket{le=\"0.01\"} 0",
            "causeway_test_ack_latency_seconds_bucket{le=\"0.1\"} 1",
            "causeway_test_sessions 3",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn nothing_is_told_where_nothing_is_counted() {
        assert_eq!(Exposition::default().text().unwrap(), "");
    }
}
