//! Push webhooks (Standard Webhooks): what a provider's push service would be woken by.

use std::collections::VecDeque;

use axum::http::HeaderMap;
use serde::Serialize;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tokio::sync::watch;

/// So many are kept; the oldest make room.
const KEPT: usize = 1_024;
/// A time stamp may be this far from our clock, in seconds.
const TOLERANCE_S: u64 = 300;
const MAX_ID_BYTES: usize = 256;

/// A webhook whose signature and time stamp were right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceivedPush {
    /// `webhook-id`: the same one again is a retry, and is listed once.
    pub id: String,
    /// `webhook-timestamp`, Unix seconds.
    pub timestamp_s: u64,
    /// The body as it came.
    pub body: String,
    /// `traceparent`, if it was part of a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Why a webhook is not one of the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PushRefused {
    #[error("the webhook's headers are missing or malformed")]
    Headers,
    #[error("the webhook's time stamp is more than 5 minutes off")]
    Timestamp,
    #[error("the webhook's signature does not verify")]
    Signature,
}

/// The list of what came, in order.
pub(crate) struct Pushes {
    key: Webhook,
    list: watch::Sender<VecDeque<ReceivedPush>>,
}

impl Pushes {
    /// With this secret, `whsec_` and base64; `None` if it is not one.
    pub(crate) fn new(secret: &str) -> Option<Self> {
        let key = Webhook::new(secret.strip_prefix("whsec_").filter(|text| text.len() >= 32)?).ok()?;
        Some(Self { key, list: watch::Sender::new(VecDeque::new()) })
    }

    /// Checks a webhook at the Unix second `now_s` and keeps it.
    pub(crate) fn take(&self, headers: &HeaderMap, body: &[u8], now_s: u64) -> Result<(), PushRefused> {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let id = header(HEADER_WEBHOOK_ID).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        let id = id.ok_or(PushRefused::Headers)?;
        let signatures = header(HEADER_WEBHOOK_SIGNATURE).ok_or(PushRefused::Headers)?;
        let text = header(HEADER_WEBHOOK_TIMESTAMP).ok_or(PushRefused::Headers)?;
        let timestamp: i64 = text.parse().map_err(|_| PushRefused::Headers)?;
        let timestamp_s = u64::try_from(timestamp).map_err(|_| PushRefused::Timestamp)?;
        // Checked here and not by the library, whose subtraction overflows for the largest time stamps.
        if timestamp_s.abs_diff(now_s) > TOLERANCE_S {
            return Err(PushRefused::Timestamp);
        }
        let expected = self.key.sign(id, timestamp, body).map_err(|_| PushRefused::Signature)?;
        let same = |given: &str| {
            aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), expected.as_bytes()).is_ok()
        };
        if !signatures.split(' ').any(same) {
            return Err(PushRefused::Signature);
        }
        let body = String::from_utf8(body.to_vec()).map_err(|_| PushRefused::Signature)?;
        let traceparent = header("traceparent").map(str::to_owned);
        let push = ReceivedPush { id: id.to_owned(), timestamp_s, body, traceparent };
        self.list.send_if_modified(|list| {
            if list.iter().any(|known| known.id == push.id) {
                return false;
            }
            if list.len() == KEPT {
                list.pop_front();
            }
            list.push_back(push);
            true
        });
        Ok(())
    }

    pub(crate) fn list(&self) -> Vec<ReceivedPush> {
        self.list.borrow().iter().cloned().collect()
    }

    /// Waits until at least `count` have come.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<ReceivedPush> {
        let mut receiver = self.list.subscribe();
        let list = receiver.wait_for(|list| list.len() >= count.min(KEPT)).await;
        list.expect("the sender lives in self").iter().cloned().collect()
    }
}
