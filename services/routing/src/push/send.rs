//! One webhook: where it goes, what it says, how it is signed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_fetch::{Fetcher, HostSet};
use causeway_identity::Domain;
use causeway_runtime::clock::SharedClock;
use causeway_runtime::telemetry::trace::{Hop, Step, TRACEPARENT};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tokio::time::Instant;

use super::queue::Job;
use crate::records::Records;

/// Where a provider's webhooks go is looked up again after this time, and whenever the provider changes.
const TARGET_FOR: Duration = Duration::from_secs(60);

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The provider has taken it.
    Taken,
    /// The provider refused this one.
    Refused,
    /// The provider wants to hear no more of this device.
    Gone,
    /// The provider has no webhook.
    Nowhere,
    /// The provider, or the directory, could not be reached or is in trouble.
    Failed { retry_after: Option<Duration> },
}

pub(super) struct Sender {
    fetcher: Fetcher,
    records: Records,
    clock: SharedClock,
    targets: Mutex<HashMap<Domain, Known>>,
}

/// A target, or that there is none, and until when that is taken for true.
type Known = (Instant, Option<Arc<Target>>);

struct Target {
    url: String,
    hosts: HostSet,
    key: Webhook,
}

impl Sender {
    pub(super) fn new(fetcher: Fetcher, records: Records, clock: SharedClock) -> Self {
        Self { fetcher, records, clock, targets: Mutex::default() }
    }

    pub(super) fn forget(&self, provider: &Domain) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).remove(provider);
    }

    pub(super) async fn send(&self, provider: &Domain, job: &Job) -> Sent {
        let target = match self.target(provider).await {
            Ok(Some(target)) => target,
            Ok(None) => return Sent::Nowhere,
            Err(()) => return Sent::Failed { retry_after: None },
        };
        let body = body(job);
        let seconds = i64::try_from(self.clock.now_ms() / 1_000).unwrap_or(i64::MAX);
        let Some(mut headers) = headers(&target.key, &job.id, seconds, &body) else { return Sent::Nowhere };
        let step = Step::under(Hop::WEBHOOK, job.wake.trace);
        // Only a span of this very call's own: another hop's would tell the provider which of its wakes have one cause.
        let own = step.as_ref().map(Step::context).filter(|context| Some(*context) != job.wake.trace);
        if let Some(value) = own.and_then(|context| HeaderValue::try_from(context.to_string()).ok()) {
            headers.insert(TRACEPARENT, value);
        }
        let sent = self.post(provider, &target, headers, body).await;
        if let Some(step) = step {
            step.outcome(sent.name());
        }
        sent
    }

    async fn post(&self, provider: &Domain, target: &Target, headers: HeaderMap, body: String) -> Sent {
        match self.fetcher.post(&target.url, &target.hosts, headers, Bytes::from(body)).await {
            Ok(posted) if posted.is_success() => Sent::Taken,
            Ok(posted) => match posted.status {
                410 => Sent::Gone,
                408 | 425 | 429 | 500.. => Sent::Failed { retry_after: posted.retry_after },
                _ => Sent::Refused,
            },
            Err(error) => {
                tracing::debug!(%provider, %error, "a webhook failed");
                Sent::Failed { retry_after: None }
            }
        }
    }

    async fn target(&self, provider: &Domain) -> Result<Option<Arc<Target>>, ()> {
        let now = Instant::now();
        {
            let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, target)) = targets.get(provider)
                && now < *until
            {
                return Ok(target.clone());
            }
        }
        let found = self.records.webhook(provider).await.map_err(|_away| ())?;
        let target = found.and_then(|webhook| {
            let hosts = HostSet::parse(&webhook.hosts).ok()?;
            let key = Webhook::new(&webhook.secret).ok()?;
            Some(Arc::new(Target { url: webhook.url, hosts, key }))
        });
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|_, (until, _)| now < *until);
        targets.insert(provider.clone(), (now + TARGET_FOR, target.clone()));
        Ok(target)
    }
}

/// `{"type":"device.wake","data":{"token":"...","urgent":false}}`: the token as the device left it, in base64.
fn body(job: &Job) -> String {
    let token = STANDARD.encode(&job.wake.token);
    format!(r#"{{"type":"device.wake","data":{{"token":"{token}","urgent":{}}}}}"#, job.wake.urgent)
}

fn headers(key: &Webhook, id: &str, seconds: i64, body: &str) -> Option<HeaderMap> {
    let signature = key.sign(id, seconds, body.as_bytes()).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HEADER_WEBHOOK_ID, HeaderValue::from_str(id).ok()?);
    headers.insert(HEADER_WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
    headers.insert(HEADER_WEBHOOK_SIGNATURE, HeaderValue::from_str(&signature).ok()?);
    Some(headers)
}
