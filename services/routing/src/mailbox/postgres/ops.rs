//! The queued operations, their results, and which of them may be done side by side.

use std::collections::{HashMap, HashSet};

use causeway_identity::{AccountId, DeviceId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::mailbox::{Chain, Claimed, DeviceUsage, Put, PutOutcome, ReplicaId, StoreError, Usage};
use crate::message::{Seq, weight};

/// An operation that waits for its turn.
pub(super) struct Op {
    pub(super) account: AccountId,
    /// For whom it is done; not looked at for [`Action::Usage`].
    pub(super) replica: ReplicaId,
    pub(super) action: Action,
    pub(super) queued: Instant,
    pub(super) reply: oneshot::Sender<Result<Done, StoreError>>,
}

impl Op {
    /// Of a put.
    pub(super) fn chain(&self) -> Option<Chain> {
        match &self.action {
            Action::Put(put) => Some(put.chain.clone()),
            _ => None,
        }
    }

    /// True for a put behind one that did not happen.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(&self.action, Action::Put(put) if put.chain.is_broken())
    }

    /// Tells what became of it; nobody may be waiting any more.
    pub(super) fn tell(self, result: Result<Done, StoreError>) {
        if let (Action::Put(put), Err(_)) = (&self.action, &result) {
            put.chain.break_off();
        }
        let _gone = self.reply.send(result);
    }
}

/// What to do.
pub(super) enum Action {
    Claim,
    Release,
    Put(Put),
    Forget { device: DeviceId, upto: Seq },
    DropDevice { device: DeviceId, keep: Option<u32> },
    DropAccount,
    Usage,
}

/// What was done, if the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    Claimed(Claimed),
    Put(PutOutcome),
    Erased(Usage),
    Usage(Vec<DeviceUsage>),
    /// Released or dropped.
    Gone,
    /// Nothing, because the account is not the replica's.
    Fenced,
}

/// Each operation has one kind of result; these give what is in it.
impl Done {
    pub(super) fn claimed(self) -> Option<Claimed> {
        match self {
            Self::Claimed(claimed) => Some(claimed),
            _ => None,
        }
    }

    pub(super) fn put(self) -> Option<PutOutcome> {
        match self {
            Self::Put(outcome) => Some(outcome),
            _ => None,
        }
    }

    pub(super) fn erased(self) -> Option<Usage> {
        match self {
            Self::Erased(usage) => Some(usage),
            _ => None,
        }
    }

    pub(super) fn usage(self) -> Option<Vec<DeviceUsage>> {
        match self {
            Self::Usage(usage) => Some(usage),
            _ => None,
        }
    }

    pub(super) fn gone(self) -> Option<()> {
        match self {
            Self::Gone => Some(()),
            _ => None,
        }
    }
}

impl Action {
    /// Bytes that it holds in memory and sends.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.parts.iter().map(weight).sum(),
            _ => 0,
        }
    }

    /// Whether only the account's owner may do it.
    pub(super) const fn is_fenced(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Forget { .. } | Self::DropDevice { .. } | Self::DropAccount)
    }

    const fn is_put(&self) -> bool {
        matches!(self, Self::Put(_))
    }
}

/// Parts a batch into waves, each of which is done in a few statements for all its accounts. Operations of one account
/// are in one wave only if they can be done in any order, or are puts, which are decided in their order; the waves are in
/// the order of the calls for each account. Positions in `ops`.
pub(super) fn waves(ops: &[Op]) -> Vec<Vec<usize>> {
    struct Last {
        wave: usize,
        puts: bool,
        /// Devices whose queues the wave shortens; `None` if something else is in it.
        forgotten: Option<HashSet<DeviceId>>,
    }
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut accounts: HashMap<AccountId, Last> = HashMap::new();
    for (position, op) in ops.iter().enumerate() {
        let forgets = match &op.action {
            Action::Forget { device, .. } => Some(*device),
            _ => None,
        };
        let wave = match accounts.get_mut(&op.account) {
            None => {
                let forgotten = forgets.map(|device| HashSet::from([device]));
                accounts.insert(op.account, Last { wave: 0, puts: op.action.is_put(), forgotten });
                0
            }
            Some(last) => {
                let beside = match (forgets, &mut last.forgotten) {
                    (Some(device), Some(forgotten)) => forgotten.insert(device),
                    _ => last.puts && op.action.is_put(),
                };
                if !beside {
                    last.wave += 1;
                    last.puts = op.action.is_put();
                    last.forgotten = forgets.map(|device| HashSet::from([device]));
                }
                last.wave
            }
        };
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        if let Some(wave) = waves.get_mut(wave) {
            wave.push(position);
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::suite::{ONE, account, device, enc, header, put};

    fn op(of: u8, action: Action) -> Op {
        let (reply, _) = oneshot::channel();
        Op { account: account(of), replica: ONE, action, queued: Instant::now(), reply }
    }

    fn some_put(of: u8) -> Op {
        op(of, Action::Put(put(of, header(1, 9, 1), vec![enc(1, 101, b"a")])))
    }

    fn forget(of: u8, from: u32) -> Op {
        op(of, Action::Forget { device: device(from), upto: Seq(1) })
    }

    #[test]
    fn what_depends_on_each_other_is_in_waves_one_after_the_other() {
        let ops = [
            some_put(1),
            some_put(2),
            some_put(1),
            forget(1, 1),
            forget(1, 2),
            forget(1, 1),
            some_put(1),
            op(2, Action::Usage),
            op(3, Action::Claim),
            op(3, Action::Claim),
            some_put(3),
        ];
        assert_eq!(waves(&ops), [vec![0, 1, 2, 8], vec![3, 4, 7, 9], vec![5, 10], vec![6]]);
        assert!(waves(&[]).is_empty());
    }
}
