//! What a user sets: consent and push tokens. What is stored already is not written again, and takes no number in the log
//! of changes, for which others wait: whoever asks for it waits for the confirmation of all that is in the log. It is
//! committed all the same, so that what another attempt has written is as durable as the answer says it is: on a
//! synchronous standby, too, if the server was restarted while that attempt waited for one.

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};

use super::accounts::{self, Locked};
use super::rows::{account, device, get};
use super::statements::{CONSENT, DELETE_RULES, INSERT_RULES, PUSH_TOKEN, SET_CONSENT, SET_PUSH};
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

    async fn attempt(&self, tx: &Tx<'_>, unanswered: Option<&Done<bool>>) -> Result<Done<bool>, Failure> {
        let Some(locked) = Locked::by_device(tx, self.account, self.by).await? else { return Ok(Done::nothing(false)) };
        let id = account(&self.account);
        let stored = tx.row(CONSENT, &[&id]).await?.map(|row| accounts::consent(&row, [0, 1, 2, 3, 4])).transpose()?;
        if stored.as_ref() == Some(self.consent) {
            return Ok(stored_already(unanswered));
        }
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

    async fn attempt(&self, tx: &Tx<'_>, unanswered: Option<&Done<bool>>) -> Result<Done<bool>, Failure> {
        let Some(locked) = Locked::account(tx, self.account).await? else { return Ok(Done::nothing(false)) };
        let token = self.token.map(|token| token.as_bytes().as_ref());
        let (id, device) = (account(&self.account), device(self.device));
        let Some(row) = tx.row(PUSH_TOKEN, &[&id, &device]).await? else { return Ok(Done::nothing(false)) };
        if get::<Option<&[u8]>>(&row, 0)? == token {
            return Ok(stored_already(unanswered));
        }
        tx.execute(SET_PUSH, &[&id, &device, &token]).await?;
        Ok(Done::told(true, [locked.change(What::Push)?]))
    }
}

/// What an attempt before has done is told again.
fn stored_already(unanswered: Option<&Done<bool>>) -> Done<bool> {
    unanswered.cloned().unwrap_or_else(|| Done::silently(true))
}
