//! Who waits for the confirmation of a change that several directories have to confirm.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Callers that wait; what they wait for is found out by `peers`. As many as there are calls under way that have
/// changed something.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Somebody new waits, so that the log has something new.
    wake: Notify,
    callers: Mutex<Callers>,
}

#[derive(Default)]
struct Callers {
    /// How many have ever waited.
    came: u64,
    waiting: Vec<Caller>,
}

struct Caller {
    /// It was so manieth.
    place: u64,
    /// `None`: for all that was committed before; the number is found by the next complete reading of the log.
    number: Option<u64>,
    done: oneshot::Sender<()>,
}

/// Tells a caller.
pub(crate) struct Confirmed(oneshot::Receiver<()>);

impl Confirmed {
    pub(super) async fn wait(self) {
        if self.0.await.is_err() {
            // This directory ends. Nobody is told of a confirmation that has not come; the call's deadline ends it.
            std::future::pending::<()>().await;
        }
    }
}

impl Waiting {
    /// The confirmation of all changes up to `number`; `None`: of all that have been committed until now.
    pub(super) fn wait_for(&self, number: Option<u64>) -> Confirmed {
        let (done, confirmed) = oneshot::channel();
        let mut callers = self.lock();
        // Those who do not wait are forgotten here, so that they cannot pile up while nothing can be confirmed.
        callers.waiting.retain(|caller| !caller.done.is_closed());
        callers.came += 1;
        let place = callers.came;
        callers.waiting.push(Caller { place, number, done });
        drop(callers);
        self.wake.notify_one();
        Confirmed(confirmed)
    }

    /// Resolves when somebody new has begun to wait, also if that was before the call.
    pub(crate) async fn somebody_new(&self) {
        self.wake.notified().await;
    }

    /// How many have begun to wait until now. To be given to [`Self::found`] after a reading of the log that begins later.
    pub(crate) fn came(&self) -> u64 {
        self.lock().came
    }

    /// The log was read to its end, which was `number`, after `came` callers had begun to wait.
    pub(crate) fn found(&self, came: u64, number: u64) {
        for caller in self.lock().waiting.iter_mut().filter(|caller| caller.place <= came) {
            caller.number.get_or_insert(number);
        }
    }

    /// The greatest number up to `settled` that somebody waits for.
    pub(crate) fn wanted(&self, settled: u64) -> Option<u64> {
        let callers = self.lock();
        let waiting = callers.waiting.iter().filter(|caller| !caller.done.is_closed());
        waiting.filter_map(|caller| caller.number).filter(|number| *number <= settled).max()
    }

    /// Everything up to `number` is confirmed.
    pub(crate) fn confirm(&self, number: u64) {
        let is_done = |caller: &mut Caller| caller.number.is_some_and(|wanted| wanted <= number);
        let done: Vec<Caller> = self.lock().waiting.extract_if(.., is_done).collect();
        for caller in done {
            let _gave_up = caller.done.send(());
        }
    }

    /// True if somebody waits.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.lock().waiting.iter().any(|caller| !caller.done.is_closed())
    }

    fn lock(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_number_is_told_when_it_is_reached() {
        let waiting = Waiting::default();
        let (mut third, mut fifth) = (waiting.wait_for(Some(3)).0, waiting.wait_for(Some(5)).0);
        assert_eq!((waiting.wanted(2), waiting.wanted(4), waiting.wanted(9)), (None, Some(3), Some(5)));
        waiting.confirm(4);
        assert!((&mut third).now_or_never().is_some() && (&mut fifth).now_or_never().is_none());
        waiting.confirm(5);
        assert!(fifth.now_or_never().is_some() && !waiting.is_waited_for());
    }

    #[tokio::test]
    async fn who_waits_for_all_waits_for_what_a_later_reading_finds() {
        let waiting = Waiting::default();
        let gave_up = waiting.wait_for(Some(1));
        let first = waiting.wait_for(None);
        let came = waiting.came();
        drop(gave_up);
        let mut second = waiting.wait_for(None).0;
        waiting.found(came, 7);
        waiting.confirm(7);
        assert!(first.0.now_or_never().is_some());
        assert!((&mut second).now_or_never().is_none(), "the reading had begun before");
        waiting.found(waiting.came(), 7);
        waiting.confirm(7);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test]
    async fn nobody_is_told_by_the_end() {
        let waiting = Waiting::default();
        let confirmed = waiting.wait_for(Some(1));
        drop(waiting);
        assert!(confirmed.wait().now_or_never().is_none());
    }
}
