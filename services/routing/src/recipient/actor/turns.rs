//! When an actor does what: each time that it is woken it takes what has come, some of it at a time, and carries it out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{FuturesOrdered, FuturesUnordered, Stream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::sleep_until;

use super::{Actor, Pending, Senses, Sent, Shared, Tried};

/// So much is taken before others have their turn.
const A_TURN: usize = 64;
/// So much is taken before the clocks are read again.
const ONE_TIME: usize = 16;

/// Runs until nobody has needed it for a while, or until drained.
impl Future for Actor {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let shared = Arc::clone(&this.shared);
        this.turn(&shared, context)
    }
}

impl Actor {
    /// Takes what has come; ready at the end.
    fn turn(&mut self, shared: &Shared, context: &mut Context<'_>) -> Poll<()> {
        for taken in 0..A_TURN {
            if taken % ONE_TIME == 0 {
                self.now = self.shared.now();
            }
            if !self.take_next(context) {
                if self.is_over() {
                    return Poll::Ready(());
                }
                // Last, so that a time that has passed keeps nothing waiting.
                if !self.is_due(context) {
                    self.rest();
                    return Poll::Pending;
                }
                self.now = self.shared.now();
            }
            self.step(shared);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes one thing, if something has come.
    fn take_next(&mut self, context: &mut Context<'_>) -> bool {
        if let Poll::Ready(finished) = self.results.poll_next(context) {
            self.finished(finished);
            return true;
        }
        if let Poll::Ready(finished) = self.readings.poll_next(context) {
            self.finished(finished);
            return true;
        }
        if let Some(need) = &mut self.need
            && let Poll::Ready(needed) = need.poll_unpin(context)
        {
            self.needed(needed);
            return true;
        }
        // What is not taken stays in its bounded queue.
        match self.inbox.poll_next(self.takes_jobs(), self.machine.is_quiet(), context) {
            Poll::Ready(Sent::Told(control)) => self.told(control),
            Poll::Ready(Sent::Message(job)) => self.take(job),
            Poll::Pending => return false,
        }
        true
    }

    /// Decides what can be decided, and carries it out.
    fn step(&mut self, shared: &Shared) {
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.now.instant) {
            let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused: None };
            self.machine.tick(self.now, &mut world, &mut self.out);
        }
        self.perform();
        self.go_on_releasing(self.now.instant);
        while self.need.is_none() && !self.is_settling() {
            let Some(first) = self.waiting.pop_front() else { break };
            match self.attempt(first, shared) {
                Tried::Done => self.attempts = 0,
                Tried::Records(step) => self.fetch_for(step),
                Tried::Claim(step, account) => self.claim_for(step, account),
                Tried::Stale(step) => {
                    self.shared.records.cache().forget(&self.address);
                    self.fetch_for(step);
                }
            }
            self.perform();
        }
        self.count_owned(self.owns_any());
    }

    /// Nothing has come. True if nothing is to come any more: it ends.
    fn is_over(&mut self) -> bool {
        if self.takes_nothing {
            // They get no answer: their sessions end, and their clients repeat them elsewhere.
            drop(self.inbox.take_messages());
            // It ends when it is told to, and not at a time.
            self.idle_since = None;
            if self.is_finished() {
                self.quiet = None;
                return self.leaving && self.recipients.retire(&self.address, || self.inbox.is_empty());
            }
            return false;
        }
        if !self.is_idle() {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(self.now.instant);
        let nothing_came = || {
            let idle = self.inbox.is_empty();
            if idle {
                self.give_back();
            }
            idle
        };
        since + self.patience() <= self.now.instant && self.recipients.retire(&self.address, nothing_came)
    }

    /// Has it woken when there is something to do without any input; true if there is now.
    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        let retire_at = self.idle_since.map(|since| since + self.patience());
        let deadlines = [self.machine.next_deadline(), retire_at, self.release_deadline()];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            self.timer = None;
            return false;
        };
        // One that is set for an earlier time stays: under load there is a deadline for each message, and most of them pass
        // without anything to do.
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        timer.poll_unpin(context).is_ready()
    }

    /// It may be long until something comes: it takes no more memory than it needs.
    fn rest(&mut self) {
        if !self.machine.is_quiet() {
            return;
        }
        self.out = Vec::new();
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        self.results.rest();
        self.readings.rest();
        self.machine.rest();
    }
}

/// Futures whose results are told in the order in which they were added; takes no memory while there are none.
pub(super) struct InOrder<T>(Option<FuturesOrdered<Pending<T>>>);

/// The same in any order.
pub(super) struct Unordered<T>(Option<FuturesUnordered<Pending<T>>>);

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Default for Unordered<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> InOrder<T> {
    pub(super) fn push(&mut self, future: Pending<T>) {
        self.0.get_or_insert_with(FuturesOrdered::new).push_back(future);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(FuturesOrdered::is_empty)
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<T> {
        next_of(self.0.as_mut().filter(|futures| !futures.is_empty()), context)
    }

    fn rest(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}

impl<T> Unordered<T> {
    pub(super) fn push(&mut self, future: Pending<T>) {
        self.0.get_or_insert_with(FuturesUnordered::new).push(future);
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesUnordered::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<T> {
        next_of(self.0.as_mut().filter(|futures| !futures.is_empty()), context)
    }

    fn rest(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}

fn next_of<S: Stream + Unpin>(stream: Option<&mut S>, context: &mut Context<'_>) -> Poll<S::Item> {
    match stream.map(|stream| stream.poll_next_unpin(context)) {
        Some(Poll::Ready(Some(item))) => Poll::Ready(item),
        Some(Poll::Ready(None) | Poll::Pending) | None => Poll::Pending,
    }
}
