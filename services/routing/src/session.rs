//! A session as routing sees it: an attached device of an edge, reachable by its link.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_identity::{Address, MessageId, SessionId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::message::{AsWritten, Ending, Envelope, Outcome, Rejection, Sender};
use crate::metrics::Metrics;
use crate::outbox::{Event, Outbox};
use crate::recipient::Control;

/// A session, for this process: a session id may come twice, this does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub(crate) u64);

/// Shared by the link that it came by, the actor of its own account, and the actors of those to whom it writes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) id: SessionId,
    pub(crate) device: Arc<Sender>,
    pub(crate) registration: u32,
    outbox: Arc<Outbox>,
    /// The greatest tag that the device has acknowledged.
    processed: AtomicU64,
    announced: AtomicBool,
    detached: AtomicBool,
    /// It has been told to end, or has left: what it still says counts for nothing.
    over: AtomicBool,
    /// Until when it is told that it is over its rate, whatever the rate says by then.
    closed_until: Mutex<Option<Instant>>,
    /// Its actor knows that there is something new above.
    signalled: AtomicBool,
    owner: std::sync::OnceLock<mpsc::UnboundedSender<Control>>,
    metrics: Metrics,
}

impl Session {
    pub(crate) fn new(
        key: SessionKey,
        id: SessionId,
        device: Sender,
        registration: u32,
        outbox: Arc<Outbox>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            id,
            device: Arc::new(device),
            registration,
            outbox,
            processed: AtomicU64::new(0),
            announced: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            over: AtomicBool::new(false),
            closed_until: Mutex::new(None),
            signalled: AtomicBool::new(false),
            owner: std::sync::OnceLock::new(),
            metrics,
        })
    }

    /// Names the actor that is told of acknowledgements and of the end.
    pub(crate) fn own(&self, owner: mpsc::UnboundedSender<Control>) {
        let _named_before = self.owner.set(owner);
    }

    /// The device acknowledged everything up to `tag`.
    pub(crate) fn acknowledge(&self, tag: u64) {
        self.processed.fetch_max(tag, Ordering::AcqRel);
        self.signal();
    }

    /// It is not there any more.
    pub(crate) fn detach(&self) {
        self.over.store(true, Ordering::Release);
        if !self.detached.swap(true, Ordering::AcqRel) {
            self.signal();
        }
    }

    /// At most one signal is under way, so that its queue needs no bound of its own.
    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel)
            && let Some(owner) = self.owner.get()
        {
            let _actor_gone = owner.send(Control::Signal(self.key));
        }
    }

    /// To be called with each signal: what has been acknowledged, and whether the session has left.
    pub(crate) fn take_signal(&self) -> (u64, bool) {
        self.signalled.store(false, Ordering::Release);
        // After the flag: whoever changes something from now on signals again.
        let detached = self.detached.load(Ordering::Acquire);
        (self.processed.load(Ordering::Acquire), detached)
    }

    /// True once it has left or was told to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// True if there may be room for deliveries.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_over() && self.outbox.has_room()
    }

    /// Room for a delivery of this weight; to be followed by [`Session::deliver`].
    pub(crate) fn reserve(&self, weight: usize) -> bool {
        !self.is_over() && self.outbox.reserve(weight)
    }

    pub(crate) fn deliver(&self, tag: u64, envelope: Envelope) {
        let weight = envelope.weight();
        self.outbox.push_reserved(self.id, Event::Deliver { tag, envelope }, weight);
    }

    /// Tells the sender what became of a message.
    pub(crate) fn answer(&self, outcome: Outcome, id: MessageId, to: AsWritten) {
        self.metrics.decided(&outcome);
        if let Outcome::Rejected(Rejection::RateLimited { retry_after_ms }) = outcome {
            self.close_for(Duration::from_millis(retry_after_ms).min(MAX_CLOSED));
        }
        if !self.is_over() {
            self.outbox.push(self.id, Event::Outcome { outcome, id, to });
        }
    }

    /// What the session has under way behind a message that was over its rate is refused with it, so that the sender can
    /// repeat all of it in its order. Were it let in as soon as the rate allows it, it would overtake.
    fn close_for(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut closed_until = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        *closed_until = Some(closed_until.map_or(until, |before| before.max(until)));
    }

    /// How many milliseconds it still is over its rate.
    pub(crate) fn closed_for_ms(&self) -> Option<u64> {
        let until = (*self.closed_until.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = until.checked_duration_since(Instant::now())?;
        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
    }

    pub(crate) fn attached(&self, waiting: u64) {
        self.announced.store(true, Ordering::Release);
        self.outbox.push(self.id, Event::Attached { waiting });
    }

    /// Nothing is told before the session is attached: it begins with what is so by then.
    pub(crate) fn notify(&self, notice: Notice) {
        if self.announced.load(Ordering::Acquire) && !self.is_over() {
            self.outbox.push(self.id, Event::Notify(notice));
        }
    }

    /// Ends it, once.
    pub(crate) fn end(&self, reason: Ending, retry_after_ms: u64) {
        if !self.over.swap(true, Ordering::AcqRel) {
            self.metrics.session_ended(reason);
            self.outbox.push(self.id, Event::End { reason, retry_after_ms });
        }
        // Wherever the order to end came from, its own actor is to let go of it.
        if !self.detached.swap(true, Ordering::AcqRel) {
            self.signal();
        }
    }
}

/// A full mailbox asks for more patience than is needed to keep the order of what is under way.
const MAX_CLOSED: Duration = Duration::from_secs(1);

/// What devices are told beside messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    PrekeysLow { ec: u32, kyber: u32 },
    DevicesChanged { address: Address },
    ConsentChanged,
}
