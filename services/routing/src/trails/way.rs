//! The trails of one recipient, in order.

use std::collections::VecDeque;

use super::trail::Trail;
use crate::message::Seq;

/// By their places. New ones come last and old ones leave first, but for few.
#[derive(Default)]
pub(super) struct InOrder(VecDeque<(Seq, Box<Trail>)>);

/// A list of fewer is not worth giving back.
const SMALL: usize = 16;

impl InOrder {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Trail> {
        let at = self.at(seq).ok()?;
        self.0.get(at).map(|(_, trail)| &**trail)
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Trail> {
        let at = self.at(seq).ok()?;
        self.0.get_mut(at).map(|(_, trail)| &mut **trail)
    }

    pub(super) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Trail> {
        self.0.iter_mut().map(|(_, trail)| &mut **trail)
    }

    /// True if its place was free; else it is there instead of the one of before.
    pub(super) fn insert(&mut self, trail: Box<Trail>) -> bool {
        match self.at(trail.seq) {
            Ok(at) => {
                self.0[at].1 = trail;
                false
            }
            Err(at) => {
                self.0.insert(at, (trail.seq, trail));
                true
            }
        }
    }

    pub(super) fn remove(&mut self, seq: Seq) {
        if let Ok(at) = self.at(seq) {
            self.0.remove(at);
        }
        if self.0.capacity() > SMALL && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.capacity() / 2);
        }
    }

    fn at(&self, seq: Seq) -> Result<usize, usize> {
        // Mostly one of the last is looked for.
        match self.0.back() {
            Some((last, _)) if *last == seq => Ok(self.0.len() - 1),
            Some((last, _)) if *last < seq => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&seq, |(seq, _)| *seq),
        }
    }
}
