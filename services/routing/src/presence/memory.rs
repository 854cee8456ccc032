//! Presence in the memory of one process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};
use tokio::time::Instant;

use super::{Away, LEASE, NUMBERS_KEPT, Seen, Store, Told};

/// All accounts that had sessions lately.
#[derive(Debug, Default)]
pub(super) struct MemoryStore(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    accounts: HashMap<AccountId, HashMap<DeviceId, Entry>>,
    /// When it has grown to this, what is outdated is looked for.
    next_sweep: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    at: String,
    here: bool,
    told: Instant,
}

impl Entry {
    fn is_kept(&self, now: Instant) -> bool {
        now.duration_since(self.told) < NUMBERS_KEPT
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn tell(&self, told: &[Told]) -> Result<(), Away> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Told { who: (account, device), number, at, here } in told {
            let devices = all.accounts.entry(*account).or_default();
            let before = devices.get(device).filter(|before| before.is_kept(now));
            let counts = before.is_none_or(|before| {
                let same = *here || before.at == **at;
                before.number < *number || (before.number == *number && same)
            });
            if counts {
                devices.insert(*device, Entry { number: *number, at: at.to_string(), here: *here, told: now });
            }
        }
        if all.accounts.len() >= all.next_sweep {
            all.accounts.retain(|_, devices| {
                devices.retain(|_, entry| entry.is_kept(now));
                !devices.is_empty()
            });
            all.next_sweep = (2 * all.accounts.len()).max(FIRST_SWEEP);
        }
        Ok(())
    }

    async fn look(&self, account: AccountId) -> Result<Vec<Seen>, Away> {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = all.accounts.get(&account).into_iter().flatten();
        let kept = devices.filter(|(_, entry)| entry.is_kept(now)).map(|(device, entry)| {
            let holds = entry.here && now.duration_since(entry.told) < LEASE;
            Seen { device: *device, number: entry.number, at: holds.then(|| entry.at.clone()) }
        });
        Ok(kept.collect())
    }
}

const FIRST_SWEEP: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::suite;

    #[tokio::test]
    async fn keeps_to_the_suite() {
        suite::run(&MemoryStore::default()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn leases_end_and_numbers_are_forgotten_later() {
        let store = MemoryStore::default();
        store.tell(&[suite::here(1, 1, 7, "one")]).await.unwrap();
        tokio::time::advance(LEASE).await;
        let seen = store.look(suite::account(1)).await.unwrap();
        assert_eq!(seen, [Seen { device: suite::device(1), number: 7, at: None }]);
        tokio::time::advance(NUMBERS_KEPT).await;
        assert_eq!(store.look(suite::account(1)).await, Ok(Vec::new()));
        store.tell(&[suite::here(1, 1, 3, "one")]).await.unwrap();
        assert_eq!(store.look(suite::account(1)).await.unwrap()[0].number, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_holds_those_who_were_there_lately() {
        let store = MemoryStore::default();
        for n in 0..10_000 {
            store.tell(&[suite::here(n, 1, 7, "one")]).await.unwrap();
            tokio::time::advance(NUMBERS_KEPT / 1_000).await;
        }
        assert!(store.0.lock().unwrap().accounts.len() <= 3_000);
    }
}
