//! How long providers take to answer (docs/metrics.md).

use std::sync::OnceLock;

use opentelemetry::metrics::Histogram;
use opentelemetry::{KeyValue, global};
use tokio::time::Instant;
use url::Url;

/// Bounds of the buckets, in seconds.
const WAITS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A status in a closed list: what a host answers is its own choice, and each other word would be another series.
fn label(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        206 => "206",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        408 => "408",
        410 => "410",
        413 => "413",
        416 => "416",
        425 => "425",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => match status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "_OTHER",
        },
    }
}

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
                Ok(status) => KeyValue::new("http.response.status_code", label(status)),
                Err(reason) => KeyValue::new("error.type", reason),
            },
        ];
        histogram.record(self.since.elapsed().as_secs_f64(), &of);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::label;

    #[test]
    fn whatever_a_host_answers_there_are_few_labels() {
        let labels: BTreeSet<_> = (0..=u16::MAX).map(label).collect();
        assert_eq!(labels.len(), 25);
        assert_eq!(
            [label(200), label(299), label(302), label(503), label(599), label(999)],
            ["200", "2xx", "3xx", "503", "5xx", "_OTHER"]
        );
    }
}
