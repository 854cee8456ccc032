//! How often each ticket has been presented.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use causeway_identity::AccountId;

/// Tickets that are counted at one time; when all of these are in use and alive, further ones are refused.
const MAX_COUNTED: usize = 100_000;
/// So many of these may be of one account.
const MAX_OF_ONE: usize = 1_000;
/// How often, at most, all of them are looked through for what has expired, in milliseconds.
const SWEEP_EVERY_MS: u64 = 1_000;

/// Counts by account and the first half of a ticket's tag, which nobody can choose, until the ticket expires.
#[derive(Debug)]
pub(super) struct Uses {
    max: u32,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Without empty ones.
    by_account: HashMap<AccountId, HashMap<[u8; 16], Ticket>>,
    /// Of all accounts together.
    tickets: usize,
    next_sweep_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Ticket {
    uses: u32,
    expires_ms: u64,
}

impl Uses {
    /// Allows `max` uses of each.
    pub(super) fn new(max: u32) -> Self {
        Self { max, counted: Mutex::default() }
    }

    /// Counts one more use; false when it was one too many.
    pub(super) fn count(&self, account: AccountId, tag: &[u8; 32], expires_ms: u64, now_ms: u64) -> bool {
        let mut name = [0; 16];
        name.copy_from_slice(&tag[..16]);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = counted.by_account.get_mut(&account).and_then(|own| own.get_mut(&name)) {
            let left = ticket.uses < self.max;
            ticket.uses += u32::from(left);
            return left;
        }
        if self.max == 0 || !counted.has_room(account, now_ms) {
            return false;
        }
        counted.by_account.entry(account).or_default().insert(name, Ticket { uses: 1, expires_ms });
        counted.tickets += 1;
        true
    }
}

impl Counted {
    /// Room for one more ticket of `account`; what has expired makes some.
    fn has_room(&mut self, account: AccountId, now_ms: u64) -> bool {
        let alive = |ticket: &Ticket| ticket.expires_ms > now_ms;
        if let Some(own) = self.by_account.get_mut(&account)
            && own.len() >= MAX_OF_ONE
        {
            own.retain(|_, ticket| alive(ticket));
            self.tickets = self.tickets.saturating_sub(MAX_OF_ONE - own.len());
            if own.len() >= MAX_OF_ONE {
                return false;
            }
        }
        // Looking through all takes a while; whoever is refused must not make us do so with every request.
        if self.tickets >= MAX_COUNTED && now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms.saturating_add(SWEEP_EVERY_MS);
            self.by_account.retain(|_, own| {
                own.retain(|_, ticket| alive(ticket));
                !own.is_empty()
            });
            self.tickets = self.by_account.values().map(HashMap::len).sum();
        }
        self.tickets < MAX_COUNTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(n: usize) -> [u8; 32] {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&n.to_be_bytes());
        tag
    }

    fn account(n: usize) -> AccountId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        AccountId::from_bytes(id)
    }

    #[test]
    fn one_account_fills_its_share_only() {
        let (uses, ada, bo) = (Uses::new(2), account(1), account(2));
        for n in 0..MAX_OF_ONE {
            assert!(uses.count(ada, &tag(n), 100, 0));
        }
        assert!(!uses.count(ada, &tag(MAX_OF_ONE), 200, 99), "the share is full");
        assert!(uses.count(ada, &tag(0), 100, 99) && !uses.count(ada, &tag(0), 100, 99), "uses go on and end");
        assert!(uses.count(bo, &tag(MAX_OF_ONE), 200, 99));
        assert!(uses.count(ada, &tag(MAX_OF_ONE), 200, 100), "the others have expired");
        assert_eq!(uses.counted.lock().unwrap().tickets, 2);
    }

    #[test]
    fn the_map_stays_bounded_and_forgets_what_expired() {
        let uses = Uses::new(1);
        for n in 0..MAX_COUNTED {
            assert!(uses.count(account(n % 200), &tag(n), 1_500, 0));
        }
        let (late, name) = (account(999), tag(MAX_COUNTED));
        assert!(!uses.count(late, &name, 9_000, 0), "full");
        assert!(!uses.count(account(0), &tag(0), 1_500, 0), "used up");
        assert!(!uses.count(late, &name, 9_000, 999), "not looked through again yet");
        assert!(!uses.count(late, &name, 9_000, 1_000), "all alive");
        assert!(uses.count(late, &name, 9_000, 2_000), "the others have expired");
        assert_eq!(uses.counted.lock().unwrap().by_account.len(), 1);
    }
}
