//! What a user sets: consent and push tokens. Done again, it is the same.

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};

use super::accounts::Locked;
use super::rows::{account, device};
use super::statements::{DELETE_RULES, INSERT_RULES, SET_CONSENT, SET_PUSH};
use super::step::{Done, Failure, Step, Tx};
use crate::accounts::PushToken;
use crate::consent::Consent;
use crate::store::What;
use crate::store::stored::Listed as _;

/// The step of replacing the consent.
pub(super) struct SetConsent<'a> {
    pub(super) account: AccountId,
    pub(super) by: DeviceId,
    pub(super) consent: &'a Consent,
}

#[async_trait]
impl Step for SetConsent<'_> {
    type Outcome = bool;

    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<bool>>) -> Result<Done<bool>, Failure> {
        let Some(locked) = Locked::by_device(tx, self.account, self.by).await? else { return Ok(Done::nothing(false)) };
        let id = account(&self.account);
        let Consent { interop, inbox, reach, rules } = self.consent;
        tx.execute(SET_CONSENT, &[&id, interop, &inbox.number(), &reach.number()]).await?;
        tx.execute(DELETE_RULES, &[&id]).await?;
        if !rules.is_empty() {
            let (providers, allow): (Vec<&str>, Vec<bool>) =
                rules.iter().map(|(provider, allow)| (provider.as_str(), *allow)).unzip();
            tx.execute(INSERT_RULES, &[&id, &providers, &allow]).await?;
        }
        Ok(Done::told(true, [locked.change(What::Consent)?]))
    }
}

/// The step of setting or dropping a push token.
pub(super) struct SetPush<'a> {
    pub(super) account: AccountId,
    pub(super) device: DeviceId,
    pub(super) token: Option<&'a PushToken>,
}

#[async_trait]
impl Step for SetPush<'_> {
    type Outcome = bool;

    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<bool>>) -> Result<Done<bool>, Failure> {
        let Some(locked) = Locked::account(tx, self.account).await? else { return Ok(Done::nothing(false)) };
        let token = self.token.map(|token| token.as_bytes().as_ref());
        if tx.execute(SET_PUSH, &[&account(&self.account), &device(self.device), &token]).await? == 0 {
            return Ok(Done::nothing(false));
        }
        Ok(Done::told(true, [locked.change(What::Push)?]))
    }
}
