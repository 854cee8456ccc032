//! All instruments of a routing: `causeway.routing.*`, labels from closed sets only.

use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use opentelemetry::{KeyValue, global};

use crate::mailbox::StoreError;
use crate::message::{Ending, Outcome, Rejection};

/// Instruments of a routing; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    submissions: Counter<u64>,
    outcomes: Counter<u64>,
    unanswered: Counter<u64>,
    deliveries: Counter<u64>,
    sessions: UpDownCounter<i64>,
    recipients: UpDownCounter<i64>,
    links: UpDownCounter<i64>,
    endings: Counter<u64>,
    moves: Counter<u64>,
    claims: Counter<u64>,
    resets: Counter<u64>,
    commits: Histogram<f64>,
    commit_operations: Histogram<u64>,
    store_errors: Counter<u64>,
    record_fetches: Counter<u64>,
    webhooks: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("causeway.routing");
        Self {
            submissions: meter.u64_counter("causeway.routing.submissions").with_unit("{message}").build(),
            outcomes: meter.u64_counter("causeway.routing.outcomes").with_unit("{message}").build(),
            unanswered: meter.u64_counter("causeway.routing.unanswered").with_unit("{message}").build(),
            deliveries: meter.u64_counter("causeway.routing.deliveries").with_unit("{message}").build(),
            sessions: meter.i64_up_down_counter("causeway.routing.sessions").with_unit("{session}").build(),
            recipients: meter.i64_up_down_counter("causeway.routing.recipients").with_unit("{recipient}").build(),
            links: meter.i64_up_down_counter("causeway.routing.links").with_unit("{link}").build(),
            endings: meter.u64_counter("causeway.routing.endings").with_unit("{session}").build(),
            moves: meter.u64_counter("causeway.routing.moves").with_unit("{session}").build(),
            claims: meter.u64_counter("causeway.routing.claims").with_unit("{account}").build(),
            resets: meter.u64_counter("causeway.routing.resets").with_unit("{account}").build(),
            commits: meter.f64_histogram("causeway.routing.mailbox.commit").with_unit("s").build(),
            commit_operations: meter.u64_histogram("causeway.routing.mailbox.commit_operations").build(),
            store_errors: meter.u64_counter("causeway.routing.mailbox.errors").with_unit("{operation}").build(),
            record_fetches: meter.u64_counter("causeway.routing.record_fetches").with_unit("{record}").build(),
            webhooks: meter.u64_counter("causeway.routing.webhooks").with_unit("{request}").build(),
        }
    }

    pub(crate) fn submitted(&self) {
        self.submissions.add(1, &[]);
    }

    pub(crate) fn decided(&self, outcome: &Outcome) {
        let name = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Stored => "stored",
            Outcome::Dropped => "dropped",
            Outcome::Rejected(Rejection::Devices(_)) => "rejected-devices",
            Outcome::Rejected(Rejection::NotAvailable) => "rejected-not-available",
            Outcome::Rejected(Rejection::RateLimited { .. } | Rejection::Full { .. }) => "rejected-rate-limited",
            Outcome::Rejected(Rejection::TooLarge) => "rejected-too-large",
        };
        self.outcomes.add(1, &[KeyValue::new("outcome", name)]);
    }

    /// Nothing true could be said about a message; its sender's session ends.
    pub(crate) fn left_unanswered(&self) {
        self.unanswered.add(1, &[]);
    }

    pub(crate) fn delivering(&self, from_mailbox: bool) {
        let path = if from_mailbox { "mailbox" } else { "live" };
        self.deliveries.add(1, &[KeyValue::new("path", path)]);
    }

    pub(crate) fn session_attached(&self) {
        self.sessions.add(1, &[]);
    }

    pub(crate) fn session_detached(&self) {
        self.sessions.add(-1, &[]);
    }

    pub(crate) fn session_ended(&self, reason: Ending) {
        let name = match reason {
            Ending::Replaced => "replaced",
            Ending::DeviceRemoved => "device-removed",
            Ending::Withdrawn => "withdrawn",
            Ending::BadStanza => "bad-stanza",
            Ending::BadAck => "bad-ack",
            Ending::Overloaded => "overloaded",
        };
        self.endings.add(1, &[KeyValue::new("reason", name)]);
    }

    /// A session is to attach again.
    pub(crate) fn session_moved(&self) {
        self.moves.add(1, &[]);
    }

    /// An account was claimed, or not: `free`, `kept`, `taken` from another, `held` by another, `failed`.
    pub(crate) fn claimed(&self, result: &'static str) {
        self.claims.add(1, &[KeyValue::new("result", result)]);
    }

    /// All that was known of an account was given up, because `reason`.
    pub(crate) fn reset(&self, reason: &'static str) {
        self.resets.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn recipient_loaded(&self) {
        self.recipients.add(1, &[]);
    }

    pub(crate) fn recipient_left(&self) {
        self.recipients.add(-1, &[]);
    }

    pub(crate) fn link_opened(&self) {
        self.links.add(1, &[]);
    }

    pub(crate) fn link_closed(&self) {
        self.links.add(-1, &[]);
    }

    pub(crate) fn committed(&self, operations: usize, took: Duration) {
        self.commits.record(took.as_secs_f64(), &[]);
        self.commit_operations.record(operations as u64, &[]);
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        self.store_errors.add(1, &[KeyValue::new("reason", error.reason())]);
    }

    pub(crate) fn record_fetched(&self, found: &'static str) {
        self.record_fetches.add(1, &[KeyValue::new("result", found)]);
    }

    pub(crate) fn webhook_sent(&self, result: &'static str) {
        self.webhooks.add(1, &[KeyValue::new("result", result)]);
    }
}
