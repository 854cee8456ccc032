//! Costly work of logins (key agreements, signatures of tokens) is done a little at a time, so that messages do not wait for
//! a crowd of clients that comes at once.
//!
//! Whoever has such work takes a slot for it. There are few for each worker of the runtime, and one that was used is free
//! again only after tasks that were ready by then had their turn (all of them, but not more than some sixty): so a message
//! meets no more than a few pieces of such work, and such work goes on however many messages there are. Those who wait are
//! served in the order in which they came, and who leaves before its turn costs nothing.
//!
//! No threads of its own: a piece takes less than a tenth of a millisecond, and to hand it over and back costs a good part of
//! that when the machine is idle.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Slots for each worker of the runtime. With fewer, a crowd would wait for too long while messages keep the machine busy.
const PER_WORKER: usize = 2;

/// Hands out slots; cheap to clone, clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Pacing(Arc<Semaphore>);

/// The right to do one piece of costly work. Dropped without having been used, it is another's at once.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// Waits for a slot.
#[derive(Debug)]
pub(crate) struct Waiting(PollSemaphore);

impl Pacing {
    /// For the runtime that this is called in.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(PER_WORKER * Handle::current().metrics().num_workers())))
    }

    /// A slot that is free now.
    pub(crate) fn free_slot(&self) -> Option<Slot> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Slot::holding)
    }

    /// A slot, once there is one. `None`: there will be none, which does not happen.
    pub(crate) async fn slot(&self) -> Option<Slot> {
        Arc::clone(&self.0).acquire_owned().await.ok().map(Slot::holding)
    }

    /// Waits for a slot by polling.
    pub(crate) fn wait(&self) -> Waiting {
        Waiting(PollSemaphore::new(Arc::clone(&self.0)))
    }
}

impl Waiting {
    /// As [`Pacing::slot`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let permit = ready!(self.0.poll_acquire(cx));
        Poll::Ready(permit.map(Slot::holding))
    }
}

impl Slot {
    const fn holding(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: permit }
    }

    /// The work has been done.
    pub(crate) fn used(self) {
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            drop(self);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    const CROWD: u32 = 200;

    /// A crowd that comes at once, each with three pieces of work.
    fn crowd(pacing: &Pacing, done: &Arc<AtomicU32>) -> tokio::task::JoinSet<()> {
        (0..CROWD)
            .map(|_| {
                let (pacing, done) = (pacing.clone(), Arc::clone(done));
                async move {
                    for _ in 0..3 {
                        let slot = pacing.slot().await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                        slot.used();
                    }
                }
            })
            .collect()
    }

    #[tokio::test]
    async fn messages_do_not_wait_for_a_crowd_and_the_crowd_is_served() {
        let (pacing, done) = (Pacing::new(), Arc::new(AtomicU32::new(0)));
        let (there, mut at_there) = mpsc::unbounded_channel();
        let (back, mut at_back) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = at_there.recv().await {
                let _over = back.send(message);
            }
        });
        let crowd = crowd(&pacing, &done);
        // All of the crowd is ready before the first message, which goes from task to task.
        let of_messages = Arc::clone(&done);
        let messages = tokio::spawn(async move {
            for message in 0..100 {
                let before = of_messages.load(Ordering::Relaxed);
                there.send(message).unwrap();
                assert_eq!(at_back.recv().await, Some(message));
                let meanwhile = of_messages.load(Ordering::Relaxed) - before;
                assert!(meanwhile <= 2, "{meanwhile} pieces of work while one message went there and back");
            }
        });
        messages.await.unwrap();
        assert!(done.load(Ordering::Relaxed) < 3 * CROWD, "the crowd is still there");
        crowd.join_all().await;
        assert_eq!(done.load(Ordering::Relaxed), 3 * CROWD);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_leaves_gives_its_place_to_the_others() {
        let (pacing, done) = (Pacing::new(), Arc::new(AtomicU32::new(0)));
        let held: Vec<_> = std::iter::from_fn(|| pacing.free_slot()).collect();
        assert_eq!(held.len(), 2 * PER_WORKER);
        let mut first = Box::pin(pacing.slot());
        let mut by_polling = pacing.wait();
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(std::future::poll_fn(|cx| by_polling.poll(cx))).is_pending());
        let (gone, stays) = (crowd(&pacing, &done), crowd(&pacing, &done));
        drop((first, by_polling, gone));
        assert_eq!(done.load(Ordering::Relaxed), 0);
        drop(held);
        stays.join_all().await;
        assert!(done.load(Ordering::Relaxed) >= 3 * CROWD);
    }
}
