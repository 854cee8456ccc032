//! What goes to an OpenTelemetry collector: OTLP over HTTP, in protobuf. The exporters have threads of their own, which
//! wait for requests that run on the process's Tokio runtime.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tokio::runtime::Handle;

use super::{TelemetryConfig, TelemetryError};

/// Finished spans that wait for the collector; more are dropped.
const SPANS: usize = 4_096;
const SPANS_AT_ONCE: usize = 512;
/// What a collector may answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    runtime: Handle,
    base: String,
}

impl Client {
    pub(super) fn new(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let wrong = |reason: String| TelemetryError::Collector(reason);
        let mut builder = reqwest::Client::builder()
            .timeout(Duration::from_millis(config.otlp_timeout_ms))
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &config.otlp_ca_file {
            let unusable = |reason: String| TelemetryError::CaFile { path: path.display().to_string(), reason };
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
            builder = builder.tls_certs_only(authorities);
        }
        let http = builder.build().map_err(|error| wrong(error.to_string()))?;
        let runtime = Handle::try_current().map_err(|error| wrong(error.to_string()))?;
        let base = config.otlp_endpoint.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner { http, runtime, base })))
    }

    fn url(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.0.base)
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.0.http.clone();
        self.0.runtime.spawn(async move { send(http, request).await }).await?
    }
}

async fn send(http: reqwest::Client, request: reqwest::Request) -> Result<Response<Bytes>, HttpError> {
    let mut answer = http.execute(request).await?;
    let mut told = Response::builder().status(answer.status());
    for name in ["content-type", "retry-after"] {
        if let Some(value) = answer.headers().get(name) {
            told = told.header(name, value);
        }
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err("the collector's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(told.body(body.into())?)
}

/// Sends the metrics every so often.
pub(super) fn metrics(
    client: &Client,
    config: &TelemetryConfig,
) -> Result<PeriodicReader<MetricExporter>, TelemetryError> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(client.url("metrics"))
        .with_timeout(Duration::from_millis(config.otlp_timeout_ms))
        .build()
        .map_err(|error| TelemetryError::Collector(error.to_string()))?;
    Ok(PeriodicReader::builder(exporter).with_interval(Duration::from_millis(config.metrics_interval_ms)).build())
}

/// Sends the spans of traced messages. Which are, has been decided before there is a span.
pub(super) fn tracers(
    client: &Client,
    config: &TelemetryConfig,
    resource: Resource,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(client.url("traces"))
        .with_timeout(Duration::from_millis(config.otlp_timeout_ms))
        .build()
        .map_err(|error| TelemetryError::Collector(error.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS)
        .with_max_export_batch_size(SPANS_AT_ONCE)
        .with_scheduled_delay(Duration::from_millis(config.traces_interval_ms))
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .build())
}
