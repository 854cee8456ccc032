//! A client's message from its arrival to its outcome: counted, timed, and traced if it is one of those that are.

use std::sync::Arc;

use causeway_proto::wire::v1 as pb;
use causeway_runtime::telemetry::trace::{self, Hop, Step};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// One message's. One that is dropped without an outcome counts as unanswered.
#[derive(Debug)]
pub(crate) struct Trip {
    class: &'static str,
    since: Instant,
    /// Of a message that is traced. Here it is decided, and nobody else has a say in it.
    step: Option<Box<Step>>,
    over: bool,
    metrics: Arc<Metrics>,
}

impl Trip {
    pub(crate) fn begin(message: &pb::Submit, metrics: &Arc<Metrics>, now: Instant) -> Self {
        let class = match pb::MessageClass::try_from(message.class) {
            Ok(pb::MessageClass::Ephemeral) => "ephemeral",
            Ok(pb::MessageClass::Call) => "call",
            Ok(pb::MessageClass::Chat | pb::MessageClass::Unspecified) | Err(_) => "chat",
        };
        Self {
            class,
            since: now,
            step: Step::begin(Hop::ACCEPT).map(Box::new),
            over: false,
            metrics: Arc::clone(metrics),
        }
    }

    /// What goes with the message to routing.
    pub(crate) fn traceparent(&self) -> String {
        trace::to_text(self.step.as_deref().map(Step::context))
    }

    /// Its sender is told what became of it.
    pub(crate) fn ends(&mut self, outcome: &pb::Outcome, now: Instant) {
        let name = name(outcome);
        self.over = true;
        self.metrics.message_answered(self.class, name, now.saturating_duration_since(self.since));
        if let Some(step) = self.step.take() {
            step.outcome(name);
        }
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        if !self.over {
            self.metrics.message_unanswered(self.class);
            if let Some(step) = &self.step {
                step.outcome("unanswered");
            }
        }
    }
}

fn name(outcome: &pb::Outcome) -> &'static str {
    match (pb::Status::try_from(outcome.status), pb::Rejection::try_from(outcome.reason)) {
        (Ok(pb::Status::Delivered), _) => "delivered",
        (Ok(pb::Status::Stored), _) => "stored",
        (Ok(pb::Status::Dropped), _) => "dropped",
        (Ok(pb::Status::Rejected), Ok(pb::Rejection::NotAvailable)) => "not-available",
        (Ok(pb::Status::Rejected), Ok(pb::Rejection::Devices)) => "devices",
        (Ok(pb::Status::Rejected), Ok(pb::Rejection::TooLarge)) => "too-large",
        (Ok(pb::Status::Rejected), Ok(pb::Rejection::RateLimited)) => "rate-limited",
        _ => "other",
    }
}
