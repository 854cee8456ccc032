//! What hardly ever happens to a connection, and wakes its task by itself: a turn of the loop does not look at it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Waits for time, the drain and the provider's suspension. Resolves again and again.
pub(super) struct Rare {
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off, if it has been set since it last did.
    set: Option<Instant>,
    drain: Cancelled,
    suspended: Cancelled,
}

/// `None`: there is nothing to wait for.
type Cancelled = Option<Pin<Box<WaitForCancellationFutureOwned>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seldom {
    /// A deadline may have come.
    Tick,
    /// The edge drains; once.
    Drain,
    /// The user's provider has been suspended; once.
    Suspended,
}

impl Rare {
    pub(super) fn new(drain: &CancellationToken, now: Instant) -> Self {
        Self { timer: Box::pin(sleep_until(now)), set: None, drain: wait_for(drain), suspended: None }
    }

    /// From now on it waits for this, too.
    pub(super) fn watch(&mut self, suspended: &CancellationToken) {
        self.suspended = wait_for(suspended);
    }

    /// True if there is a [`Seldom::Tick`] by then, or before.
    pub(super) fn ticks_by(&self, at: Instant) -> bool {
        self.set.is_some_and(|set| set <= at)
    }

    pub(super) fn tick_at(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.set = Some(at);
    }
}

fn wait_for(token: &CancellationToken) -> Cancelled {
    Some(Box::pin(token.clone().cancelled_owned()))
}

fn is_cancelled(waiting: &mut Cancelled, cx: &mut Context<'_>) -> bool {
    let cancelled = waiting.as_mut().is_some_and(|waiting| waiting.as_mut().poll(cx).is_ready());
    if cancelled {
        *waiting = None;
    }
    cancelled
}

impl Future for Rare {
    type Output = Seldom;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Seldom> {
        if self.set.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.set = None;
            return Poll::Ready(Seldom::Tick);
        }
        if is_cancelled(&mut self.drain, cx) {
            return Poll::Ready(Seldom::Drain);
        }
        if is_cancelled(&mut self.suspended, cx) {
            return Poll::Ready(Seldom::Suspended);
        }
        Poll::Pending
    }
}
