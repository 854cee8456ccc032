//! Replicas go on with what waits, and what their machines say is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Link, REPLICAS, Simulated};
use crate::mailbox::PutOutcome;
use crate::message::Ending;
use crate::recipient::machine::{Output, Ticket};
use crate::recipient::simulation::planted::Planted;
use crate::recipient::simulation::replica::{Done, Op, Waiting};

impl Simulated {
    /// Lets replicas go on with what waits, and with what they release.
    pub(super) fn pump(&mut self) {
        for at in 0..REPLICAS {
            self.carry_out(at);
            self.go_on(at);
            let replica = &mut self.replicas[at];
            if replica.releasing && replica.machine.is_quiet() && replica.nothing_queued() {
                let id = replica.owned;
                replica.reset(&mut self.out);
                replica.owned = id;
                replica.push(Op::Release);
                replica.owned = None;
                replica.releasing = false;
                replica.yields(self.instant);
                self.carry_out(at);
            }
            let replica = &mut self.replicas[at];
            let wants = !replica.waiting.is_empty() && !replica.releasing && !replica.claiming;
            if wants && !replica.owns(self.instant, self.planted) && self.instant >= replica.not_before {
                replica.claiming = true;
                replica.push(Op::Claim);
            }
        }
    }

    /// Decides what waits, as long as this replica may.
    fn go_on(&mut self, at: usize) {
        loop {
            let (now, mut world) = (self.now(at), Link(self.link_full));
            let record = Arc::clone(&self.record);
            let owns = self.replicas[at].owns(self.instant, self.planted);
            let replica = &mut self.replicas[at];
            let Some(first) = replica.waiting.pop_front() else { return };
            match first {
                Waiting::Own if owns => {}
                Waiting::Message(submission, reply) => {
                    if self.senders[reply.0].connection != reply.2 {
                        // Its link is lost.
                        continue;
                    }
                    // A repeat is told its outcome by whoever knows it.
                    match replica.machine.repeat(&submission.key(), reply, &mut self.out) {
                        Ok(()) => {}
                        Err(reply) if owns => {
                            let sender = self.senders[reply.0].record.clone();
                            let records = (&Some(record), &sender);
                            replica.machine.submit(submission, reply, records, now, &mut world, &mut self.out);
                        }
                        Err(reply) => {
                            replica.waiting.push_front(Waiting::Message(submission, reply));
                            self.carry_out(at);
                            return;
                        }
                    }
                }
                Waiting::Attach(attaching) if self.left.contains(&attaching.session) => {}
                Waiting::Attach(attaching) if owns => {
                    replica.machine.attach(&attaching, &record, now, &mut world, &mut self.out);
                }
                first => {
                    replica.waiting.push_front(first);
                    return;
                }
            }
            self.carry_out(at);
        }
    }

    pub(super) fn carry_out(&mut self, at: usize) {
        self.swap_deliveries();
        let mut broken: BTreeSet<usize> = BTreeSet::new();
        let mut told_early: Vec<Ticket> = Vec::new();
        for output in std::mem::take(&mut self.out) {
            if let Output::Put { ticket, .. } = &output
                && self.planted == Some(Planted::StoredBeforeCommit)
            {
                told_early.push(*ticket);
            }
            let Some(output) = self.replicas[at].ask(output) else { continue };
            match output {
                Output::Attached { session, waiting: _, number: _ } => {
                    if !self.left.contains(&session) {
                        let session = self.session(session).expect("attached without a session");
                        assert!(!std::mem::replace(&mut session.attached, true) && session.given.is_empty());
                    }
                }
                Output::Deliver { session, tag, envelope, from_mailbox: _ } => self.given(session, tag, &envelope),
                Output::Moved { session } => self.lose(session),
                Output::End { session, reason } => {
                    assert!(matches!(reason, Ending::Replaced | Ending::DeviceRemoved), "{reason:?} has no cause here");
                    self.lose(session);
                }
                Output::Answer { reply, id, outcome } => self.answered(reply, id, outcome),
                Output::Fail { reply: (sender, _, connection) } => {
                    self.faults = true;
                    if self.senders[sender].connection == connection {
                        broken.insert(sender);
                    }
                }
                Output::Verify { key, reply, rejection, .. } => {
                    let held = self.store.holds(&key);
                    self.replicas[at].machine.verified(&key, reply, rejection, Some(held), &mut self.out);
                }
                Output::DropAccount { .. } => unreachable!("nobody withdraws here"),
                Output::Wake { .. } | Output::Kept { .. } | Output::Acknowledged { .. } => {}
                Output::Accepted { header, .. } => {
                    assert!(self.replicas[at].under_way.insert(header.seq), "two messages in one place");
                }
                Output::Settled { seq, .. } => {
                    assert!(self.replicas[at].under_way.remove(&seq), "settled twice, or never accepted");
                }
                Output::Put { .. }
                | Output::Forget { .. }
                | Output::DropDevice { .. }
                | Output::Recount { .. }
                | Output::Page { .. } => unreachable!("the replica has taken it"),
            }
        }
        for ticket in told_early {
            let epoch = self.replicas[at].epoch;
            self.tell(at, epoch, Done::Put(ticket, Ok(PutOutcome::Stored { repeats: Vec::new() })));
        }
        // Those whose message was given up come again, as their clients would.
        for sender in broken {
            let to = self.senders[sender].at;
            self.break_sender(sender, to);
        }
        if !self.out.is_empty() {
            self.carry_out(at);
        }
    }

    fn swap_deliveries(&mut self) {
        if self.planted != Some(Planted::SwappedDeliveries) {
            return;
        }
        let deliveries: Vec<usize> = self
            .out
            .iter()
            .enumerate()
            .filter(|(_, output)| matches!(output, Output::Deliver { .. }))
            .map(|(place, _)| place)
            .collect();
        if let [first, second, ..] = deliveries[..] {
            let (one, other) = self.out.split_at_mut(second);
            if let (Output::Deliver { session, envelope, .. }, Output::Deliver { session: same, envelope: next, .. }) =
                (&mut one[first], &mut other[0])
                && session == same
            {
                std::mem::swap(envelope, next);
            }
        }
    }
}
