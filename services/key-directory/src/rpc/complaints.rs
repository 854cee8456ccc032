//! Failures of calls in the log. While the store is away every call fails, and one line a second says as much as thousands.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const EACH: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// If this failure is to be logged, how many were not since the last one that was.
    pub(super) fn next(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < EACH) {
            state.unsaid += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_a_second_is_said_and_the_others_are_counted() {
        let complaints = Complaints::default();
        assert_eq!([complaints.next(), complaints.next(), complaints.next()], [Some(0), None, None]);
        tokio::time::sleep(EACH).await;
        assert_eq!([complaints.next(), complaints.next()], [Some(2), None]);
    }
}
