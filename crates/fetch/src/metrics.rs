//! How long providers take to answer (docs/metrics.md).

use std::sync::OnceLock;

use opentelemetry::metrics::Histogram;
use opentelemetry::{KeyValue, global};
use tokio::time::Instant;
use url::Url;

/// Bounds of the buckets, in seconds.
const WAITS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A request that is under way.
pub(crate) struct Asked {
    method: &'static str,
    /// One of those that the provider has registered, so that there are no more labels than these.
    host: String,
    since: Instant,
}

impl Asked {
    pub(crate) fn get(url: &Url) -> Self {
        Self::begin("GET", url)
    }

    pub(crate) fn post(url: &Url) -> Self {
        Self::begin("POST", url)
    }

    fn begin(method: &'static str, url: &Url) -> Self {
        Self { method, host: url.host_str().unwrap_or_default().to_owned(), since: Instant::now() }
    }

    /// The head of the answer is there, with this status; or there is none, for this reason.
    pub(crate) fn answered(self, status: Result<u16, &'static str>) {
        static WAITED: OnceLock<Histogram<f64>> = OnceLock::new();
        let histogram = WAITED.get_or_init(|| {
            let meter = global::meter("causeway.fetch");
            let histogram = meter.f64_histogram("http.client.request.duration").with_unit("s");
            histogram.with_description("Requests to providers").with_boundaries(WAITS.to_vec()).build()
        });
        let of = [
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("server.address", self.host),
            match status {
                Ok(status) => KeyValue::new("http.response.status_code", i64::from(status)),
                Err(reason) => KeyValue::new("error.type", reason),
            },
        ];
        histogram.record(self.since.elapsed().as_secs_f64(), &of);
    }
}
