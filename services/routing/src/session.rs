//! A session as routing sees it: an attached device of an edge, reachable by its link.

mod closed;
mod flights;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::{Address, MessageId, SessionId};
use tokio::time::Instant;

use self::closed::Closed;
use self::flights::Flights;
use crate::message::{AsWritten, Ending, Envelope, Outcome, Rejection, Sender};
use crate::metrics::Metrics;
use crate::outbox::{Event, Outbox};
use crate::recipient::{Control, Inbox};
use crate::records::Memo;
use crate::strangers::Last;

/// A session, for this process: a session id may come twice, this does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub(crate) u64);

/// Where a session stands among all of its device, as its edge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginOrder {
    /// Who gave the number.
    pub(crate) source: u64,
    /// Of two logins the later one has the greater number.
    pub(crate) number: u64,
    /// Of one login, the later attachment has the greater one.
    pub(crate) attachment: u32,
}

/// What a session says and is told on its link, whether or not it is attached there. It outlives attachments: a session
/// whose mailbox has moved goes on submitting.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) id: SessionId,
    pub(crate) device: Arc<Sender>,
    outbox: Arc<Outbox>,
    /// It has been told to end, or has left: what it still says counts for nothing.
    over: AtomicBool,
    /// What it is refused, whatever would be said otherwise.
    closed: Mutex<Closed>,
    /// The record of its own address.
    record: Memo,
    /// Whom it has reached last.
    reached: Last,
    metrics: Metrics,
}

impl Voice {
    pub(crate) fn new(id: SessionId, device: Sender, outbox: Arc<Outbox>, metrics: Metrics) -> Arc<Self> {
        let device = Arc::new(device);
        let (over, closed) = (AtomicBool::new(false), Mutex::default());
        let (record, reached) = (Memo::default(), Last::default());
        Arc::new(Self { id, device, outbox, over, closed, record, reached, metrics })
    }
}

/// How a session is, or was, attached. Shared by the link that it came by, the actor of its own account, and the actors
/// of those to whom it writes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) id: SessionId,
    pub(crate) device: Arc<Sender>,
    pub(crate) registration: u32,
    /// What it was told when it attached first; 0: this is the first time.
    pub(crate) number: u64,
    /// Which of the device's logins it is, if that is known.
    pub(crate) login: Option<LoginOrder>,
    /// When it came.
    pub(crate) since: Instant,
    voice: Arc<Voice>,
    /// The greatest tag that the device has acknowledged.
    processed: AtomicU64,
    flights: Flights,
    announced: AtomicBool,
    detached: AtomicBool,
    /// It has moved, or is attached again: it is given nothing.
    elsewhere: AtomicBool,
    /// Its actor knows that there is something new above.
    signalled: AtomicBool,
    owner: std::sync::OnceLock<Arc<Inbox>>,
}

impl Session {
    pub(crate) fn new(
        key: SessionKey,
        voice: Arc<Voice>,
        registration: u32,
        number: u64,
        login: Option<LoginOrder>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            id: voice.id,
            device: Arc::clone(&voice.device),
            registration,
            number,
            login,
            since: Instant::now(),
            voice,
            processed: AtomicU64::new(0),
            flights: Flights::default(),
            announced: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            owner: std::sync::OnceLock::new(),
        })
    }

    /// The record of its own address, if it has been looked up.
    pub(crate) fn record(&self) -> &Memo {
        &self.voice.record
    }

    /// Whom it has reached last, for [`Strangers`](crate::strangers::Strangers).
    pub(crate) fn reached(&self) -> &Last {
        &self.voice.reached
    }

    /// For what attaches next in its place.
    pub(crate) fn voice(&self) -> &Arc<Voice> {
        &self.voice
    }

    /// Names the actor that is told of acknowledgements and of the end.
    pub(crate) fn own(&self, owner: Arc<Inbox>) {
        let _named_before = self.owner.set(owner);
    }

    /// The device acknowledged everything up to `tag`. What was given to it before it moved counts for nothing.
    pub(crate) fn acknowledge(&self, tag: u64) {
        if self.elsewhere.load(Ordering::Acquire) {
            return;
        }
        self.processed.fetch_max(tag, Ordering::AcqRel);
        self.flights.landed(tag, &self.voice.metrics);
        self.signal();
    }

    /// It is not there any more.
    pub(crate) fn detach(&self) {
        self.voice.over.store(true, Ordering::Release);
        self.supersede();
    }

    /// It attaches again: this attachment is over, and what it has submitted is answered all the same.
    pub(crate) fn supersede(&self) {
        self.elsewhere.store(true, Ordering::Release);
        if !self.detached.swap(true, Ordering::AcqRel) {
            self.signal();
        }
    }

    /// At most one signal is under way, so that its queue needs no bound of its own.
    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel)
            && let Some(owner) = self.owner.get()
        {
            let _actor_is_there = owner.tell(Control::Signal(self.key));
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
        self.voice.over.load(Ordering::Acquire)
    }

    /// True as long as it is to be served here.
    pub(crate) fn is_here(&self) -> bool {
        !self.is_over() && !self.elsewhere.load(Ordering::Acquire)
    }

    /// True if there may be room for deliveries.
    pub(crate) fn has_room(&self) -> bool {
        self.is_here() && self.voice.outbox.has_room()
    }

    /// Room for a delivery of this weight; to be followed by [`Session::deliver`].
    pub(crate) fn reserve(&self, weight: usize) -> bool {
        self.is_here() && self.voice.outbox.reserve(weight)
    }

    pub(crate) fn deliver(&self, tag: u64, envelope: Envelope, from_mailbox: bool, now: Instant) {
        let weight = envelope.weight();
        let trace = self.flights.begin(tag, from_mailbox, envelope.header.trace, now);
        self.voice.outbox.push_reserved(self.id, Event::Deliver { tag, envelope, trace }, weight);
    }

    /// Tells the sender what became of a message.
    pub(crate) fn answer(&self, outcome: Outcome, id: MessageId, to: AsWritten) {
        self.voice.metrics.decided(&outcome);
        if !self.is_over() {
            self.voice.outbox.push(self.id, Event::Outcome { outcome, id, to });
        }
    }

    /// A message of this generation is refused for so long; to be said when that is decided, before anything behind it is.
    pub(crate) fn close(&self, to: &Address, generation: u32, retry_after_ms: u64) {
        let until = Instant::now() + Duration::from_millis(retry_after_ms).min(LONGEST);
        self.closed().close(to, generation, until);
    }

    /// What the session has under way behind a message that was refused for a while is refused with it, so that the sender
    /// can repeat all of it in its order. Were it let in as soon as there is room again, it would overtake.
    pub(crate) fn refuses(&self, to: &Address, generation: u32) -> Option<Rejection> {
        self.closed().refusal(to, generation)
    }

    fn closed(&self) -> MutexGuard<'_, Closed> {
        self.voice.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attached(&self, waiting: u64, number: u64) {
        self.announced.store(true, Ordering::Release);
        if self.is_here() {
            self.voice.outbox.push(self.id, Event::Attached { waiting, number });
        }
    }

    /// Its mailbox is somebody else's, or is loaded anew: it is to attach again. It may go on submitting.
    pub(crate) fn moved(&self) {
        if self.is_here() && !self.elsewhere.swap(true, Ordering::AcqRel) {
            self.voice.metrics.session_moved();
            self.voice.outbox.push(self.id, Event::Moved);
        }
        self.detached.store(true, Ordering::Release);
    }

    /// Nothing is told before the session is attached: it begins with what is so by then.
    pub(crate) fn notify(&self, notice: Notice) {
        if self.announced.load(Ordering::Acquire) && self.is_here() {
            self.voice.outbox.push(self.id, Event::Notify(notice));
        }
    }

    /// Ends it, once.
    pub(crate) fn end(&self, reason: Ending, retry_after_ms: u64) {
        if !self.voice.over.swap(true, Ordering::AcqRel) {
            self.voice.metrics.session_ended(reason);
            self.voice.outbox.push(self.id, Event::End { reason, retry_after_ms });
        }
        // Wherever the order to end came from, its own actor is to let go of it.
        if !self.detached.swap(true, Ordering::AcqRel) {
            self.signal();
        }
    }
}

/// Nobody is asked for more patience.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What devices are told beside messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    PrekeysLow { ec: u32, kyber: u32 },
    DevicesChanged { address: Address },
    ConsentChanged,
}
