//! An OpenTelemetry collector: takes OTLP over HTTP in protobuf, and keeps what came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::within;

/// A finished span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `causeway-edge` and the like.
    pub service: String,
    /// Of which process, by a number of its own.
    pub instance: String,
    /// What happened.
    pub name: String,
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Of the one above; empty for the first.
    pub parent: String,
    /// What it says beside this.
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// How it ended.
    pub fn outcome(&self) -> &str {
        self.attributes.get("causeway.outcome").map(String::as_str).unwrap_or_default()
    }

    /// The `traceparent` that goes on from here.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }
}

/// What came.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    /// Names of metrics by service.
    metrics: BTreeMap<String, BTreeSet<String>>,
}

/// A collector that runs until it is dropped.
pub struct Collector {
    url: String,
    received: Arc<watch::Sender<Received>>,
    serving: JoinHandle<()>,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        let received: Arc<watch::Sender<Received>> = Arc::default();
        let router = Router::new()
            .route("/v1/traces", post(take_traces))
            .route("/v1/metrics", post(take_metrics))
            .with_state(Arc::clone(&received));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen as a collector")?;
        let url = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self { url, received, serving })
    }

    /// What to set as `telemetry.otlp_endpoint`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What `pick` makes of the spans that have come, as soon as it makes something.
    ///
    /// # Errors
    /// Nothing comes in time that it makes something of.
    pub async fn spans<T>(&self, what: &str, pick: impl Fn(&[Span]) -> Option<T>) -> anyhow::Result<T> {
        let mut changes = self.received.subscribe();
        let mut picked = None;
        let waiting = async {
            let enough = |received: &Received| {
                picked = pick(&received.spans);
                picked.is_some()
            };
            drop(changes.wait_for(enough).await?);
            Ok(())
        };
        let waited = within(what, waiting).await;
        waited.with_context(|| format!("spans: {:#?}", self.received.borrow().spans))?;
        picked.context("what was waited for")
    }

    /// Waits until a service has sent this metric.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn metric(&self, service: &str, name: &str) -> anyhow::Result<()> {
        let mut changes = self.received.subscribe();
        within(&format!("{name} of {service}"), async {
            let sent = |received: &Received| received.metrics.get(service).is_some_and(|names| names.contains(name));
            drop(changes.wait_for(sent).await?);
            Ok(())
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take_traces(
    State(received): State<Arc<watch::Sender<Received>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), StatusCode> {
    let request: ExportTraceServiceRequest = decode(&headers, body)?;
    received.send_modify(|received| {
        for of_process in request.resource_spans {
            let resource =
                attributes(of_process.resource.map(|Resource { attributes, .. }| attributes).unwrap_or_default());
            let of = |name: &str| resource.get(name).cloned().unwrap_or_default();
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                received.spans.push(Span {
                    service: of("service.name"),
                    instance: of("service.instance.id"),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: attributes(span.attributes),
                });
            }
        }
    });
    Ok(())
}

async fn take_metrics(
    State(received): State<Arc<watch::Sender<Received>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), StatusCode> {
    let request: ExportMetricsServiceRequest = decode(&headers, body)?;
    received.send_modify(|received| {
        for of_process in request.resource_metrics {
            let resource =
                attributes(of_process.resource.map(|Resource { attributes, .. }| attributes).unwrap_or_default());
            let service = resource.get("service.name").cloned().unwrap_or_default();
            let names = of_process.scope_metrics.into_iter().flat_map(|scope| scope.metrics).map(|metric| metric.name);
            received.metrics.entry(service).or_default().extend(names);
        }
    });
    Ok(())
}

fn decode<M: Message + Default>(headers: &HeaderMap, body: Bytes) -> Result<M, StatusCode> {
    let protobuf = headers.get("content-type").is_some_and(|form| form == "application/x-protobuf");
    if !protobuf {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    M::decode(body).map_err(|_| StatusCode::BAD_REQUEST)
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
