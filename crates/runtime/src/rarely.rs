//! Waiting for what hardly ever happens, in a task that is woken all the time for something else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled when it has something to say, and not each time that its task runs. To poll one that waits for
/// a token, for instance, takes a lock that is shared by all who wait for it; to poll this is to look at a flag of its own.
#[derive(Debug)]
pub struct Rarely<F> {
    future: F,
    bell: Option<Arc<Bell>>,
}

/// What the future wakes instead of the task.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, which then sees it.
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F: Future + Unpin> Rarely<F> {
    /// Waits for `future`.
    pub const fn new(future: F) -> Self {
        Self { future, bell: None }
    }

    /// What it waits for.
    pub const fn future(&self) -> &F {
        &self.future
    }

    /// What the future is, to be changed: it is polled the next time in any case.
    pub fn change(&mut self) -> &mut F {
        if let Some(bell) = &self.bell {
            bell.rung.store(true, Ordering::Relaxed);
        }
        &mut self.future
    }

    /// Polls the future the first time, if it has woken the task since the last time, if it was ready then, and if the task
    /// has another waker than then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let bell = match &self.bell {
            Some(bell) if bell.task.will_wake(cx.waker()) => {
                if !bell.rung.load(Ordering::Acquire) {
                    return Poll::Pending;
                }
                // What rings from here on is for the next time; what rang before is seen by the future that is polled now.
                bell.rung.swap(false, Ordering::AcqRel);
                bell
            }
            _ => self.bell.insert(Arc::new(Bell { rung: AtomicBool::new(false), task: cx.waker().clone() })),
        };
        let waker = Waker::from(Arc::clone(bell));
        let polled = Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            // Of several things that it waits for, there may be more.
            bell.rung.store(true, Ordering::Relaxed);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use super::*;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_is_polled_only_when_it_has_something_to_say() {
        let polls = Arc::new(AtomicUsize::new(0));
        let (say, mut heard) = oneshot::channel();
        let counted = Arc::clone(&polls);
        let mut rarely = Rarely::new(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut heard).poll(cx)
        }));
        let task = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..10 {
            assert!(rarely.poll(&mut cx).is_pending());
        }
        assert_eq!(polls.load(Ordering::SeqCst), 1);

        // Another task: whoever is polled last is woken.
        let other = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&other));
        let mut cx = Context::from_waker(&waker);
        assert!(rarely.poll(&mut cx).is_pending() && rarely.poll(&mut cx).is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), 2);

        let _changed = rarely.change();
        assert!(rarely.poll(&mut cx).is_pending() && rarely.poll(&mut cx).is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), 3);

        say.send(7).unwrap();
        assert_eq!((task.0.load(Ordering::SeqCst), other.0.load(Ordering::SeqCst)), (0, 1));
        assert_eq!(rarely.poll(&mut cx), Poll::Ready(Ok(7)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_missed() {
        for _ in 0..200 {
            let token = CancellationToken::new();
            let mut rarely = Rarely::new(Box::pin(token.clone().cancelled_owned()));
            let waiting = tokio::spawn(async move { poll_fn(|cx| rarely.poll(cx)).await });
            token.cancel();
            waiting.await.unwrap();
        }
    }
}
