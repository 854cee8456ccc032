//! The deliveries of a connection that are traced: on their way to the socket, then until the client acknowledges them. There
//! are none for almost all connections.

use std::collections::VecDeque;

use causeway_runtime::telemetry::trace::{Hop, Step};

/// More at a time are not told apart.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Traced(VecDeque<Delivery>);

#[derive(Debug)]
struct Delivery {
    tag: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not written yet.
    Handing(Step),
    /// With the client.
    Waiting(Step),
}

impl Traced {
    /// Tags rise.
    pub(super) fn delivering(&mut self, tag: u64, step: Step) {
        if self.0.len() < MOST {
            self.0.push_back(Delivery { tag, stage: Stage::Handing(step) });
        }
    }

    /// Everything has left.
    pub(super) fn written(&mut self) {
        for delivery in &mut self.0 {
            if let Stage::Handing(step) = &delivery.stage
                && let Some(next) = Step::under(Hop::ACKNOWLEDGE, Some(step.context()))
            {
                delivery.stage = Stage::Waiting(next);
            }
        }
    }

    /// The client has everything up to this tag.
    pub(super) fn acknowledged(&mut self, upto: u64) {
        if self.0.front().is_some_and(|delivery| delivery.tag <= upto) {
            // It may have answered before the connection has seen that all is written.
            self.written();
        }
        while self.0.front().is_some_and(|delivery| delivery.tag <= upto) {
            if let Some(Delivery { stage: Stage::Waiting(step), .. }) = self.0.pop_front() {
                step.outcome("acknowledged");
            }
        }
    }
}
