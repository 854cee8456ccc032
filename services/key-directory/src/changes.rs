//! Who follows records, and what they have acknowledged: the way in which a narrower setting reaches every routing
//! before it is confirmed.
//!
//! A change is committed to the store first, then published here with the next number, then confirmed: each follower has
//! acknowledged it, or its lease has passed, so that nobody acts on the older record any more. A follower that does not
//! acknowledge within a lease gets no further lease and is cut off, so a confirmation takes at most two leases and
//! [`TRANSIT`].
//!
//! A follower that sends pings counts its lease from when it sent the ping that the lease names, which was before it came
//! in here: how long a message is on its way does not matter. One that does not counts from the lease's arrival; for it
//! leases are made when the stream asks for its next message, never queued behind others, and the network is granted
//! [`TRANSIT`]. Several directories on one store would share
//! numbers and followers through the store; the interface here would stay.

pub(crate) mod payload;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId, Domain};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{KeyCounts, Logged};

/// A lease may arrive this much later than it was made.
pub(crate) const TRANSIT: Duration = Duration::from_secs(1);

/// What of an account changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A device came or went.
    Devices,
    /// What the user allows.
    Consent,
    /// It is no more.
    Withdrawn,
    /// A device has few one-time keys left.
    PrekeysLow {
        /// Of the account.
        device: DeviceId,
        /// What it has.
        left: KeyCounts,
    },
    /// A device's push token.
    Push,
}

/// What followers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of an account.
    Record {
        /// Whom it is known by.
        address: Address,
        /// Whose it is.
        account: AccountId,
        /// What changed.
        what: What,
    },
    /// Of a provider: settings, status, or that it is there.
    Provider {
        /// Its domain.
        domain: Domain,
    },
    /// Other keys of a provider were fetched: of interest to other key-directories, not to followers of records.
    TokenKeys {
        /// Its domain.
        domain: Domain,
    },
}

/// The next message of a follower's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may trust its cache for this long, from when it sent the ping of this number (0: from the arrival).
    Lease {
        lasts: Duration,
        pong: u64,
    },
    Change(u64, Change),
}

/// Why a follower's stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// Too many changes, or one for too long, without acknowledgement.
    #[error("the follower fell behind: connect again and start with an empty cache")]
    Behind,
    /// An acknowledgement of what was not sent.
    #[error("the follower acknowledged a change that was not sent")]
    BadAck,
    /// Its own end has closed.
    #[error("the follower has left")]
    Left,
    /// The directory stops.
    #[error("the directory is stopping")]
    Closing,
}

/// All followers of this directory.
#[derive(Clone)]
pub(crate) struct Changes {
    shared: Arc<Shared>,
}

struct Shared {
    lease: Duration,
    queue: usize,
    closing: CancellationToken,
    /// Told whenever something happens that a confirmation may wait for.
    progress: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_number: u64,
    last_follower: u64,
    followers: HashMap<u64, Follower>,
}

struct Follower {
    /// Published and not acknowledged, in order.
    pending: VecDeque<Pending>,
    /// Changes up to this one have been acknowledged, or came before it followed.
    acknowledged: u64,
    /// Changes up to this one have been sent.
    sent: u64,
    /// When it may no longer trust its cache, if it hears nothing more.
    trusts_until: Instant,
    next_lease: Instant,
    /// The greatest ping, and when it came in.
    ping: Option<(u64, Instant)>,
    cut: Option<Cut>,
    wake: Arc<Notify>,
}

struct Pending {
    number: u64,
    since: Instant,
    change: Change,
}

impl State {
    /// Those that were cut off matter only until they stop trusting their caches.
    fn forget_harmless(&mut self, now: Instant) {
        self.followers.retain(|_, follower| follower.cut.is_none() || follower.trusts_until > now);
    }
}

impl Follower {
    /// The unacknowledged change with this number. Numbers in the queue rise one by one.
    fn pending(&self, number: u64) -> Option<&Pending> {
        let first = self.pending.front()?.number;
        self.pending.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

impl Changes {
    /// `queue` is how many changes a follower may leave unacknowledged.
    pub(crate) fn new(lease: Duration, queue: usize, closing: CancellationToken) -> Self {
        let shared = Shared { lease, queue, closing, progress: Notify::new(), state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Tells every follower of a change that the store has committed.
    pub(crate) fn publish(&self, change: &Change) -> Published {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.last_number += 1;
        let number = state.last_number;
        state.forget_harmless(now);
        for follower in state.followers.values_mut().filter(|follower| follower.cut.is_none()) {
            if follower.pending.len() >= self.shared.queue {
                follower.cut = Some(Cut::Behind);
            } else {
                follower.pending.push_back(Pending { number, since: now, change: change.clone() });
            }
            follower.wake.notify_one();
        }
        Published { number, shared: Arc::clone(&self.shared) }
    }

    /// The same for what the store gave with an outcome. Confirmed when all of it is.
    pub(crate) fn publish_all(&self, logged: &Logged) -> Published {
        let last = logged.changes.iter().map(|change| self.publish(change)).last();
        last.unwrap_or_else(|| Published { number: self.shared.lock().last_number, shared: Arc::clone(&self.shared) })
    }

    /// A new follower, which has cached nothing yet.
    pub(crate) fn follow(&self) -> Following {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.forget_harmless(now);
        state.last_follower += 1;
        let id = state.last_follower;
        let wake = Arc::new(Notify::new());
        let follower = Follower {
            pending: VecDeque::new(),
            acknowledged: state.last_number,
            sent: state.last_number,
            trusts_until: now,
            next_lease: now,
            ping: None,
            cut: None,
            wake: Arc::clone(&wake),
        };
        state.followers.insert(id, follower);
        Following { id, wake, shared: Arc::clone(&self.shared) }
    }

    /// How many follow now.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        self.shared.lock().followers.values().filter(|follower| follower.cut.is_none()).count()
    }
}

/// A change that followers have been told of.
#[must_use = "a change counts once it is confirmed; drop it only if nobody relies on it"]
pub(crate) struct Published {
    number: u64,
    shared: Arc<Shared>,
}

impl Published {
    /// Resolves when no follower can act on what was before.
    pub(crate) async fn confirm(self) {
        loop {
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let Some(until) = self.waits_until() else { return };
            tokio::select! {
                () = progress => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// `None` when there is nobody to wait for; else when to look again at the latest.
    fn waits_until(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let mut earliest: Option<Instant> = None;
        for follower in state.followers.values_mut().filter(|follower| follower.acknowledged < self.number) {
            let told = follower.pending(self.number);
            // Without an acknowledgement for a lease it gets no further one. One that was not told is cut off already.
            let overdue = told.map_or(now, |pending| pending.since + self.shared.lease);
            if follower.cut.is_none() && overdue <= now {
                follower.cut = Some(Cut::Behind);
                follower.wake.notify_one();
            }
            let look_again = if follower.cut.is_some() { follower.trusts_until } else { overdue };
            if look_again > now {
                earliest = Some(earliest.map_or(look_again, |time| time.min(look_again)));
            }
        }
        earliest
    }
}

/// One follower's end. Dropping it is its leaving; it may trust its cache until its lease has passed.
pub(crate) struct Following {
    id: u64,
    wake: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Following {
    /// The next message. A lease first, then one at least each third of a lease.
    pub(crate) async fn next(&self) -> Result<Next, Cut> {
        loop {
            let woken = self.wake.notified();
            let next_lease = match self.take(Instant::now())? {
                Taken::Message(message) => return Ok(message),
                Taken::NothingUntil(time) => time,
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(next_lease) => {}
                () = self.shared.closing.cancelled() => return Err(Cut::Closing),
            }
        }
    }

    fn take(&self, now: Instant) -> Result<Taken, Cut> {
        if self.shared.closing.is_cancelled() {
            return Err(Cut::Closing);
        }
        let lease = self.shared.lease;
        let mut state = self.shared.lock();
        let Some(follower) = state.followers.get_mut(&self.id) else { return Err(Cut::Left) };
        if let Some(cut) = follower.cut {
            return Err(cut);
        }
        if follower.pending.front().is_some_and(|oldest| oldest.since + lease <= now) {
            follower.cut = Some(Cut::Behind);
            self.shared.progress.notify_waiters();
            return Err(Cut::Behind);
        }
        if follower.next_lease <= now {
            follower.next_lease = now + lease / 3;
            let (pong, trusts_until) = match follower.ping {
                Some((number, since)) => (number, since + lease),
                None => (0, now + lease + TRANSIT),
            };
            follower.trusts_until = follower.trusts_until.max(trusts_until);
            return Ok(Taken::Message(Next::Lease { lasts: lease, pong }));
        }
        if let Some(unsent) = follower.pending(follower.sent + 1) {
            let (number, change) = (unsent.number, unsent.change.clone());
            follower.sent = number;
            return Ok(Taken::Message(Next::Change(number, change)));
        }
        Ok(Taken::NothingUntil(follower.next_lease))
    }

    /// What hears the follower.
    pub(crate) fn ear(&self) -> Ear {
        Ear { id: self.id, shared: Arc::clone(&self.shared) }
    }
}

enum Taken {
    Message(Next),
    NothingUntil(Instant),
}

impl Drop for Following {
    fn drop(&mut self) {
        self.ear().cut(Cut::Left);
    }
}

/// The other direction of a follower's stream.
pub(crate) struct Ear {
    id: u64,
    shared: Arc<Shared>,
}

impl Ear {
    /// The follower no longer acts on anything from before change `acknowledged` and all earlier ones, and sent `ping`,
    /// which is answered at once if it is greater than those before. False: it is cut off.
    pub(crate) fn heard(&self, acknowledged: u64, ping: u64) -> bool {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let Some(follower) = state.followers.get_mut(&self.id) else { return false };
        if acknowledged > follower.sent {
            drop(state);
            self.cut(Cut::BadAck);
            return false;
        }
        follower.acknowledged = follower.acknowledged.max(acknowledged);
        while follower.pending.front().is_some_and(|pending| pending.number <= acknowledged) {
            follower.pending.pop_front();
        }
        if ping > follower.ping.map_or(0, |(number, _)| number) {
            follower.ping = Some((ping, now));
            follower.next_lease = now;
            follower.wake.notify_one();
        }
        let stays = follower.cut.is_none();
        drop(state);
        self.shared.progress.notify_waiters();
        stays
    }

    /// The follower has closed its end, or broke the rules.
    pub(crate) fn cut(&self, why: Cut) {
        let mut state = self.shared.lock();
        if let Some(follower) = state.followers.get_mut(&self.id) {
            follower.cut.get_or_insert(why);
            follower.wake.notify_one();
        }
        drop(state);
        self.shared.progress.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn changes() -> Changes {
        Changes::new(LEASE, 16, CancellationToken::new())
    }

    fn first_lease() -> Next {
        Next::Lease { lasts: LEASE, pong: 0 }
    }

    fn change() -> Change {
        Change::Provider { domain: "birdy.example".parse().unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_to_wait_for_is_no_wait() {
        let changes = changes();
        assert!(changes.publish(&change()).confirm().now_or_never().is_some());
        let late = changes.follow();
        assert_eq!(late.next().await, Ok(first_lease()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_waits_for_the_slowest() {
        let changes = changes();
        let (quick, slow) = (changes.follow(), changes.follow());
        for follower in [&quick, &slow] {
            assert_eq!(follower.next().await, Ok(first_lease()));
        }
        let confirmation = tokio::spawn(changes.publish(&change()).confirm());
        for follower in [&quick, &slow] {
            assert_eq!(follower.next().await, Ok(Next::Change(1, change())));
        }
        assert!(quick.ear().heard(1, 0));
        tokio::task::yield_now().await;
        assert!(!confirmation.is_finished());
        assert!(slow.ear().heard(1, 0));
        confirmation.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_follower_is_waited_for_until_it_trusts_nothing() {
        let changes = changes();
        let follower = changes.follow();
        assert_eq!(follower.next().await, Ok(first_lease()));
        let start = Instant::now();
        changes.publish(&change()).confirm().await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT, "it took no lease after the change");
        assert_eq!(follower.next().await, Err(Cut::Behind));
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_reads_and_never_acknowledges_is_cut_off() {
        let changes = changes();
        let follower = changes.follow();
        let reader = tokio::spawn(async move {
            loop {
                if let Err(cut) = follower.next().await {
                    return cut;
                }
            }
        });
        let start = Instant::now();
        changes.publish(&change()).confirm().await;
        assert!(start.elapsed() <= 2 * LEASE + TRANSIT, "{:?}", start.elapsed());
        assert!(start.elapsed() >= LEASE + TRANSIT);
        assert_eq!(reader.await.unwrap(), Cut::Behind);
        assert_eq!(changes.followers(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_may_trust_its_cache_until_its_lease_has_passed() {
        let changes = changes();
        let follower = changes.follow();
        assert_eq!(follower.next().await, Ok(first_lease()));
        let start = Instant::now();
        let published = changes.publish(&change());
        drop(follower);
        published.confirm().await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT);

        let start = Instant::now();
        changes.publish(&change()).confirm().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_before_the_change_is_waited_for_too() {
        let changes = changes();
        let follower = changes.follow();
        assert_eq!(follower.next().await, Ok(first_lease()));
        drop(follower);
        let start = Instant::now();
        changes.publish(&change()).confirm().await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT, "its cache may still be trusted where it is");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_and_go_are_forgotten() {
        let changes = changes();
        for _ in 0..100 {
            let follower = changes.follow();
            assert_eq!(follower.next().await, Ok(first_lease()));
            drop(follower);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(changes.shared.lock().followers.len() <= 5);
    }

    #[tokio::test(start_paused = true)]
    async fn leases_come_at_least_each_second() {
        let changes = changes();
        let follower = changes.follow();
        for _ in 0..5 {
            let asked = Instant::now();
            assert_eq!(follower.next().await, Ok(first_lease()));
            assert!(asked.elapsed() <= Duration::from_secs(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_answered_at_once_and_the_lease_counts_from_it() {
        let changes = changes();
        let follower = changes.follow();
        assert_eq!(follower.next().await, Ok(first_lease()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(follower.ear().heard(0, 7));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 7 }));
        let start = Instant::now();
        changes.publish(&change()).confirm().await;
        // No change was acknowledged for a lease: cut off then, when the trust has run out already.
        assert_eq!(start.elapsed(), LEASE);

        let leaving = changes.follow();
        assert!(leaving.ear().heard(0, 1));
        let pinged = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(leaving.next().await, Ok(Next::Lease { lasts: LEASE, pong: 1 }));
        drop(leaving);
        changes.publish(&change()).confirm().await;
        assert_eq!(pinged.elapsed(), LEASE, "nothing is granted to the network, however late the lease is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_cuts_off_and_is_waited_for() {
        let changes = changes();
        let follower = changes.follow();
        assert_eq!(follower.next().await, Ok(first_lease()));
        let start = Instant::now();
        for _ in 0..16 {
            drop(changes.publish(&change()));
        }
        changes.publish(&change()).confirm().await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT);
        assert_eq!(follower.next().await, Err(Cut::Behind));
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_from_the_future_cuts_off() {
        let changes = changes();
        let follower = changes.follow();
        drop(changes.publish(&change()));
        assert!(!follower.ear().heard(1, 0), "published, but not sent");
        assert_eq!(follower.next().await, Err(Cut::BadAck));
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_when_the_directory_stops() {
        let closing = CancellationToken::new();
        let changes = Changes::new(LEASE, 16, closing.clone());
        let follower = changes.follow();
        assert_eq!(follower.next().await, Ok(first_lease()));
        closing.cancel();
        assert_eq!(follower.next().await, Err(Cut::Closing));
    }
}
