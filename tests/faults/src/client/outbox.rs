//! What a device has sent and not heard of: the part of it that a real device would have on disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use causeway_identity::Address;
use tokio::time::Instant;

use crate::driver::world::Enlisted;
use crate::ledger::{Class, MessageNumber};

/// A message without an outcome.
pub(super) struct Open {
    /// To which account.
    pub(super) to: u32,
    /// How.
    pub(super) class: Class,
    /// Bytes beside the canary.
    pub(super) padding: usize,
    /// It names this device too, which is no longer one of the account.
    pub(super) removed: Option<Arc<Enlisted>>,
    /// What goes over the wire, from the first submission on.
    pub(super) record: Option<Vec<u8>>,
    /// When it was submitted last.
    pub(super) at: Option<Instant>,
    /// In this session.
    pub(super) in_flight: bool,
}

/// Messages in the order of their making, which is the order of their submission.
#[derive(Default)]
pub(super) struct Outbox {
    open: BTreeMap<MessageNumber, Open>,
    in_flight: usize,
    /// All that this session has submitted, with the address and whether it is worth a repeat.
    submitted: HashMap<MessageNumber, Address>,
    /// The last that were submitted in this session.
    recent: std::collections::VecDeque<(MessageNumber, Vec<u8>)>,
    next: Option<MessageNumber>,
}

/// How many are remembered for repeats that nobody asked for.
const RECENT: usize = 16;

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn push(&mut self, number: MessageNumber, open: Open) {
        self.next.get_or_insert(number);
        self.open.insert(number, open);
    }

    /// A new session: all that is open is submitted again, in its order.
    pub(super) fn rewind(&mut self) {
        self.in_flight = 0;
        self.submitted.clear();
        self.recent.clear();
        for open in self.open.values_mut() {
            open.in_flight = false;
        }
        self.next = self.open.first_key_value().map(|(number, _)| *number);
    }

    /// The next message to submit in this session.
    pub(super) fn next(&mut self) -> Option<(MessageNumber, &mut Open)> {
        let number = self.next?;
        self.open.get_mut(&number).map(|open| (number, open))
    }

    /// The next one is on its way.
    pub(super) fn submitted(&mut self, number: MessageNumber, address: Address, record: &[u8]) {
        if let Some(open) = self.open.get_mut(&number) {
            open.in_flight = true;
            open.at = Some(Instant::now());
        }
        self.in_flight += 1;
        self.submitted.insert(number, address);
        self.recent.push_back((number, record.to_vec()));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.next = self.open.range(MessageNumber(number.0 + 1)..).next().map(|(number, _)| *number);
    }

    /// The next one cannot be sent at all.
    pub(super) fn skip(&mut self, number: MessageNumber) {
        self.open.remove(&number);
        self.next = self.open.range(number..).next().map(|(number, _)| *number);
    }

    /// Whether this session has submitted it to that address.
    pub(super) fn has_submitted(&self, number: MessageNumber, address: &Address) -> bool {
        self.submitted.get(&number).is_some_and(|to| to == address)
    }

    /// It has an outcome; whether that is the first.
    pub(super) fn close(&mut self, number: MessageNumber) -> bool {
        match self.open.remove(&number) {
            Some(open) => {
                self.in_flight -= usize::from(open.in_flight);
                if self.next == Some(number) {
                    self.next = self.open.range(number..).next().map(|(number, _)| *number);
                }
                true
            }
            None => false,
        }
    }

    /// One of the last messages, whatever became of it.
    pub(super) fn recent(&self, choice: usize) -> Option<&(MessageNumber, Vec<u8>)> {
        self.recent.get(choice % self.recent.len().max(1))
    }

    /// It was rejected: to repeat it would be another attempt, not a retry.
    pub(super) fn forget_recent(&mut self, number: MessageNumber) {
        self.recent.retain(|(other, _)| *other != number);
    }

    /// Messages that have waited since before `since`, and all behind them to the same accounts, in order.
    pub(super) fn overdue(&mut self, since: Instant) -> Vec<(MessageNumber, Vec<u8>)> {
        let mut late = std::collections::BTreeSet::new();
        let mut again = Vec::new();
        for (number, open) in self.open.iter_mut().filter(|(_, open)| open.in_flight) {
            if open.at.is_some_and(|at| at < since) {
                late.insert(open.to);
            }
            if late.contains(&open.to) {
                open.at = Some(Instant::now());
                again.extend(open.record.clone().map(|record| (*number, record)));
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(to: u32) -> Open {
        Open { to, class: Class::Chat, padding: 0, removed: None, record: Some(vec![1]), at: None, in_flight: false }
    }

    fn submit_all(outbox: &mut Outbox) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some((number, _)) = outbox.next() {
            order.push(number.0);
            outbox.submitted(number, "a@b.example".parse().unwrap(), &[]);
        }
        order
    }

    #[tokio::test]
    async fn each_session_submits_what_is_open_in_order() {
        let mut outbox = Outbox::default();
        for number in 0..4 {
            outbox.push(MessageNumber(number), open(1));
        }
        assert_eq!(submit_all(&mut outbox), [0, 1, 2, 3]);
        assert!(outbox.close(MessageNumber(1)) && !outbox.close(MessageNumber(1)));
        assert_eq!(outbox.in_flight(), 3);
        outbox.push(MessageNumber(4), open(1));
        assert_eq!(submit_all(&mut outbox), [4]);
        outbox.rewind();
        assert!(!outbox.has_submitted(MessageNumber(0), &"a@b.example".parse().unwrap()));
        assert_eq!(submit_all(&mut outbox), [0, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_late_message_takes_those_behind_it_along() {
        let mut outbox = Outbox::default();
        for (number, to) in [(0, 1), (1, 2), (2, 1)] {
            outbox.push(MessageNumber(number), open(to));
        }
        submit_all(&mut outbox);
        let later = Instant::now() + std::time::Duration::from_secs(1);
        for number in [1, 2] {
            outbox.open.get_mut(&MessageNumber(number)).unwrap().at = Some(later);
        }
        let again: Vec<_> = outbox.overdue(later).into_iter().map(|(number, _)| number.0).collect();
        assert_eq!(again, [0, 2]);
    }
}
