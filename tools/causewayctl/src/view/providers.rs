//! How providers' hosts answer, and whether their token keys come.

use causeway_proto::directory::v1::{Provider, ProviderStatus};
use serde::Serialize;

use super::window::{Window, quantile};
use crate::chat::clean;

const REQUESTS: &str = "http_client_request_duration_seconds";
/// Hosts that are shown.
const MAX_ROWS: usize = 1_000;

/// What the operator API says of a provider.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) domain: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) suspended: bool,
    pub(crate) home: bool,
    pub(crate) count: u32,
    /// Milliseconds since the Unix epoch; 0: never.
    pub(crate) fetched_ms: u64,
    /// Empty: the last fetch did not fail.
    pub(crate) error: String,
}

/// One host of a provider, or a provider whose hosts were not asked.
#[derive(Debug, Serialize)]
pub(crate) struct ProviderRow {
    /// Its domain if that is known, else empty.
    pub(crate) provider: String,
    pub(crate) host: String,
    pub(crate) requests: f64,
    /// Those that were not answered, or refused.
    pub(crate) failed: f64,
    pub(crate) mean_s: Option<f64>,
    pub(crate) p95_s: Option<f64>,
    /// `live`, `suspended`, `no keys`, `keys failing`; empty without the operator API.
    pub(crate) keys: &'static str,
}

impl Keys {
    pub(crate) fn of(provider: &Provider) -> Option<Self> {
        use causeway_proto::wire::v1::ProviderKind;
        let settings = provider.settings.as_ref()?;
        Some(Self {
            domain: clean(&settings.domain),
            hosts: settings.hosts.iter().map(|host| clean(host)).collect(),
            suspended: provider.status() == ProviderStatus::Suspended,
            home: settings.kind() == ProviderKind::Home,
            count: provider.key_count,
            fetched_ms: provider.keys_fetched_ms,
            error: clean(&provider.keys_error),
        })
    }

    fn state(&self) -> &'static str {
        match (self.suspended, self.error.is_empty(), self.count) {
            (true, ..) => "suspended",
            (_, false, _) => "failing",
            (_, _, 0) => "none",
            _ => "fresh",
        }
    }

    fn has(&self, host: &str) -> bool {
        let bare = |host: &str| host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned();
        self.hosts.iter().any(|own| own == host || bare(own) == host)
    }
}

pub(super) fn rows(window: &Window<'_>, keys: &[Keys]) -> Vec<ProviderRow> {
    let count = format!("{REQUESTS}_count");
    let errors = window.labels(&count, "error_type");
    let statuses = window.labels(&count, "http_response_status_code");
    let refusals: Vec<_> = statuses.into_iter().filter(|status| status.starts_with(['4', '5'])).collect();
    let mut rows = Vec::new();
    for host in window.labels(&count, "server_address").into_iter().take(MAX_ROWS) {
        let at = ("server_address", host.as_str());
        let requests = window.growth(&count, &[at]);
        if requests <= 0.0 {
            continue;
        }
        let of = |label, values: &[String]| -> f64 {
            values.iter().map(|value| window.growth(&count, &[at, (label, value)])).fold(0.0, |one, other| one + other)
        };
        // Several providers on one host, on ports of their own, cannot be told apart.
        let mut known = keys.iter().filter(|keys| keys.has(&host));
        let owner = known.next().filter(|_| known.next().is_none());
        rows.push(ProviderRow {
            provider: owner.map(|keys| keys.domain.clone()).unwrap_or_default(),
            requests,
            failed: of("error_type", &errors) + of("http_response_status_code", &refusals),
            mean_s: Some(window.growth(&format!("{REQUESTS}_sum"), &[at]) / requests),
            p95_s: quantile(&window.buckets(REQUESTS, &[at]), 0.95),
            keys: owner.map_or("", Keys::state),
            host: clean(&host),
        });
    }
    rows.sort_by(|one, other| other.p95_s.unwrap_or(0.0).total_cmp(&one.p95_s.unwrap_or(0.0)));
    let unseen = keys.iter().filter(|keys| !rows.iter().any(|row| row.provider == keys.domain));
    let unseen: Vec<_> = unseen
        .take(MAX_ROWS)
        .map(|keys| ProviderRow {
            provider: keys.domain.clone(),
            host: keys.hosts.join(","),
            requests: 0.0,
            failed: 0.0,
            mean_s: None,
            p95_s: None,
            keys: keys.state(),
        })
        .collect();
    rows.extend(unseen);
    rows
}
