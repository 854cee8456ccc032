//! Starting and stopping: every task is tracked, a first stop signal drains, a deadline aborts, and a task that dies
//! takes the process down with a failing status.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::Health;
use crate::rarely::Rarely;

/// Shared by all services of a process; cloning gives another handle.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    tasks: TaskTracker,
    drain: CancellationToken,
    last_call: CancellationToken,
    abort: CancellationToken,
    failed: Arc<AtomicBool>,
    health: Health,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything finished in time.
    Clean,
    /// Something had to be cut off at the deadline.
    Overdue,
    /// A task failed, and the process left because of it.
    Failed,
}

impl Lifecycle {
    /// A new one, not draining.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for a later stage of the same process: it drains on its own, after this one has ended (routing after
    /// edge, for instance), but a failure in either ends both.
    pub fn later_stage(&self) -> Self {
        Self {
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            last_call: CancellationToken::new(),
            abort: CancellationToken::new(),
            failed: Arc::clone(&self.failed),
            health: self.health.clone(),
        }
    }

    /// The health of the process, one for all stages.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Resolves when the service should accept nothing new and finish what is open.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.drain.clone().cancelled_owned()
    }

    /// The same as a token, for `select!` in loops.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// True from the first stop signal on.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when four fifths of the time for the drain are over: whoever waits for peers waits no longer then, for
    /// a peer that does not answer, or crawls, is no fault of this process. What is open still at the end of the time is
    /// cut off, and the process says so.
    pub fn last_call(&self) -> impl Future<Output = ()> + Send + 'static {
        self.last_call.clone().cancelled_owned()
    }

    /// Starts the drain.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Runs `task` until it ends or the deadline after the drain cuts it off.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Boxed, because a task that is moved into another one has room for two of it; and all tasks share the token, of
        // which they hear once.
        let mut task = Box::pin(task);
        let mut abort = Rarely::new(Box::pin(self.abort.clone().cancelled_owned()));
        self.tasks.spawn(poll_fn(move |cx| match task.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => abort.poll(cx),
        }));
    }

    /// Runs `task` until it ends or the drain starts, whichever is first: for what only watches and has nothing to
    /// finish. [`Lifecycle::spawn`] would have the whole stop wait for it.
    pub fn spawn_until_drained(&self, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        self.tasks.spawn(async move {
            let _unfinished = drain.run_until_cancelled_owned(task).await;
        });
    }

    /// Runs a task without which the process makes no sense: an error or panic of it ends the process.
    pub fn spawn_vital<E: std::fmt::Display + Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let this = self.clone();
        let inner = tokio::spawn(task);
        let stop = inner.abort_handle();
        self.spawn(async move {
            let _stop = AbortOnDrop(stop);
            match inner.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => this.fail(name, &error.to_string()),
                Err(join) => this.fail(name, &join.to_string()),
            }
        });
    }

    fn fail(&self, task: &'static str, error: &str) {
        tracing::error!(task, error, "a vital task failed; the process leaves");
        self.failed.store(true, Ordering::SeqCst);
        self.drain.cancel();
    }

    /// Waits for `signal` or a failed task, then drains, and gives what is open `grace` to finish.
    pub async fn run(&self, signal: impl Future<Output = ()>, grace: Duration) -> Ended {
        tokio::select! {
            () = signal => {}
            () = self.drain.cancelled() => {}
        }
        self.finish(grace).await
    }

    /// Drains and waits for at most `grace`.
    pub async fn finish(&self, grace: Duration) -> Ended {
        self.health.draining();
        self.drain.cancel();
        self.tasks.close();
        let last = grace / 5;
        let mut clean = tokio::time::timeout(grace - last, self.tasks.wait()).await.is_ok();
        self.last_call.cancel();
        if !clean {
            clean = tokio::time::timeout(last, self.tasks.wait()).await.is_ok();
        }
        self.abort.cancel();
        self.tasks.wait().await;
        if self.failed.load(Ordering::SeqCst) {
            Ended::Failed
        } else if clean {
            Ended::Clean
        } else {
            Ended::Overdue
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Resolves at the first SIGTERM or SIGINT since the call: the handlers are there when this returns, not only when what
/// it returns is awaited. So call it before saying that the process is ready.
///
/// # Errors
/// The future resolves to an error at once when the handlers cannot be installed.
///
/// # Panics
/// Outside of a Tokio runtime.
pub fn stop_signal() -> impl Future<Output = std::io::Result<()>> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let handlers = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    async move {
        let (mut terminate, mut interrupt) = handlers?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_open_work() {
        let life = Lifecycle::new();
        let draining = life.draining();
        life.spawn(draining);
        assert_eq!(life.run(async {}, Duration::from_secs(5)).await, Ended::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_is_cut_off() {
        let life = Lifecycle::new();
        life.spawn(std::future::pending());
        assert_eq!(life.run(async {}, Duration::from_secs(5)).await, Ended::Overdue);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_watches_holds_no_drain_up() {
        let life = Lifecycle::new();
        life.spawn_until_drained(std::future::pending());
        assert_eq!(life.run(async {}, Duration::from_secs(5)).await, Ended::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_deadline_comes_a_last_call() {
        let life = Lifecycle::new();
        life.spawn(life.last_call());
        let began = tokio::time::Instant::now();
        assert_eq!(life.run(async {}, Duration::from_secs(5)).await, Ended::Clean);
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test]
    async fn a_vital_task_that_fails_or_panics_ends_the_process() {
        let life = Lifecycle::new();
        life.spawn_vital("failing", async { Err::<(), _>("no disk") });
        assert_eq!(life.run(std::future::pending(), Duration::from_secs(5)).await, Ended::Failed);

        let life = Lifecycle::new();
        life.spawn_vital("panicking", async {
            assert!(std::hint::black_box(false), "for the test");
            Ok::<(), String>(())
        });
        assert_eq!(life.run(std::future::pending(), Duration::from_secs(5)).await, Ended::Failed);
    }
}
