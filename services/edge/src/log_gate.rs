//! Keeps a flood of clients from being a flood of log lines: so many lines pass in any second, the others are counted,
//! and the count is a line of its own.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Lines that pass in any second; with the count of the others it is a hundred.
const LINES: usize = 99;
const SECOND: Duration = Duration::from_secs(1);

/// Decides about each line.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    state: Mutex<State>,
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When the lines of the last second passed, the oldest first; at most [`LINES`].
    passed: VecDeque<Instant>,
    left_out: u64,
}

impl LogGate {
    /// True if the line may be written; otherwise it has been counted.
    pub(crate) fn admits(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        while state.passed.front().is_some_and(|passed| *passed + SECOND <= now) {
            state.passed.pop_front();
        }
        if state.passed.len() < LINES {
            state.passed.push_back(now);
            return true;
        }
        state.left_out += 1;
        if state.left_out == 1 {
            self.closed.notify_one();
        }
        false
    }

    /// Hands over, at most once a second, how many lines were left out; nothing while none are. What is left at the end
    /// comes with `stop`.
    pub(crate) async fn count(&self, stop: CancellationToken, mut tell: impl FnMut(u64)) {
        while stop.run_until_cancelled(self.closed.notified()).await.is_some() {
            let _stopped = stop.run_until_cancelled(tokio::time::sleep(SECOND)).await;
            tell(std::mem::take(&mut self.state().left_out));
        }
        let last = std::mem::take(&mut self.state().left_out);
        if last > 0 {
            tell(last);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;

    fn passing(gate: &LogGate, lines: usize) -> usize {
        (0..lines).filter(|_| gate.admits()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_pass_in_any_second_wherever_it_begins() {
        let gate = LogGate::default();
        assert_eq!(passing(&gate, 40), 40);
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(passing(&gate, 10_000), LINES - 40);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(passing(&gate, 10_000), 40, "only the first lines are a second old");
        tokio::time::advance(SECOND).await;
        assert_eq!(passing(&gate, 10_000), LINES);
        assert_eq!(gate.state().passed.len(), LINES);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_out_is_counted_once_a_second_and_at_the_end() {
        let (gate, stop) = (Arc::new(LogGate::default()), CancellationToken::new());
        let (told, mut counts) = mpsc::unbounded_channel();
        let (counting, stopping) = (Arc::clone(&gate), stop.clone());
        let task = tokio::spawn(async move { counting.count(stopping, |count| told.send(count).unwrap()).await });

        passing(&gate, LINES);
        tokio::time::sleep(SECOND * 5).await;
        assert!(counts.try_recv().is_err(), "nothing was left out");

        let started = Instant::now();
        passing(&gate, LINES + 500);
        assert_eq!(counts.recv().await, Some(500));
        assert_eq!(started.elapsed(), SECOND);
        tokio::time::sleep(SECOND * 5).await;
        assert!(counts.try_recv().is_err(), "the flood is over");

        passing(&gate, LINES + 7);
        stop.cancel();
        assert_eq!(counts.recv().await, Some(7));
        assert_eq!(counts.recv().await, None);
        task.await.unwrap();
    }
}
