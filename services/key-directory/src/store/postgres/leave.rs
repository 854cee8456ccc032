//! Removing a device, and withdrawing an account. Their Noise keys are retired.

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};

use super::accounts::Locked;
use super::rows::{account, big, device, get};
use super::statements::{
    DELETE_ACCOUNT, DELETE_DEVICE, DELETE_DEVICES, DELETE_FREED, DELETE_PREKEYS, DELETE_PREKEYS_OF_DEVICE,
    DELETE_RULES, FORGET_RETIRED, FORGET_SURPLUS_RETIRED, FREE_ADDRESS, FREE_DEVICE, REMEMBER_WITHDRAWN, RETIRE,
};
use super::step::{Done, Failure, Step, Tx};
use crate::store::stored::RetiredNames;
use crate::store::{MAX_RETIRED_KEYS, RETIRED_MS, Removed, What};

/// The step of removing. Done again, it finds nothing; what it did before is told again then.
pub(super) struct Remove {
    pub(super) account: AccountId,
    pub(super) by: DeviceId,
    pub(super) device: DeviceId,
    pub(super) now_ms: u64,
}

#[async_trait]
impl Step for Remove {
    type Outcome = Removed;

    async fn attempt(&self, tx: &Tx<'_>, unanswered: Option<&Done<Removed>>) -> Result<Done<Removed>, Failure> {
        let Some(locked) = Locked::by_device(tx, self.account, self.by).await? else {
            // That the one who asks is no more shows that it happened only if it has removed itself.
            let done = unanswered.filter(|_| self.by == self.device);
            return Ok(done.cloned().unwrap_or_else(|| Done::nothing(Removed::NotEnlisted)));
        };
        let Some(row) = tx.row(DELETE_DEVICE, &[&account(&self.account), &device(self.device)]).await? else {
            return Ok(unanswered.cloned().unwrap_or_else(|| Done::nothing(Removed::NoDevice)));
        };
        tx.execute(DELETE_PREKEYS_OF_DEVICE, &[&account(&self.account), &device(self.device)]).await?;
        tx.execute(FREE_DEVICE, &[&account(&self.account), &device(self.device)]).await?;
        retire(tx, &locked.address, &[get(&row, 0)?], self.now_ms).await?;
        Ok(Done::told(Removed::Done, [locked.change(What::Devices)?]))
    }
}

/// The step of withdrawing. Done again, it finds no account, and accounts do not come back; what it did before is told
/// again then.
pub(super) struct Withdraw {
    pub(super) account: AccountId,
    pub(super) by: DeviceId,
    pub(super) now_ms: u64,
}

#[async_trait]
impl Step for Withdraw {
    type Outcome = bool;

    async fn attempt(&self, tx: &Tx<'_>, unanswered: Option<&Done<bool>>) -> Result<Done<bool>, Failure> {
        let Some(locked) = Locked::by_device(tx, self.account, self.by).await? else {
            let gone = Locked::account(tx, self.account).await?.is_none();
            let done = unanswered.filter(|_| gone);
            return Ok(done.cloned().unwrap_or_else(|| Done::nothing(false)));
        };
        let id = account(&self.account);
        let devices = tx.rows(DELETE_DEVICES, &[&id]).await?;
        let keys: Vec<Vec<u8>> = devices.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
        for sql in [DELETE_FREED, DELETE_PREKEYS, DELETE_RULES, DELETE_ACCOUNT] {
            tx.execute(sql, &[&id]).await?;
        }
        tx.execute(FREE_ADDRESS, &[&id, &locked.address]).await?;
        tx.execute(REMEMBER_WITHDRAWN, &[&id, &big(self.now_ms)]).await?;
        retire(tx, &locked.address, &keys, self.now_ms).await?;
        Ok(Done::told(true, [locked.change(What::Withdrawn)?]))
    }
}

/// Remembers the keys, and forgets some of those whose time is over.
async fn retire(tx: &Tx<'_>, address: &str, noise_keys: &[Vec<u8>], now_ms: u64) -> Result<(), Failure> {
    let owner = RetiredNames::of(address, &[]).owner;
    let mut keys: Vec<Vec<u8>> = noise_keys.iter().map(|key| RetiredNames::of(address, key).key).collect();
    // Two of a kind could not be written at once.
    keys.sort_unstable();
    keys.dedup();
    tx.execute(RETIRE, &[&owner, &keys, &big(now_ms.saturating_add(RETIRED_MS))]).await?;
    tx.execute(FORGET_SURPLUS_RETIRED, &[&owner, &(MAX_RETIRED_KEYS as i64)]).await?;
    tx.execute(FORGET_RETIRED, &[&big(now_ms)]).await?;
    Ok(())
}
