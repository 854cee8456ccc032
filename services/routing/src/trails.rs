//! Delivery traces: by which checkpoints each accepted message went, without its content; and the books of what has been
//! accepted and is not accounted for (docs/operating.md, "What became of a message").
//!
//! A [`Trail`] is found by its place, the recipient's account and the [`Seq`], which all replicas of routing agree upon. So
//! another replica that goes on with a message (its mailbox has moved, or the process has started anew) begins a trail of its
//! own, and whoever asks all of them puts the parts together. The id that people are given is random.
//!
//! Everything is in memory, for a configured time, and bounded in number: a message is one record of bounded size, a checkpoint
//! is a write into it under the lock of its shard. The books are kept apart, also when no trails are: a message that has been
//! accepted is under way until it is settled, and each is to be settled.

mod books;
mod fair;
mod find;
mod trail;
mod way;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher as _;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId, Domain, MessageId};
use causeway_runtime::clock::SharedClock;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::time::Instant;

use self::books::Books;
use self::fair::{Cursor, Fair, Owner};
pub(crate) use self::find::{Found, Query, Wanted};
use self::trail::{PushResult, Refused, Trail, What, bit};
pub(crate) use self::trail::{Settled, TraceId};
use self::way::InOrder;
use crate::keyed::{Keyed, KeyedMap};
use crate::message::{Envelope, Header, Outcome, Rejection, Sender, Seq};
use crate::recipient::Now;

/// Of one recipient at most this part of all trails is kept.
const SHARDS: usize = 16;
/// Trails that are looked at before others may have the lock of their shard.
const A_SLICE: usize = 256;
/// Refused messages that are remembered, for each accepted one.
const REFUSED_PART: usize = 4;

/// The trails of a replica.
pub(crate) struct Trails {
    shards: Vec<Mutex<Shard>>,
    hasher: Keyed,
    keep_ms: u64,
    /// Trails of a shard; 0: none are kept.
    limit: usize,
    clock: SharedClock,
    /// Questions are answered one at a time: those of providers, and apart from them the operator's.
    asking_providers: tokio::sync::Mutex<()>,
    asking_operator: tokio::sync::Mutex<()>,
}

struct Shard {
    accounts: KeyedMap<AccountId, Account>,
    /// Each trail once, by its sender.
    order: Fair<Entry>,
    refused: Fair<Refused>,
    books: Books,
    random: StdRng,
}

/// Where a trail is, and when it began, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
struct Entry {
    account: AccountId,
    seq: Seq,
    at_ms: u64,
}

/// Whose messages these are.
struct Account {
    address: Address,
    provider: Domain,
    trails: InOrder,
}

/// The recipient of an accepted message.
#[derive(Clone, Copy)]
pub(crate) struct Recipient<'a> {
    pub(crate) account: AccountId,
    pub(crate) address: &'a Address,
    pub(crate) provider: &'a Domain,
}

impl Trails {
    /// For at most `limit` messages, each for at most `keep`.
    pub(crate) fn new(keep: Duration, limit: usize, clock: SharedClock) -> Arc<Self> {
        let shard = || Shard {
            accounts: KeyedMap::default(),
            order: Fair::new(),
            refused: Fair::new(),
            books: Books::default(),
            random: StdRng::from_os_rng(),
        };
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: Keyed::default(),
            keep_ms: u64::try_from(keep.as_millis()).unwrap_or(u64::MAX),
            limit: if keep.is_zero() { 0 } else { limit.div_ceil(SHARDS) },
            clock,
            asking_providers: tokio::sync::Mutex::default(),
            asking_operator: tokio::sync::Mutex::default(),
        })
    }

    /// A message has been accepted for these devices.
    pub(crate) fn accepted(
        &self,
        to: Recipient<'_>,
        from: &Arc<Sender>,
        header: &Header,
        devices: &[DeviceId],
        asks_again: bool,
        now: Now,
    ) {
        let mut shard = self.shard(to.account);
        shard.books.opened(to.account, header.seq, now.instant);
        if self.limit == 0 {
            return;
        }
        let mut trail = Box::new(Trail::new(shard.new_id(), header, now.unix_ms()));
        trail.from = Some(Arc::clone(from));
        trail.accepted(devices, asks_again);
        shard.insert(to, trail, self.sent_by(header), self.limit);
    }

    /// A message that had been accepted is not under way any more: it has reached its end, or waits in the mailbox.
    pub(crate) fn settled(&self, account: AccountId, seq: Seq, how: Settled, now: Now) {
        let mut shard = self.shard(account);
        shard.books.closed(account, seq);
        if let Some(trail) = shard.trail(account, seq) {
            trail.settled(how, now.unix_ms());
        }
    }

    /// The mailbox has a message for these devices.
    pub(crate) fn queued(&self, account: AccountId, seq: Seq, devices: &[DeviceId], now: Now) {
        if let Some(trail) = self.shard(account).trail(account, seq) {
            devices.iter().for_each(|device| trail.queued(*device, now.unix_ms()));
        }
    }

    /// A message is on its way to a device. One that is not known here has been accepted by another replica, or before a
    /// restart.
    pub(crate) fn handed(&self, to: &Sender, envelope: &Envelope, from_mailbox: bool, now: Now) {
        if self.limit == 0 {
            return;
        }
        let (now_ms, header) = (now.unix_ms(), &envelope.header);
        let mut shard = self.shard(to.account);
        if let Some(trail) = shard.trail(to.account, header.seq) {
            trail.handed(to.device, from_mailbox, now_ms);
            return;
        }
        let recipient = Recipient { account: to.account, address: &to.address, provider: &to.provider };
        let mut trail = Box::new(Trail::new(shard.new_id(), header, now_ms));
        trail.handed(to.device, from_mailbox, now_ms);
        shard.insert(recipient, trail, self.sent_by(header), self.limit);
    }

    /// A device has acknowledged a message.
    pub(crate) fn acknowledged(&self, account: AccountId, seq: Seq, device: DeviceId, now: Now) {
        if let Some(trail) = self.shard(account).trail(account, seq) {
            trail.ended(device, What::Acknowledged(bit(device).0), now.unix_ms());
        }
    }

    /// A device has been removed: what waited for it is erased.
    pub(crate) fn removed(&self, account: AccountId, device: DeviceId) {
        let now_ms = self.clock.now_ms();
        for trail in self.shard(account).of(account) {
            trail.ended(device, What::Removed(bit(device).0), now_ms);
        }
    }

    /// An account has left: what waited for it is erased.
    pub(crate) fn withdrawn(&self, account: AccountId) {
        let now_ms = self.clock.now_ms();
        for trail in self.shard(account).of(account) {
            trail.ended_for_all(What::Withdrawn, now_ms);
        }
    }

    /// This replica does not own the account any more: what becomes of what waits is not known here.
    pub(crate) fn left_to_others(&self, account: AccountId) {
        let now_ms = self.clock.now_ms();
        for trail in self.shard(account).of(account) {
            trail.ended_for_all(What::Elsewhere, now_ms);
        }
    }

    /// The provider is asked to wake a device, for whatever waits for it.
    pub(crate) fn push_sent(&self, account: AccountId, device: DeviceId) {
        self.pushing(account, device, What::PushSent(bit(device).0));
    }

    /// It has answered, or not.
    pub(crate) fn push_answered(&self, account: AccountId, device: DeviceId, result: &'static str) {
        self.pushing(account, device, What::PushAnswered(bit(device).0, PushResult::of(result)));
    }

    fn pushing(&self, account: AccountId, device: DeviceId, what: What) {
        let now_ms = self.clock.now_ms();
        for trail in self.shard(account).of(account).rev().take(PUSHED_FOR) {
            trail.pushed(device, what, now_ms);
        }
    }

    /// A message has been refused.
    pub(crate) fn refused(&self, from: &Arc<Sender>, message: MessageId, why: &Rejection) {
        if self.limit == 0 {
            return;
        }
        let (now_ms, limit) = (self.clock.now_ms(), self.limit.div_ceil(REFUSED_PART));
        // By sender: of whom it was for, nothing is known that may be told.
        let mut shard = self.shard(from.account);
        let (id, why) = (shard.new_id(), Outcome::Rejected(why.clone()).name());
        let refused = Refused { id, message, from: Arc::clone(from), why, at_ms: now_ms };
        shard.refused.push(Owner::of(&self.hasher, &from.provider, from.account), refused, limit);
    }

    /// Marks what has expired, and forgets what is older than it is to be kept. Messages go first: a shard's lock is held for
    /// a slice at a time.
    pub(crate) async fn tidy(&self) {
        let now_ms = self.clock.now_ms();
        for shard in &self.shards {
            let mut owners = Owner::all().peekable();
            while lock(shard).forget_some(&mut owners, now_ms, self.keep_ms) {
                tokio::task::yield_now().await;
            }
            let mut cursor = Cursor::default();
            while lock(shard).expire_some(&mut cursor, now_ms) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Messages that were accepted and have neither reached an end nor a mailbox, for longer than anything may take.
    pub(crate) fn unaccounted(&self) -> u64 {
        let now = Instant::now();
        self.shards.iter().map(|shard| lock(shard).books.unaccounted(now)).sum()
    }

    /// Messages that were accepted and are not settled yet.
    pub(crate) fn under_way(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).books.under_way()).sum()
    }

    fn shard(&self, account: AccountId) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(account);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)])
    }

    fn sent_by(&self, header: &Header) -> Owner {
        Owner::of(&self.hasher, &header.origin.provider, header.key.account)
    }
}

/// Of the messages that wait for a device, a webhook is noted at so many of the last.
const PUSHED_FOR: usize = 64;

impl Shard {
    fn new_id(&mut self) -> TraceId {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        TraceId::from_bytes(bytes)
    }

    fn insert(&mut self, to: Recipient<'_>, trail: Box<Trail>, by: Owner, limit: usize) {
        let entry = Entry { account: to.account, seq: trail.seq, at_ms: trail.began_ms() };
        let account = self.accounts.entry(to.account).or_insert_with(|| Account {
            address: to.address.clone(),
            provider: to.provider.clone(),
            trails: InOrder::default(),
        });
        // After a fault the same place may be given twice: the earlier message was not accepted for good.
        if account.trails.insert(trail)
            && let Some(beyond) = self.order.push(by, entry, limit)
        {
            self.forget(beyond);
        }
    }

    /// Forgets what is old of these owners, who are gone through; false after the last.
    fn forget_some(&mut self, owners: &mut Peekable<impl Iterator<Item = Owner>>, now_ms: u64, keep_ms: u64) -> bool {
        let old = |at_ms: u64| at_ms.saturating_add(keep_ms) < now_ms;
        for _ in 0..A_SLICE {
            let Some(owner) = owners.peek().copied() else { return false };
            if let Some(entry) = self.order.take_first_if(owner, |entry| old(entry.at_ms)) {
                self.forget(entry);
            } else if self.refused.take_first_if(owner, |refused| old(refused.at_ms)).is_none() {
                owners.next();
            }
        }
        true
    }

    fn forget(&mut self, entry: Entry) {
        let Some(of) = self.accounts.get_mut(&entry.account) else { return };
        of.trails.remove(entry.seq);
        if of.trails.is_empty() {
            self.accounts.remove(&entry.account);
        }
    }

    /// Marks what has expired; false after the last.
    fn expire_some(&mut self, cursor: &mut Cursor, now_ms: u64) -> bool {
        for _ in 0..A_SLICE {
            let Some(Entry { account, seq, .. }) = self.order.next(cursor).copied() else { return false };
            if let Some(trail) = self.trail(account, seq) {
                trail.expire(now_ms);
            }
        }
        true
    }

    fn trail(&mut self, account: AccountId, seq: Seq) -> Option<&mut Trail> {
        self.accounts.get_mut(&account)?.trails.get_mut(seq)
    }

    fn of(&mut self, account: AccountId) -> impl DoubleEndedIterator<Item = &mut Trail> {
        self.accounts.get_mut(&account).into_iter().flat_map(|account| account.trails.iter_mut())
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
