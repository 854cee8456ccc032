//! What a session has been given and has not acknowledged, for the clock and for traces. Who gets it again when it fails is
//! not decided here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use causeway_runtime::telemetry::trace::{Hop, Step, TraceContext};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// More are not timed; no session has so many under way unless it is configured so.
const MOST: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<VecDeque<Flight>>);

#[derive(Debug)]
struct Flight {
    tag: u64,
    since: Instant,
    from_mailbox: bool,
    /// Of a message that is traced.
    step: Option<Step>,
}

impl Flights {
    /// A delivery leaves; tags rise. Gives what goes with it to the edge.
    pub(super) fn begin(
        &self,
        tag: u64,
        from_mailbox: bool,
        trace: Option<TraceContext>,
        now: Instant,
    ) -> Option<TraceContext> {
        let step = Step::under(Hop::DELIVER, trace);
        let context = step.as_ref().map(Step::context);
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.len() < MOST {
            flights.push_back(Flight { tag, since: now, from_mailbox, step });
        }
        context
    }

    /// The device has everything up to this tag.
    pub(super) fn landed(&self, upto: u64, metrics: &Metrics) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while flights.front().is_some_and(|flight| flight.tag <= upto) {
            let Some(flight) = flights.pop_front() else { return };
            metrics.acknowledged(flight.from_mailbox, now.saturating_duration_since(flight.since));
            if let Some(step) = flight.step {
                step.outcome("acknowledged");
            }
        }
        // It may be long until the next one.
        if flights.is_empty() {
            flights.shrink_to_fit();
        }
    }
}
