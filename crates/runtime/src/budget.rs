//! A bound on what may be held at a time, of bytes mostly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much may be held at a time.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    limit: usize,
}

impl Budget {
    /// One of which nothing is held yet.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit })
    }

    /// A charge of `amount`, given back when it is dropped; `None` when there is no room for it.
    #[must_use]
    pub fn charge(self: &Arc<Self>, amount: usize) -> Option<Charge> {
        self.take(amount).then(|| Charge { budget: Arc::clone(self), amount })
    }

    fn take(&self, amount: usize) -> bool {
        let more = |held: usize| held.checked_add(amount).filter(|sum| *sum <= self.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A charge also when there is no room for it: for what is there already.
    #[must_use]
    pub fn charge_anyway(self: &Arc<Self>, amount: usize) -> Charge {
        self.held.fetch_add(amount, Ordering::Relaxed);
        Charge { budget: Arc::clone(self), amount }
    }

    /// All of it.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is held now; more than [`Budget::limit`] if it was charged anyway.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What is left of it.
    #[must_use]
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.held())
    }
}

/// What is held of a [`Budget`].
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    amount: usize,
}

impl Charge {
    /// What is held.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Holds so much more; false when there is no room for it.
    #[must_use]
    pub fn grow(&mut self, by: usize) -> bool {
        let grows = self.budget.take(by);
        if grows {
            self.amount += by;
        }
        grows
    }

    /// Holds so much more also when there is no room for it: of what is there already.
    pub fn grow_anyway(&mut self, by: usize) {
        self.budget.held.fetch_add(by, Ordering::Relaxed);
        self.amount += by;
    }

    /// Gives so much of it back.
    pub fn shrink(&mut self, by: usize) {
        let by = by.min(self.amount);
        self.amount -= by;
        self.budget.held.fetch_sub(by, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.charge(6).unwrap();
        assert!(budget.charge(5).is_none());
        let second = budget.charge(4).unwrap();
        assert!(budget.charge(usize::MAX).is_none());
        drop(first);
        assert_eq!((budget.held(), budget.free()), (4, 6));
        let beyond = budget.charge_anyway(8);
        assert_eq!((budget.held(), budget.free()), (12, 0));
        drop((second, beyond));
        let mut third = budget.charge(1).unwrap();
        assert!(third.grow(9) && !third.grow(1));
        third.grow_anyway(3);
        third.shrink(7);
        assert_eq!((third.amount(), budget.held()), (6, 6));
        drop(third);
        assert_eq!((budget.held(), budget.free()), (0, 10));
    }
}
