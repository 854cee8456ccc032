//! What an actor has been sent and has not taken: messages, a bounded number of them, and what it is told beside them.
//!
//! There is one for each recipient in memory, so that an empty one is small; and whoever sends under load wakes the actor
//! once for all that it takes then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Control, Job};

/// The queue of one actor.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Messages that may wait.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Box<Job>>,
    controls: VecDeque<Control>,
    /// Of the actor, if it waits.
    waker: Option<Waker>,
    /// The actor has ended.
    closed: bool,
}

/// Something that an actor has been sent.
#[derive(Debug)]
pub(super) enum Sent {
    Told(Control),
    Message(Box<Job>),
}

impl Inbox {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), limit })
    }

    /// Adds a message; gives it back if too many wait, or if the actor has ended.
    pub(crate) fn submit(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        let mut state = self.state();
        if state.closed || state.jobs.len() >= self.limit {
            return Err(job);
        }
        state.jobs.push_back(job);
        wake(state);
        Ok(())
    }

    /// Tells the actor something, before the messages that wait; false if it has ended.
    pub(crate) fn tell(&self, control: Control) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        state.controls.push_back(control);
        wake(state);
        true
    }

    /// The actor has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.jobs.is_empty() && state.controls.is_empty()
    }

    /// The next that has been sent, messages only if those are wanted now; else the actor is woken when something comes,
    /// which may be long if it is quiet.
    pub(super) fn poll_next(&self, messages_too: bool, quiet: bool, context: &Context<'_>) -> Poll<Sent> {
        let mut state = self.state();
        if let Some(control) = state.controls.pop_front() {
            return Poll::Ready(Sent::Told(control));
        }
        if messages_too && let Some(job) = state.jobs.pop_front() {
            return Poll::Ready(Sent::Message(job));
        }
        if quiet {
            state.controls.shrink_to_fit();
            state.jobs.shrink_to_fit();
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Takes all messages that wait.
    pub(super) fn take_messages(&self) -> VecDeque<Box<Job>> {
        std::mem::take(&mut self.state().jobs)
    }

    /// Nothing is taken any more; what has been sent and was not taken.
    pub(super) fn close(&self) -> impl Iterator<Item = Sent> + use<> {
        let mut state = self.state();
        state.closed = true;
        let State { jobs, controls, .. } = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        controls.into_iter().map(Sent::Told).chain(jobs.into_iter().map(Sent::Message))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock, so that the actor finds it free.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use causeway_identity::{AccountId, DeviceId, MessageId, SessionId};
    use tokio::time::Instant;

    use super::*;
    use crate::message::{AsWritten, Class, Sender, Submission};
    use crate::metrics::Metrics;
    use crate::outbox::Outbox;
    use crate::recipient::ReplyTo;
    use crate::session::{Session, SessionKey, Voice};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn job(n: u8) -> Box<Job> {
        let device = Sender {
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::new(1).unwrap(),
            address: "ada@birdy.example".parse().unwrap(),
            provider: "birdy.example".parse().unwrap(),
        };
        let outbox = Outbox::new(1 << 20, String::new(), None);
        let voice = Voice::new(SessionId::from_bytes([1; 16]), device, outbox, Metrics::new());
        let session = Session::new(SessionKey(1), voice, 101, 0, None);
        let submission = Submission {
            id: MessageId::from_bytes([n; 16]),
            from: Arc::clone(&session.device),
            to: "bo@home.example".parse().unwrap(),
            class: Class::Chat,
            enc: Vec::new(),
            charge: None,
            trace: None,
        };
        let to = AsWritten("bo@home.example".to_owned());
        Box::new(Job { submission, reply: ReplyTo { session, to, since: Instant::now(), generation: 0, step: None } })
    }

    fn number(sent: &Poll<Sent>) -> Option<u8> {
        match sent {
            Poll::Ready(Sent::Message(job)) => Some(job.submission.id.as_bytes()[0]),
            Poll::Ready(Sent::Told(_)) => Some(0),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_told_comes_before_messages_and_these_only_when_they_are_wanted() {
        let woken = Arc::new(Woken::default());
        let (inbox, waker) = (Inbox::new(2), Arc::clone(&woken).into());
        let context = Context::from_waker(&waker);
        let next = |messages_too| number(&inbox.poll_next(messages_too, true, &context));
        assert_eq!(next(true), None);
        assert!(inbox.submit(job(1)).is_ok() && inbox.submit(job(2)).is_ok());
        assert!(inbox.submit(job(3)).is_err(), "too many wait");
        assert!(inbox.tell(Control::Renamed));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "once for all of it");
        assert_eq!([next(false), next(false), next(true)], [Some(0), None, Some(1)]);
        assert!(inbox.submit(job(4)).is_ok());
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert_eq!([next(true), next(true), next(true)], [Some(2), Some(4), None]);
    }

    #[test]
    fn whoever_has_ended_is_sent_nothing_and_gives_back_what_it_was_sent() {
        let inbox = Inbox::new(8);
        assert!(inbox.submit(job(1)).is_ok() && inbox.tell(Control::Renamed) && !inbox.is_closed());
        let left: Vec<_> = inbox.close().map(|sent| number(&Poll::Ready(sent))).collect();
        assert_eq!(left, [Some(0), Some(1)]);
        assert!(inbox.is_closed() && inbox.is_empty());
        assert!(inbox.submit(job(2)).is_err() && !inbox.tell(Control::Renamed));
    }
}
