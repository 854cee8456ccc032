//! All instruments of the edge. Labels come from closed lists only.

use opentelemetry::metrics::{Counter, UpDownCounter};
use opentelemetry::{KeyValue, global};

/// Handle of the instruments; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    connections: UpDownCounter<i64>,
    sessions: UpDownCounter<i64>,
    refused: Counter<u64>,
    accept_errors: Counter<u64>,
    alerts: Counter<u64>,
    logins: Counter<u64>,
    login_failures: Counter<u64>,
    ended: Counter<u64>,
    requests: Counter<u64>,
    link_losses: Counter<u64>,
    full_queues: Counter<u64>,
    moves: Counter<u64>,
    again: Counter<u64>,
}

/// Why a connection ended before its handshake was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// No place for it.
    NoPlace,
    /// It did not get through the handshake in time.
    Deadline,
    /// It left, or the WebSocket upgrade failed.
    Gone,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("causeway.edge");
        Self {
            connections: meter.i64_up_down_counter("causeway.edge.connections").with_unit("{connection}").build(),
            sessions: meter.i64_up_down_counter("causeway.edge.sessions").with_unit("{session}").build(),
            refused: meter.u64_counter("causeway.edge.connections.dropped").with_unit("{connection}").build(),
            accept_errors: meter.u64_counter("causeway.edge.accept.errors").with_unit("{error}").build(),
            alerts: meter.u64_counter("causeway.edge.alerts").with_unit("{alert}").build(),
            logins: meter.u64_counter("causeway.edge.logins").with_unit("{login}").build(),
            login_failures: meter.u64_counter("causeway.edge.login.failures").with_unit("{login}").build(),
            ended: meter.u64_counter("causeway.edge.sessions.ended").with_unit("{session}").build(),
            requests: meter.u64_counter("causeway.edge.requests").with_unit("{request}").build(),
            link_losses: meter.u64_counter("causeway.edge.link.losses").with_unit("{loss}").build(),
            full_queues: meter.u64_counter("causeway.edge.queues.full").with_unit("{session}").build(),
            moves: meter.u64_counter("causeway.edge.sessions.moved").with_unit("{session}").build(),
            again: meter.u64_counter("causeway.edge.messages.again").with_unit("{message}").build(),
        }
    }

    pub(crate) fn connected(&self) {
        self.connections.add(1, &[]);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.add(-1, &[]);
    }

    /// A connection ended without an alert, a failure or an end.
    pub(crate) fn dropped(&self, why: Dropped) {
        let why = match why {
            Dropped::NoPlace => "no-place",
            Dropped::Deadline => "deadline",
            Dropped::Gone => "gone",
        };
        self.refused.add(1, &[KeyValue::new("why", why)]);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.add(1, &[]);
    }

    /// `code` is the alert's number.
    pub(crate) fn alert_sent(&self, code: u8) {
        self.alerts.add(1, &[KeyValue::new("code", i64::from(code))]);
    }

    pub(crate) fn logged_in(&self) {
        self.logins.add(1, &[]);
        self.sessions.add(1, &[]);
    }

    /// `reason` is the wire name of the failure reason.
    pub(crate) fn login_failed(&self, reason: &'static str) {
        self.login_failures.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// `reason` is the wire name of the end reason, or `gone` for a client that left without a word.
    pub(crate) fn session_ended(&self, reason: &'static str) {
        self.sessions.add(-1, &[]);
        self.ended.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// `request` and `outcome` are wire names; the outcome of a request that was carried out is `done`.
    pub(crate) fn request_answered(&self, request: &'static str, outcome: &'static str) {
        self.requests.add(1, &[KeyValue::new("request", request), KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn link_lost(&self) {
        self.link_losses.add(1, &[]);
    }

    /// Routing has told a session to attach again.
    pub(crate) fn session_moved(&self) {
        self.moves.add(1, &[]);
    }

    /// A replica of routing was lost that had not answered these messages.
    pub(crate) fn submitted_again(&self, messages: usize) {
        if messages > 0 {
            self.again.add(messages as u64, &[]);
        }
    }

    pub(crate) fn session_queue_full(&self) {
        self.full_queues.add(1, &[]);
    }
}
