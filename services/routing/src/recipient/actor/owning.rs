//! Whose the account is. An actor decides only while its replica owns the account and the replica's lease holds
//! (docs/replicas.md, "Who owns a mailbox"); it claims the account when it is needed, and gives it up when another
//! replica asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId};
use futures::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Actor, Finished, Needed, Shared, Step, Tried};
use crate::mailbox::{Claimed, DeviceUsage, ReplicaId, StoreError};
use crate::recipient::ReplyTo;
use crate::recipient::machine::Output;

/// Whom to tell that an account has been released.
pub(super) type Done = oneshot::Sender<Result<(), StoreError>>;

/// What an actor knows of its account's owner.
#[derive(Default)]
pub(super) struct Owning {
    owned: Option<Owned>,
    /// It is being claimed.
    claiming: Option<AccountId>,
    /// What is to be written while it is being claimed again: under which id is not known yet.
    held_back: Vec<Output<ReplyTo>>,
    release: Option<Box<Release>>,
    /// It counts as owned.
    counted: bool,
    /// Another replica has just asked for it, and comes first.
    not_before: Option<Instant>,
}

/// The account is this replica's.
#[derive(Debug, Clone, Copy)]
struct Owned {
    account: AccountId,
    /// As which it was claimed.
    id: ReplicaId,
    since: Instant,
}

/// Another replica wants the account.
struct Release {
    account: AccountId,
    wanted: Vec<Done>,
    /// By then everything that is under way must have settled; `None`: it has not begun.
    until: Option<Instant>,
}

/// What became of a claim.
pub(super) enum Claim {
    /// It is this replica's.
    Ours { id: ReplicaId, usage: Vec<DeviceUsage>, before: Option<ReplicaId>, newest: BTreeMap<DeviceId, u64> },
    /// The lease of before goes on: nothing has changed.
    Still,
    /// Another replica has it, and was not to be asked for it.
    Held,
    /// Nothing was to be had in time.
    Away,
}

/// An account that was claimed stays for so long, so that two replicas which both need it get something done each time.
const MIN_HOLD: Duration = Duration::from_millis(50);
/// After a release the other replica claims first.
const YIELD: Duration = Duration::from_millis(30);
/// What is under way when another replica asks has so long to settle.
const SETTLE: Duration = Duration::from_millis(1_000);
/// Replicas that wait for the same account at a time.
const MAX_WANTED: usize = 64;
/// Between two attempts to claim.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(320);
/// What has waited in a queue for longer than the configured time gets this much.
const LAST_CHANCE: Duration = Duration::from_millis(100);

impl Actor {
    /// True if this replica may decide about the account now.
    pub(super) fn owns(&self, account: AccountId) -> bool {
        let owned = self.owning.owned.filter(|owned| owned.account == account);
        owned
            .is_some_and(|owned| self.machine.account() == Some(account) && self.shared.lease.holds() == Some(owned.id))
    }

    /// Keeps the number of owned accounts right.
    pub(super) fn count_owned(&mut self, owned: bool) {
        if owned != self.owning.counted {
            self.owning.counted = owned;
            self.shared.metrics.owns(owned);
        }
    }

    /// True if the account is this replica's, as far as is known.
    pub(super) fn owns_any(&self) -> bool {
        self.owning.owned.is_some()
    }

    /// As which this actor writes.
    pub(super) fn writes_as(&self) -> ReplicaId {
        self.owning.owned.map_or_else(|| self.shared.lease.id(), |owned| owned.id)
    }

    /// Has the account claimed for a step, which is tried again then.
    pub(super) fn claim_for(&mut self, step: Step, account: AccountId) {
        let Some(step) = self.try_once_more(step) else { return };
        let (since, ask) = match &step {
            Step::Message(job) => (job.reply.since, true),
            Step::Attach(session) => (session.since, true),
            // An account that another replica owns is seen to there.
            Step::Look | Step::Own => (Instant::now(), false),
        };
        let have = self.owning.owned.filter(|owned| owned.account == account).map(|owned| owned.id);
        let terms = Terms {
            account,
            address: self.address.clone(),
            have,
            attaches: matches!(step, Step::Attach(_)).then(|| self.now.unix_us),
            ask,
            not_before: self.owning.not_before.take(),
            until: (since + self.shared.claim_timeout).max(Instant::now() + LAST_CHANCE),
        };
        self.waiting.push_front(step);
        self.owning.claiming = Some(account);
        let claim = terms.claim(Arc::clone(&self.shared));
        self.need = Some(Box::pin(claim.map(move |claim| Needed::Claimed(account, claim))));
    }

    /// What became of it.
    pub(super) fn claimed(&mut self, step: Step, account: AccountId, claim: Claim) {
        self.owning.claiming = None;
        let owned = self.owning.owned.filter(|owned| owned.account == account);
        match claim {
            Claim::Still => {
                self.write_held_back();
                self.waiting.push_front(step);
            }
            Claim::Ours { id, usage, before, newest } => {
                let goes_on =
                    owned.is_some_and(|owned| before == Some(owned.id)) && self.machine.account() == Some(account);
                if goes_on {
                    self.shared.metrics.claimed("kept");
                } else {
                    if owned.is_some() {
                        self.reset("taken");
                    }
                    self.shared.metrics.claimed(if before.is_none() { "free" } else { "taken" });
                    self.machine.load(account, &usage, &mut self.out);
                    self.machine.hint(&newest);
                    // What an earlier account of the address has left is erased as its owner.
                    self.perform();
                }
                self.owning.owned = Some(Owned { account, id, since: Instant::now() });
                self.write_held_back();
                self.waiting.push_front(step);
            }
            Claim::Held => {
                self.shared.metrics.claimed("held");
                if owned.is_some() {
                    self.reset("taken");
                }
                self.attempts = 0;
            }
            Claim::Away => {
                self.shared.metrics.claimed("failed");
                self.write_held_back();
                self.give_up(step);
            }
        }
    }

    /// Nothing is claimed any more.
    pub(super) fn claims_no_more(&mut self) {
        self.owning.claiming = None;
        self.write_held_back();
    }

    /// A write is to be kept back while it is not known as whom to do it.
    pub(super) fn holds_back(&self, output: &Output<ReplyTo>) -> bool {
        if self.owning.claiming.is_none() || self.owning.owned.is_none() {
            return false;
        }
        matches!(
            output,
            Output::Put { .. }
                | Output::Forget { .. }
                | Output::DropDevice { .. }
                | Output::DropAccount { .. }
                | Output::Recount { .. }
        )
    }

    pub(super) fn hold_back(&mut self, output: Output<ReplyTo>) {
        self.owning.held_back.push(output);
    }

    fn write_held_back(&mut self) {
        let held_back = std::mem::take(&mut self.owning.held_back);
        self.out.splice(0..0, held_back);
    }

    /// This replica has another id. Sessions must not wait for messages that another replica may be getting.
    pub(super) fn renamed(&mut self) {
        let outdated = self.owning.owned.is_some_and(|owned| owned.id != self.shared.lease.id());
        let needed = !self.sessions.is_empty() || !self.machine.is_idle();
        let will = self.waiting.iter().any(|step| matches!(step, Step::Own));
        if outdated && needed && !will && !self.takes_nothing {
            self.waiting.push_back(Step::Own);
        }
    }

    /// Claims what is owned under an id of before.
    pub(super) fn own_again(&mut self) -> Tried {
        match self.owning.owned {
            Some(owned) if self.shared.lease.holds() != Some(owned.id) => Tried::Claim(Step::Own, owned.account),
            _ => Tried::Done,
        }
    }

    /// Everything that is known of the account is given up: another replica owns it, or may have written to it.
    pub(super) fn reset(&mut self, reason: &'static str) {
        self.shared.metrics.reset(reason);
        self.owning.held_back.clear();
        self.machine.reset(&mut self.out);
        self.perform();
        if let Some(owned) = self.owning.owned.take() {
            self.shared.trails.left_to_others(owned.account);
        }
        self.epoch += 1;
    }

    /// What an account has left that is no more was erased.
    pub(super) fn dropped_account(&mut self, account: AccountId) {
        if self.machine.account() == Some(account) {
            return;
        }
        let owned = self.owning.owned.filter(|owned| owned.account == account);
        let id = owned.map_or_else(|| self.shared.lease.id(), |owned| owned.id);
        if owned.is_some() {
            self.owning.owned = None;
        }
        drop(self.shared.mailbox.release(id, account));
    }

    /// The actor ends because nobody needs it; whoever is next claims behind this.
    pub(super) fn give_back(&self) {
        if let Some(owned) = self.owning.owned {
            self.shared.trails.left_to_others(owned.account);
            drop(self.shared.mailbox.release(owned.id, owned.account));
        }
    }

    /// Another replica wants an account.
    pub(super) fn release_asked(&mut self, account: AccountId, done: Done) {
        if let Some(release) = self.owning.release.as_mut().filter(|release| release.account == account) {
            if release.wanted.len() < MAX_WANTED {
                release.wanted.push(done);
            }
            return;
        }
        let owned = self.owning.owned.is_some_and(|owned| owned.account == account);
        if self.owning.release.is_none() && (owned || self.owning.claiming == Some(account)) {
            self.owning.release = Some(Box::new(Release { account, wanted: vec![done], until: None }));
        } else {
            // It is nothing of what is known here.
            self.release_row(self.shared.lease.id(), account, vec![done]);
        }
    }

    /// Another replica waits for the account.
    pub(super) fn is_releasing(&self) -> bool {
        self.owning.release.is_some()
    }

    /// No decisions are made any more: what is under way settles.
    pub(super) fn is_settling(&self) -> bool {
        self.owning.release.as_ref().is_some_and(|release| release.until.is_some())
    }

    /// When there is something to do for a release.
    pub(super) fn release_deadline(&self) -> Option<Instant> {
        // While it is being claimed, that is waited for.
        let release = self.owning.release.as_ref().filter(|_| self.owning.claiming.is_none())?;
        release.until.or_else(|| self.owning.owned.map(|owned| owned.since + MIN_HOLD))
    }

    /// Does what is to be done for a release.
    pub(super) fn go_on_releasing(&mut self, now: Instant) {
        let Some(release) = &mut self.owning.release else { return };
        let account = release.account;
        if self.owning.claiming.is_some() {
            return;
        }
        if let Some(owned) = self.owning.owned.filter(|owned| owned.account == account) {
            let until = match release.until {
                Some(until) => until,
                None if now < owned.since + MIN_HOLD => return,
                None => {
                    release.until = Some(now + SETTLE);
                    self.machine.finish(&mut self.out);
                    self.perform();
                    now + SETTLE
                }
            };
            let settled = self.machine.is_quiet() && self.results.is_empty();
            if !settled && now < until {
                return;
            }
            let id = owned.id;
            self.reset("released");
            self.finish_release(id, account, now);
        } else {
            self.finish_release(self.shared.lease.id(), account, now);
        }
    }

    fn finish_release(&mut self, id: ReplicaId, account: AccountId, now: Instant) {
        let Some(release) = self.owning.release.take() else { return };
        self.owning.not_before = Some(now + YIELD);
        self.release_row(id, account, release.wanted);
    }

    fn release_row(&mut self, id: ReplicaId, account: AccountId, wanted: Vec<Done>) {
        let released = self.shared.mailbox.release(id, account);
        let epoch = self.epoch;
        self.read(released.map(move |result| (epoch, Finished::Released(wanted, result))));
    }
}

/// Tells those who wait for a release.
pub(super) fn tell(wanted: Vec<Done>, result: &Result<(), StoreError>) {
    for done in wanted {
        let _gave_up = done.send(result.clone());
    }
}

/// How an account is to be claimed.
struct Terms {
    account: AccountId,
    address: Address,
    /// As whom it is owned, unless that lease has ended.
    have: Option<ReplicaId>,
    /// If another replica has it, it is asked for it.
    ask: bool,
    /// It is claimed for a session: the time of day, in microseconds.
    attaches: Option<u64>,
    not_before: Option<Instant>,
    until: Instant,
}

impl Terms {
    async fn claim(self, shared: Arc<Shared>) -> Claim {
        let until = self.until;
        if let Some(not_before) = self.not_before {
            tokio::time::sleep_until(not_before.min(until)).await;
        }
        let (account, attaches) = (self.account, self.attaches);
        let hint = async {
            match attaches {
                Some(now_us) => shared.presence.newest(account, now_us).await,
                None => BTreeMap::new(),
            }
        };
        let claim = tokio::time::timeout_at(until, self.until_claimed(&shared));
        let (claim, hinted) = tokio::join!(claim, hint);
        match claim.unwrap_or(Claim::Away) {
            Claim::Ours { id, usage, before, .. } => Claim::Ours { id, usage, before, newest: hinted },
            claim => claim,
        }
    }

    async fn until_claimed(self, shared: &Shared) -> Claim {
        let mut pause = FIRST_RETRY;
        loop {
            let id = shared.lease.held().await;
            if self.have == Some(id) {
                return Claim::Still;
            }
            match shared.mailbox.claim(id, self.account).await {
                Ok(Claimed::Ours { usage, before }) => {
                    return Claim::Ours { id, usage, before, newest: BTreeMap::new() };
                }
                Ok(Claimed::Held(_)) if !self.ask => return Claim::Held,
                Ok(Claimed::Held(owner)) => {
                    if shared.peers.release(&owner, self.account, &self.address).await {
                        // It is free, or somebody else was faster.
                        match shared.mailbox.claim(id, self.account).await {
                            Ok(Claimed::Ours { usage, before }) => {
                                return Claim::Ours { id, usage, before, newest: BTreeMap::new() };
                            }
                            Ok(Claimed::Held(_)) | Err(_) => {}
                        }
                    }
                }
                Err(StoreError::Fenced) => shared.lease.doubt(),
                Err(error) => shared.metrics.store_failed(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }
}
