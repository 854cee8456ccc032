//! What can be asked about trails, and by whom.

use std::sync::Arc;

use causeway_identity::{AccountId, Address, Domain, MessageId};

use super::fair::Cursor;
use super::trail::{Refused, Side, Trail, What};
use super::{A_SLICE, Account, Shard, TraceId, Trails, lock};
use crate::message::{Class, Sender, Seq};

/// Trails that are shown before others may have the lock of their shard: each is written out.
const SHOWN_A_SLICE: usize = 16;
/// One question looks at no more; beyond it the answer is that there are more.
const LOOKED_AT: usize = 1 << 20;

/// Which trails are wanted.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Trace(TraceId),
    /// As its sender's client has named it.
    Message(MessageId),
    /// Of messages from or to an account.
    Address(Address),
    Places(Vec<(AccountId, Seq)>),
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) wanted: Wanted,
    /// Nothing that began before, in Unix milliseconds.
    pub(crate) since_ms: u64,
    /// Only what this provider may see; `None`: everything.
    pub(crate) provider: Option<Domain>,
    pub(crate) limit: usize,
}

/// A trail as far as whoever asks may see it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: TraceId,
    /// `None`: it was refused.
    pub(crate) place: Option<(AccountId, Seq)>,
    /// This replica has accepted or refused it: the id is the one that others are told, too.
    pub(crate) begun_here: bool,
    pub(crate) class: Option<Class>,
    pub(crate) began_ms: u64,
    /// Of the sender, if that may be seen.
    pub(crate) from: Option<(AccountId, u32)>,
    /// Of the recipient, if that may be seen.
    pub(crate) to: Option<AccountId>,
    pub(crate) checkpoints: Vec<Part>,
    pub(crate) left_out: u32,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) at_ms: u64,
    pub(crate) name: &'static str,
    pub(crate) device: u32,
    pub(crate) word: String,
}

impl Trails {
    /// The trails that are wanted and may be seen, the newest first; and whether there are more. What may not be seen is
    /// as if it were not there.
    ///
    /// Messages go first: a shard's lock is held for a slice at a time, others get their turn between two slices, and
    /// questions wait for each other; only those of providers never make the operator wait.
    pub(crate) async fn find(&self, query: &Query) -> (Vec<Found>, bool) {
        let asking = if query.provider.is_some() { &self.asking_providers } else { &self.asking_operator };
        let _turn = asking.lock().await;
        let now_ms = self.clock.now_ms();
        let since_ms = query.since_ms.max(now_ms.saturating_sub(self.keep_ms));
        let mut answer = Answer { limit: query.limit, found: Vec::new(), more: false, left: LOOKED_AT };
        match &query.wanted {
            Wanted::Places(places) => {
                for places in places.chunks(SHOWN_A_SLICE) {
                    for (account, seq) in places {
                        answer.found.extend(self.shard(*account).show(query, (*account, *seq), since_ms));
                    }
                    tokio::task::yield_now().await;
                }
            }
            Wanted::Trace(_) | Wanted::Message(_) | Wanted::Address(_) => {
                for shard in &self.shards {
                    let mut cursor = Cursor::default();
                    while answer.look(&lock(shard), |shard| shard.look(query, &mut cursor, since_ms)) {
                        tokio::task::yield_now().await;
                    }
                    let mut cursor = Cursor::default();
                    while answer.look(&lock(shard), |shard| shard.look_refused(query, &mut cursor, since_ms)) {
                        tokio::task::yield_now().await;
                    }
                    if matches!(query.wanted, Wanted::Trace(_)) && !answer.found.is_empty() {
                        break; // There is one of that name.
                    }
                }
            }
        }
        answer.cut();
        (answer.found, answer.more)
    }
}

/// What has been found.
struct Answer {
    limit: usize,
    found: Vec<Found>,
    more: bool,
    /// So many may be looked at yet.
    left: usize,
}

impl Answer {
    /// Takes a slice of what `next` gives; false after the last.
    fn look(&mut self, shard: &Shard, mut next: impl FnMut(&Shard) -> Option<Option<Found>>) -> bool {
        let mut shown = 0;
        for _ in 0..A_SLICE {
            let Some(found) = next(shard) else { return false };
            if self.left == 0 {
                self.more = true;
                return false;
            }
            self.left -= 1;
            let Some(found) = found else { continue };
            self.found.push(found);
            if self.found.len() >= self.limit.saturating_mul(2).max(SHOWN_A_SLICE) {
                self.cut();
            }
            shown += 1;
            if shown == SHOWN_A_SLICE {
                break;
            }
        }
        true
    }

    /// Keeps the newest.
    fn cut(&mut self) {
        self.found.sort_by_key(|trail| std::cmp::Reverse(trail.began_ms));
        self.more |= self.found.len() > self.limit;
        self.found.truncate(self.limit);
    }
}

impl Shard {
    /// The next trail at the cursor, `Some(None)` if it is not wanted.
    fn look(&self, query: &Query, cursor: &mut Cursor, since_ms: u64) -> Option<Option<Found>> {
        let entry = self.order.next(cursor)?;
        // Before anything is looked up.
        if entry.at_ms < since_ms {
            return Some(None);
        }
        Some(self.show(query, (entry.account, entry.seq), since_ms))
    }

    fn look_refused(&self, query: &Query, cursor: &mut Cursor, since_ms: u64) -> Option<Option<Found>> {
        let refused = self.refused.next(cursor)?;
        Some(if refused.at_ms < since_ms { None } else { query.show_refused(refused) })
    }

    fn show(&self, query: &Query, (id, seq): (AccountId, Seq), since_ms: u64) -> Option<Found> {
        let account = self.accounts.get(&id)?;
        let trail = account.trails.get(seq).filter(|trail| trail.began_ms() >= since_ms)?;
        if query.wants(account, trail) { query.show(id, account, trail) } else { None }
    }
}

impl Query {
    fn wants(&self, account: &Account, trail: &Trail) -> bool {
        match &self.wanted {
            Wanted::Trace(wanted) => trail.id == *wanted,
            Wanted::Message(wanted) => trail.key.id == *wanted,
            Wanted::Address(address) => {
                let sends = trail.from.as_ref().is_some_and(|from| from.address == *address);
                // Of whose messages somebody else is a part, only one's own side leads to it.
                sends && self.sees_sender(trail) || account.address == *address && self.sees(&account.provider)
            }
            // It was looked up by its place.
            Wanted::Places(_) => true,
        }
    }

    fn show(&self, id: AccountId, account: &Account, trail: &Trail) -> Option<Found> {
        let (sender, recipient) = (self.sees_sender(trail), self.sees(&account.provider));
        if !sender && !recipient {
            return None;
        }
        let visible = |what: What| match what.side() {
            Side::Sender => sender,
            Side::Recipient => recipient,
        };
        let parts = trail.marks().filter(|(_, what)| visible(*what)).map(|(at_ms, what)| {
            let (name, device, word) = what.words();
            Part { at_ms, name, device, word }
        });
        Some(Found {
            id: trail.id,
            place: Some((id, trail.seq)),
            begun_here: trail.from.is_some(),
            class: Some(trail.class),
            began_ms: trail.began_ms(),
            from: sender.then_some((trail.key.account, trail.key.device.get())),
            to: recipient.then_some(id),
            checkpoints: parts.collect(),
            left_out: if recipient { trail.left_out } else { 0 },
        })
    }

    fn show_refused(&self, refused: &Refused) -> Option<Found> {
        let Refused { id, message, from, why, at_ms } = refused;
        let wanted = match &self.wanted {
            Wanted::Trace(wanted) => id == wanted,
            Wanted::Message(wanted) => message == wanted,
            Wanted::Address(address) => from.address == *address,
            Wanted::Places(_) => false,
        };
        if !wanted || !self.sees(&from.provider) {
            return None;
        }
        let part = Part { at_ms: *at_ms, name: "refused", device: 0, word: (*why).to_owned() };
        Some(Found {
            id: *id,
            place: None,
            begun_here: true,
            class: None,
            began_ms: *at_ms,
            from: Some((from.account, from.device.get())),
            to: None,
            checkpoints: vec![part],
            left_out: 0,
        })
    }

    fn sees(&self, provider: &Domain) -> bool {
        self.provider.as_ref().is_none_or(|only| only == provider)
    }

    /// A sender of whom nothing is known is the operator's to see alone.
    fn sees_sender(&self, trail: &Trail) -> bool {
        match &trail.from {
            Some(from) => self.sees(provider_of(from)),
            None => self.provider.is_none(),
        }
    }
}

fn provider_of(sender: &Arc<Sender>) -> &Domain {
    &sender.provider
}
