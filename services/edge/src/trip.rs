//! A client's message from its arrival to its outcome: counted, timed, and traced if it is one of those that are.

use causeway_proto::wire::v1 as pb;
use causeway_runtime::telemetry::trace::{self, Hop, Step};
use tokio::time::Instant;

use crate::metrics::{Metrics, message_unanswered};

/// One message's. One that is dropped without an outcome counts as unanswered.
#[derive(Debug)]
pub(crate) struct Trip {
    class: Class,
    since: Instant,
    /// Of a message that is traced. Here it is decided, and nobody else has a say in it.
    step: Option<Box<Step>>,
    over: bool,
}

/// As the metrics tell messages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Chat,
    Ephemeral,
    Call,
}

/// What its sender is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Stored,
    Dropped,
    NotAvailable,
    Devices,
    TooLarge,
    RateLimited,
    Other,
    Unanswered,
}

impl Class {
    /// By number.
    pub(crate) const ALL: [Self; 3] = [Self::Chat, Self::Ephemeral, Self::Call];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Ephemeral => "ephemeral",
            Self::Call => "call",
        }
    }

    fn of(message: &pb::Submit) -> Self {
        match pb::MessageClass::try_from(message.class) {
            Ok(pb::MessageClass::Ephemeral) => Self::Ephemeral,
            Ok(pb::MessageClass::Call) => Self::Call,
            Ok(pb::MessageClass::Chat | pb::MessageClass::Unspecified) | Err(_) => Self::Chat,
        }
    }
}

impl Fate {
    /// By number.
    pub(crate) const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Stored,
        Self::Dropped,
        Self::NotAvailable,
        Self::Devices,
        Self::TooLarge,
        Self::RateLimited,
        Self::Other,
        Self::Unanswered,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Stored => "stored",
            Self::Dropped => "dropped",
            Self::NotAvailable => "not-available",
            Self::Devices => "devices",
            Self::TooLarge => "too-large",
            Self::RateLimited => "rate-limited",
            Self::Other => "other",
            Self::Unanswered => "unanswered",
        }
    }

    fn of(outcome: &pb::Outcome) -> Self {
        match (pb::Status::try_from(outcome.status), pb::Rejection::try_from(outcome.reason)) {
            (Ok(pb::Status::Delivered), _) => Self::Delivered,
            (Ok(pb::Status::Stored), _) => Self::Stored,
            (Ok(pb::Status::Dropped), _) => Self::Dropped,
            (Ok(pb::Status::Rejected), Ok(pb::Rejection::NotAvailable)) => Self::NotAvailable,
            (Ok(pb::Status::Rejected), Ok(pb::Rejection::Devices)) => Self::Devices,
            (Ok(pb::Status::Rejected), Ok(pb::Rejection::TooLarge)) => Self::TooLarge,
            (Ok(pb::Status::Rejected), Ok(pb::Rejection::RateLimited)) => Self::RateLimited,
            _ => Self::Other,
        }
    }
}

impl Trip {
    pub(crate) fn begin(message: &pb::Submit, now: Instant) -> Self {
        Self { class: Class::of(message), since: now, step: Step::begin(Hop::ACCEPT).map(Box::new), over: false }
    }

    /// What goes with the message to routing.
    pub(crate) fn traceparent(&self) -> String {
        trace::to_text(self.step.as_deref().map(Step::context))
    }

    /// Its sender is told what became of it.
    pub(crate) fn ends(&mut self, outcome: &pb::Outcome, now: Instant, metrics: &Metrics) {
        let fate = Fate::of(outcome);
        self.over = true;
        metrics.message_answered(self.class, fate, now.saturating_duration_since(self.since));
        if let Some(step) = self.step.take() {
            step.outcome(fate.name());
        }
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        if !self.over {
            message_unanswered(self.class);
            if let Some(step) = &self.step {
                step.outcome(Fate::Unanswered.name());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_number() {
        assert!(Class::ALL.iter().enumerate().all(|(number, class)| *class as usize == number));
        assert!(Fate::ALL.iter().enumerate().all(|(number, fate)| *fate as usize == number));
    }
}
