//! What a session has been given and has not acknowledged: bounded in messages and bytes, tags without gaps.

use std::collections::VecDeque;

use crate::message::{MessageKey, Seq};

/// An unacknowledged delivery.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) seq: Seq,
    pub(super) key: MessageKey,
    pub(super) weight: usize,
    pub(super) kept: Kept,
}

/// Whether the mailbox has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Neither that nor on the way there.
    No,
    /// It is being written.
    Writing,
    /// The mailbox has it.
    Yes,
    /// It is not to be kept.
    Never,
}

/// The unacknowledged deliveries of a session.
#[derive(Debug)]
pub(super) struct Window {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Tag of the first of them; the next one if there are none.
    first_tag: u64,
    max_messages: usize,
    max_bytes: usize,
}

impl Window {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { deliveries: VecDeque::new(), bytes: 0, first_tag: 1, max_messages, max_bytes }
    }

    /// Room for one more of this weight. One always fits into an empty window.
    pub(super) fn has_room(&self, weight: usize) -> bool {
        self.deliveries.is_empty()
            || (self.deliveries.len() < self.max_messages && self.bytes + weight <= self.max_bytes)
    }

    /// Messages and bytes that fit now.
    pub(super) fn room(&self) -> (usize, usize) {
        let messages = self.max_messages.saturating_sub(self.deliveries.len());
        (messages, self.max_bytes.saturating_sub(self.bytes))
    }

    /// At least half of it is free: time to read more from the mailbox.
    pub(super) fn is_half_free(&self) -> bool {
        self.deliveries.len() <= self.max_messages / 2 && self.bytes <= self.max_bytes / 2
    }

    /// Adds a delivery and gives its tag.
    pub(super) fn push(&mut self, delivery: Delivery) -> u64 {
        let tag = self.next_tag();
        self.bytes += delivery.weight;
        self.deliveries.push_back(delivery);
        tag
    }

    fn next_tag(&self) -> u64 {
        self.first_tag + self.deliveries.len() as u64
    }

    /// True for a tag that was given.
    pub(super) fn was_sent(&self, tag: u64) -> bool {
        tag < self.next_tag()
    }

    /// Takes the first delivery if its tag is at most `tag`.
    pub(super) fn pop_upto(&mut self, tag: u64) -> Option<Delivery> {
        if self.first_tag > tag {
            return None;
        }
        let delivery = self.deliveries.pop_front()?;
        self.first_tag += 1;
        self.bytes -= delivery.weight;
        Some(delivery)
    }

    /// The delivery with this place in the order.
    pub(super) fn at(&mut self, seq: Seq) -> Option<&mut Delivery> {
        let index = self.deliveries.binary_search_by_key(&seq, |delivery| delivery.seq).ok()?;
        self.deliveries.get_mut(index)
    }

    /// True when the mailbox has this message and this session was given it.
    pub(super) fn has_kept(&self, key: &MessageKey) -> bool {
        self.deliveries.iter().any(|delivery| delivery.key == *key && delivery.kept == Kept::Yes)
    }

    pub(super) fn into_deliveries(self) -> VecDeque<Delivery> {
        self.deliveries
    }

    /// Takes no more memory than it needs.
    pub(super) fn rest(&mut self) {
        if self.deliveries.is_empty() {
            self.deliveries.shrink_to_fit();
        }
    }

    /// What of it is neither in the mailbox nor on the way there.
    #[cfg(test)]
    pub(super) fn unkept(&self) -> usize {
        self.deliveries.iter().filter(|delivery| delivery.kept == Kept::No).count()
    }
}
