//! Those who follow this directory, and what they have acknowledged.
//!
//! A change is settled when each follower has acknowledged it, or its lease has passed, so that it does not act on the
//! older record any more. A follower that does not acknowledge within a lease gets no further lease and is cut off, so a
//! change is settled after at most two leases and [`TRANSIT`].
//!
//! A follower that sends pings counts its lease from when it sent the ping that the lease names, which was before it came
//! in here: how long a message is on its way does not matter. One that does not counts from the lease's arrival; for it
//! leases are made when the stream asks for its next message, never queued behind others, and the network is granted
//! [`TRANSIT`].
//!
//! One of several directories has a lease itself, on the store. What it grants ends no later than that, and it grants
//! nothing to a follower without pings. It counts by the time of day as well: a machine that was suspended may not have
//! counted the time in between.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_runtime::clock::SharedClock;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Change;

/// A lease may arrive this much later than it was made.
pub(crate) const TRANSIT: Duration = Duration::from_secs(1);

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
    /// This directory has lost its place in the log of changes, or its lease on it.
    #[error("the directory begins anew: connect again and start with an empty cache")]
    Anew,
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

/// A time by both clocks: that which only goes on, and the time of day in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) day_ms: u64,
}

impl Moment {
    /// Later by `time`.
    pub(crate) fn after(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { at: self.at + time, day_ms: self.day_ms.saturating_add(millis) }
    }
}

/// Until when followers may be told to trust their caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warrant {
    /// For as long as they acknowledge: nobody else changes anything.
    Alone,
    /// No longer than this directory's own lease.
    Until(Moment),
    /// Not at all.
    Withdrawn,
}

/// All followers of this directory; cloning gives another handle.
#[derive(Clone)]
pub(crate) struct Followers {
    shared: Arc<Shared>,
}

struct Shared {
    lease: Duration,
    queue: usize,
    closing: CancellationToken,
    /// `None`: nobody else changes anything.
    clock: Option<SharedClock>,
    /// Told whenever something happens by which a change may have settled.
    progress: Notify,
    state: Mutex<State>,
}

struct State {
    warrant: Warrant,
    last_number: u64,
    last_follower: u64,
    followers: HashMap<u64, Follower>,
}

struct Follower {
    /// Published and not acknowledged, in order.
    pending: VecDeque<Pending>,
    /// It acts on nothing from before this change or an earlier one.
    settled: u64,
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

/// What all followers are done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// No follower acts on anything from before this change or an earlier one.
    pub(crate) number: u64,
    /// When it may be more without anybody's doing.
    pub(crate) look_again: Option<Instant>,
}

impl State {
    /// Those that were cut off matter only until they stop trusting their caches.
    fn forget_harmless(&mut self, now: Instant) {
        self.followers.retain(|_, follower| follower.cut.is_none() || follower.trusts_until > now);
    }

    fn publish(&mut self, number: u64, change: &Change, now: Instant, queue: usize) {
        self.forget_harmless(now);
        for follower in self.followers.values_mut().filter(|follower| follower.cut.is_none()) {
            if follower.pending.len() >= queue {
                follower.cut = Some(Cut::Behind);
            } else {
                follower.pending.push_back(Pending { number, since: now, change: change.clone() });
            }
            follower.wake.notify_one();
        }
        self.last_number = number;
    }

    fn cut_all(&mut self, why: Cut) {
        for follower in self.followers.values_mut() {
            follower.cut.get_or_insert(why);
            follower.wake.notify_one();
        }
    }
}

impl Follower {
    /// The first change that was not sent.
    fn unsent(&self) -> Option<&Pending> {
        self.pending.get(self.pending.partition_point(|pending| pending.number <= self.sent))
    }

    /// Nothing is waited for up to the change before the first unacknowledged one, or up to the last one.
    fn settle(&mut self, last_number: u64) {
        if self.cut.is_none() {
            self.settled = self.pending.front().map_or(last_number, |first| first.number - 1);
        }
    }
}

impl Followers {
    /// Of a directory that has its store for itself.
    pub(crate) fn alone(lease: Duration, queue: usize, closing: CancellationToken) -> Self {
        Self::with(Warrant::Alone, lease, queue, closing, None)
    }

    /// Of one of several directories: nobody can follow until [`Self::begin`].
    pub(crate) fn shared(lease: Duration, queue: usize, closing: CancellationToken, clock: SharedClock) -> Self {
        Self::with(Warrant::Withdrawn, lease, queue, closing, Some(clock))
    }

    fn with(
        warrant: Warrant,
        lease: Duration,
        queue: usize,
        closing: CancellationToken,
        clock: Option<SharedClock>,
    ) -> Self {
        let state = State { warrant, last_number: 0, last_follower: 0, followers: HashMap::new() };
        let shared = Shared { lease, queue, closing, clock, progress: Notify::new(), state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Tells every follower of a change under the next number.
    pub(crate) fn publish_next(&self, change: &Change) {
        let mut state = self.shared.lock();
        let number = state.last_number + 1;
        state.publish(number, change, Instant::now(), self.shared.queue);
    }

    /// Tells every follower of a change under the number that the log gave it, which is greater than those before.
    pub(crate) fn publish(&self, number: u64, change: &Change) {
        self.shared.lock().publish(number, change, Instant::now(), self.shared.queue);
    }

    /// What has this number is not for followers.
    pub(crate) fn pass(&self, number: u64) {
        self.shared.lock().last_number = number;
    }

    /// From now on this directory tells of all changes after `number`, and vouches for caches that are empty now, but no
    /// longer than its own lease.
    pub(crate) fn begin(&self, number: u64, until: Moment) {
        let mut state = self.shared.lock();
        state.cut_all(Cut::Anew);
        state.last_number = number;
        state.warrant = Warrant::Until(until);
    }

    /// This directory's own lease lasts longer now.
    pub(crate) fn extend(&self, until: Moment) {
        let mut state = self.shared.lock();
        if matches!(state.warrant, Warrant::Until(before) if before.at < until.at) {
            state.warrant = Warrant::Until(until);
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        Moment { at: Instant::now(), day_ms: self.shared.day_ms() }
    }

    /// This directory can tell of no changes: nobody may follow it.
    pub(crate) fn end(&self) {
        let mut state = self.shared.lock();
        state.cut_all(Cut::Anew);
        state.warrant = Warrant::Withdrawn;
        drop(state);
        self.shared.progress.notify_waiters();
    }

    /// What nobody acts against any more. Cuts off those that are silent for too long.
    pub(crate) fn settled(&self) -> Settled {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let mut settled = Settled { number: state.last_number, look_again: None };
        let last_number = state.last_number;
        for follower in state.followers.values_mut() {
            follower.settle(last_number);
            if follower.settled >= last_number {
                continue;
            }
            // Without an acknowledgement for a lease it gets no further one.
            let overdue = follower.pending.front().map_or(now, |oldest| oldest.since + self.shared.lease);
            if follower.cut.is_none() && overdue <= now {
                follower.cut = Some(Cut::Behind);
                follower.wake.notify_one();
            }
            let look_again = if follower.cut.is_some() { follower.trusts_until } else { overdue };
            if look_again > now {
                settled.number = settled.number.min(follower.settled);
                settled.look_again = Some(settled.look_again.map_or(look_again, |time| time.min(look_again)));
            }
        }
        settled
    }

    /// Resolves when everything up to this change is settled.
    pub(crate) async fn settle(&self, number: u64) {
        loop {
            let progress = self.progress();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let Settled { number: settled, look_again } = self.settled();
            if settled >= number {
                return;
            }
            tokio::select! {
                () = progress => {}
                () = sleep_until(look_again) => {}
            }
        }
    }

    /// Resolves when a follower has been heard or was cut off, if that is after this was made and enabled.
    pub(crate) fn progress(&self) -> Notified<'_> {
        self.shared.progress.notified()
    }

    /// The number of the last change that was told.
    pub(crate) fn last_number(&self) -> u64 {
        self.shared.lock().last_number
    }

    /// When the last follower stops trusting its cache, if none gets a further lease.
    pub(crate) fn trusted_until(&self) -> Option<Instant> {
        self.shared.lock().followers.values().map(|follower| follower.trusts_until).max()
    }

    /// A new follower, which has cached nothing yet.
    pub(crate) fn follow(&self) -> Result<Following, Cut> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        if state.warrant == Warrant::Withdrawn {
            return Err(Cut::Anew);
        }
        state.forget_harmless(now);
        state.last_follower += 1;
        let id = state.last_follower;
        let wake = Arc::new(Notify::new());
        let follower = Follower {
            pending: VecDeque::new(),
            settled: state.last_number,
            sent: state.last_number,
            trusts_until: now,
            next_lease: now,
            ping: None,
            cut: None,
            wake: Arc::clone(&wake),
        };
        state.followers.insert(id, follower);
        Ok(Following { id, wake, shared: Arc::clone(&self.shared) })
    }

    /// How many follow now.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.shared.lock().followers.values().filter(|follower| follower.cut.is_none()).count()
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
                biased;
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
        let warrant = state.warrant;
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
            let (pong, since, transit) = match follower.ping {
                Some((number, since)) => (number, since, Duration::ZERO),
                None => (0, now, TRANSIT),
            };
            let lasts = match warrant {
                Warrant::Alone => lease,
                Warrant::Until(until) if pong > 0 => {
                    let left_of_day = Duration::from_millis(until.day_ms.saturating_sub(self.shared.day_ms()));
                    lease.min(until.at.saturating_duration_since(since)).min(now - since + left_of_day)
                }
                Warrant::Until(_) | Warrant::Withdrawn => Duration::ZERO,
            };
            if lasts > Duration::ZERO {
                follower.trusts_until = follower.trusts_until.max(since + lasts + transit);
            }
            return Ok(Taken::Message(Next::Lease { lasts, pong }));
        }
        if let Some(unsent) = follower.unsent() {
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
        let last_number = state.last_number;
        let Some(follower) = state.followers.get_mut(&self.id) else { return false };
        if acknowledged > follower.sent {
            drop(state);
            self.cut(Cut::BadAck);
            return false;
        }
        while follower.pending.front().is_some_and(|pending| pending.number <= acknowledged) {
            follower.pending.pop_front();
        }
        follower.settle(last_number);
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
        let last_number = state.last_number;
        if let Some(follower) = state.followers.get_mut(&self.id) {
            follower.settle(last_number);
            follower.cut.get_or_insert(why);
            follower.wake.notify_one();
        }
        drop(state);
        self.shared.progress.notify_waiters();
    }
}

impl Shared {
    fn day_ms(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.now_ms())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never without a time.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use causeway_runtime::clock::ManualClock;
    use futures::FutureExt as _;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn changes() -> Followers {
        Followers::alone(LEASE, 16, CancellationToken::new())
    }

    fn first_lease() -> Next {
        Next::Lease { lasts: LEASE, pong: 0 }
    }

    fn change() -> Change {
        Change::Provider { domain: "birdy.example".parse().unwrap() }
    }

    /// Its confirmation.
    fn published(changes: &Followers) -> impl Future<Output = ()> + Send + 'static {
        changes.publish_next(&change());
        let (changes, number) = (changes.clone(), changes.last_number());
        async move { changes.settle(number).await }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_to_wait_for_is_no_wait() {
        let changes = changes();
        assert!(published(&changes).now_or_never().is_some());
        let late = changes.follow().unwrap();
        assert_eq!(late.next().await, Ok(first_lease()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_waits_for_the_slowest() {
        let changes = changes();
        let (quick, slow) = (changes.follow().unwrap(), changes.follow().unwrap());
        for follower in [&quick, &slow] {
            assert_eq!(follower.next().await, Ok(first_lease()));
        }
        let confirmation = tokio::spawn(published(&changes));
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
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        let start = Instant::now();
        published(&changes).await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT, "it took no lease after the change");
        assert_eq!(follower.next().await, Err(Cut::Behind));
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_reads_and_never_acknowledges_is_cut_off() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        let reader = tokio::spawn(async move {
            loop {
                if let Err(cut) = follower.next().await {
                    return cut;
                }
            }
        });
        let start = Instant::now();
        published(&changes).await;
        assert!(start.elapsed() <= 2 * LEASE + TRANSIT, "{:?}", start.elapsed());
        assert!(start.elapsed() >= LEASE + TRANSIT);
        assert_eq!(reader.await.unwrap(), Cut::Behind);
        assert_eq!(changes.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_may_trust_its_cache_until_its_lease_has_passed() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        let start = Instant::now();
        let confirmation = published(&changes);
        drop(follower);
        confirmation.await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT);

        let start = Instant::now();
        published(&changes).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_before_the_change_is_waited_for_too() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        drop(follower);
        let start = Instant::now();
        published(&changes).await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT, "its cache may still be trusted where it is");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_and_go_are_forgotten() {
        let changes = changes();
        for _ in 0..100 {
            let follower = changes.follow().unwrap();
            assert_eq!(follower.next().await, Ok(first_lease()));
            drop(follower);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(changes.shared.lock().followers.len() <= 5);
    }

    #[tokio::test(start_paused = true)]
    async fn leases_come_at_least_each_second() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        for _ in 0..5 {
            let asked = Instant::now();
            assert_eq!(follower.next().await, Ok(first_lease()));
            assert!(asked.elapsed() <= Duration::from_secs(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_answered_at_once_and_the_lease_counts_from_it() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(follower.ear().heard(0, 7));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 7 }));
        let start = Instant::now();
        published(&changes).await;
        // No change was acknowledged for a lease: cut off then, when the trust has run out already.
        assert_eq!(start.elapsed(), LEASE);

        let leaving = changes.follow().unwrap();
        assert!(leaving.ear().heard(0, 1));
        let pinged = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(leaving.next().await, Ok(Next::Lease { lasts: LEASE, pong: 1 }));
        drop(leaving);
        published(&changes).await;
        assert_eq!(pinged.elapsed(), LEASE, "nothing is granted to the network, however late the lease is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_cuts_off_and_is_waited_for() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        let start = Instant::now();
        for _ in 0..16 {
            changes.publish_next(&change());
        }
        published(&changes).await;
        assert_eq!(start.elapsed(), LEASE + TRANSIT);
        assert_eq!(follower.next().await, Err(Cut::Behind));
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_from_the_future_cuts_off() {
        let changes = changes();
        let follower = changes.follow().unwrap();
        changes.publish_next(&change());
        assert!(!follower.ear().heard(1, 0), "published, but not sent");
        assert_eq!(follower.next().await, Err(Cut::BadAck));
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_when_the_directory_stops() {
        let closing = CancellationToken::new();
        let changes = Followers::alone(LEASE, 16, closing.clone());
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        closing.cancel();
        assert_eq!(follower.next().await, Err(Cut::Closing));
    }

    const DAY_MS: u64 = 1_750_000_000_000;

    fn unregistered(clock: Arc<ManualClock>) -> Followers {
        Followers::shared(LEASE, 16, CancellationToken::new(), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_was_suspended_grants_nothing() {
        let clock = ManualClock::at_ms(DAY_MS);
        let followers = unregistered(Arc::clone(&clock));
        followers.begin(40, followers.now().after(Duration::from_secs(5)));
        let follower = followers.follow().unwrap();
        assert!(follower.ear().heard(40, 1));
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 1 }));
        // The other clock has stood still.
        clock.advance(Duration::from_secs(4));
        assert!(follower.ear().heard(40, 2));
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::from_secs(1), pong: 2 }));
        clock.advance(Duration::from_secs(1));
        assert!(follower.ear().heard(40, 3));
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::ZERO, pong: 3 }));
    }

    /// Of one of several directories, with a lease of its own for so long.
    fn one_of_several(lasts: Duration) -> Followers {
        let followers = unregistered(ManualClock::at_ms(DAY_MS));
        followers.begin(40, followers.now().after(lasts));
        followers
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_follows_a_directory_that_is_not_registered() {
        let followers = unregistered(ManualClock::at_ms(DAY_MS));
        assert_eq!(followers.follow().err(), Some(Cut::Anew));
        followers.begin(7, followers.now().after(LEASE));
        let follower = followers.follow().unwrap();
        assert!(follower.next().await.is_ok());
        followers.end();
        assert_eq!(follower.next().await, Err(Cut::Anew));
        assert_eq!(followers.follow().err(), Some(Cut::Anew));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_granted_ends_with_the_directorys_own_lease() {
        let followers = one_of_several(Duration::from_secs(2));
        let follower = followers.follow().unwrap();
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::ZERO, pong: 0 }), "no ping, no lease");
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(follower.ear().heard(40, 1));
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::from_millis(1_500), pong: 1 }));
        followers.extend(followers.now().after(Duration::from_secs(10)));
        assert!(follower.ear().heard(40, 2));
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 2 }));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(follower.ear().heard(40, 3));
        assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::ZERO, pong: 3 }));
        assert_eq!(followers.trusted_until(), Some(Instant::now() - Duration::from_secs(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_of_the_log_may_have_gaps_for_followers() {
        let followers = one_of_several(Duration::from_secs(60));
        let follower = followers.follow().unwrap();
        assert!(follower.ear().heard(0, 1));
        assert!(follower.next().await.is_ok());
        followers.publish(41, &change());
        followers.pass(42);
        followers.publish(43, &change());
        followers.pass(44);
        assert_eq!(follower.next().await, Ok(Next::Change(41, change())));
        assert_eq!(follower.next().await, Ok(Next::Change(43, change())));
        assert_eq!(followers.settled().number, 40);
        assert!(follower.ear().heard(41, 0));
        assert_eq!(followers.settled().number, 42);
        assert!(follower.ear().heard(43, 0));
        assert_eq!(followers.settled(), Settled { number: 44, look_again: None });
        followers.pass(45);
        assert_eq!(followers.settled().number, 45, "there is nothing to acknowledge");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_cut_off_by_a_new_beginning_is_waited_for_until_its_lease_has_passed() {
        let followers = one_of_several(Duration::from_secs(60));
        let follower = followers.follow().unwrap();
        assert!(follower.ear().heard(0, 1));
        assert!(follower.next().await.is_ok());
        followers.begin(50, followers.now().after(Duration::from_secs(60)));
        assert_eq!(follower.next().await, Err(Cut::Anew));
        let start = Instant::now();
        followers.settle(50).await;
        assert_eq!(start.elapsed(), LEASE);
    }
}
