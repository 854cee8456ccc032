//! The stream of events: a bounded queue between the engine and the application.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::engine::{self, Command};
use crate::error::ClientError;
use crate::event::{Ended, EventKind};

/// Events that are not kept on disk: at most this many wait, then the oldest go.
const MAX_PASSING: usize = 1024;
/// Kept entries that are held in memory ahead of the application.
const MAX_KEPT: usize = 64;

/// What happened, and the promise to remember it until [`Event::done`].
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    commands: mpsc::WeakSender<Command>,
}

impl Event {
    /// Says that the application is done with it: it will not come again after a restart. For events that are not kept it
    /// does nothing.
    ///
    /// # Errors
    /// [`ClientError::Ended`]: the event will come again.
    pub async fn done(&self) -> Result<(), ClientError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let ended = |()| ClientError::Ended(Ended::Shutdown);
        let commands = kept.commands.upgrade().ok_or(()).map_err(ended)?;
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Done { seq: kept.seq, reply }).await.map_err(|_| ended(()))?;
        engine::answer(&commands, answer).await.ok_or(()).map_err(ended)?
    }

    /// Whether it comes again after a restart until it is done.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }
}

/// Where events come out, in order.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

impl Events {
    /// The next event; `None` after [`EventKind::Ended`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let wakes = self.0.filled.notified();
            {
                let mut queue = self.0.queue();
                if let Some(lost) = queue.lost.take() {
                    return Some(Event { kind: EventKind::Lagged { lost }, kept: None });
                }
                if let Some((kind, seq)) = queue.waiting.pop_front() {
                    if seq.is_some() {
                        queue.kept -= 1;
                        self.0.drained.notify_one();
                    }
                    let commands = self.0.commands.clone();
                    return Some(Event { kind, kept: seq.map(|seq| Kept { seq, commands }) });
                }
                if queue.closed {
                    return None;
                }
            }
            wakes.await;
        }
    }
}

/// Nobody listens any more: nothing is queued from here on.
impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.waiting.clear();
    }
}

/// Where the engine puts events in.
#[derive(Debug)]
pub(crate) struct EventQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
    commands: mpsc::WeakSender<Command>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(EventKind, Option<u64>)>,
    kept: usize,
    lost: Option<u64>,
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventQueue {
    /// Both ends; `commands` is how events are confirmed.
    pub(crate) fn new(commands: &mpsc::Sender<Command>) -> (Self, Events) {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            commands: commands.downgrade(),
        });
        (Self(Arc::clone(&shared)), Events(shared))
    }

    /// Adds an event that is not kept.
    pub(crate) fn pass(&self, kind: EventKind) {
        let mut queue = self.0.queue();
        if queue.closed {
            return;
        }
        if queue.waiting.len() - queue.kept >= MAX_PASSING
            && let Some(oldest) = queue.waiting.iter().position(|(_, seq)| seq.is_none())
        {
            queue.waiting.remove(oldest);
            *queue.lost.get_or_insert(0) += 1;
        }
        queue.waiting.push_back((kind, None));
        self.0.filled.notify_one();
    }

    /// How many kept entries fit.
    pub(crate) fn room(&self) -> usize {
        let queue = self.0.queue();
        if queue.closed { 0 } else { MAX_KEPT.saturating_sub(queue.kept) }
    }

    /// Adds an entry that is kept under `seq`.
    pub(crate) fn keep(&self, seq: u64, kind: EventKind) {
        let mut queue = self.0.queue();
        if !queue.closed {
            queue.kept += 1;
            queue.waiting.push_back((kind, Some(seq)));
            self.0.filled.notify_one();
        }
    }

    /// Waits until the application took a kept entry. Cancel-safe.
    pub(crate) async fn drained(&self) {
        self.0.drained.notified().await;
    }
}

/// The engine is gone: what waits can still be read.
impl Drop for EventQueue {
    fn drop(&mut self) {
        self.0.queue().closed = true;
        self.0.filled.notify_waiters();
        self.0.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (EventQueue, Events, mpsc::Sender<Command>) {
        let (commands, _) = mpsc::channel(1);
        let (queue, events) = EventQueue::new(&commands);
        (queue, events, commands)
    }

    #[tokio::test]
    async fn events_come_in_order_and_end_when_the_engine_does() {
        let (queue, mut events, _commands) = queue();
        queue.pass(EventKind::ConsentChanged);
        queue.keep(5, EventKind::Lagged { lost: 0 });
        drop(queue);
        assert_eq!(events.next().await.unwrap().kind, EventKind::ConsentChanged);
        assert!(events.next().await.unwrap().is_kept());
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_loses_only_what_is_not_kept_and_is_told() {
        let (queue, mut events, _commands) = queue();
        queue.keep(1, EventKind::ConsentChanged);
        for _ in 0..MAX_PASSING + 3 {
            queue.pass(EventKind::ConsentChanged);
        }
        assert_eq!(queue.room(), MAX_KEPT - 1);
        assert_eq!(events.next().await.unwrap().kind, EventKind::Lagged { lost: 3 });
        assert!(events.next().await.unwrap().is_kept());
        assert_eq!(queue.room(), MAX_KEPT);
        for _ in 0..MAX_PASSING {
            assert!(!events.next().await.unwrap().is_kept());
        }
    }
}
