//! An account comes, changes, goes, or is another's.

use std::collections::BTreeMap;
use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};

use super::{Machine, Output};
use crate::mailbox::{Chain, DeviceUsage};
use crate::message::{Ending, Header, MessageKey, Seq};
use crate::recipient::device::Device;
use crate::records::Record;
use crate::session::SessionKey;
use crate::trails::Settled;

impl<R> Machine<R> {
    /// Starts with what the mailbox holds for the account. An earlier account of the same address is gone.
    pub(crate) fn load(&mut self, account: AccountId, usage: &[DeviceUsage], out: &mut Vec<Output<R>>) {
        self.gone(out);
        self.account = Some(account);
        self.chain = Chain::default();
        for known in usage {
            self.last_seq = self.last_seq.max(known.last);
            self.devices.insert(known.device, Device { kept: known.usage, ..Device::default() });
        }
        self.forgetful = !usage.is_empty();
    }

    /// The account has left: its sessions end and nothing of it is kept.
    pub(crate) fn gone(&mut self, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account else { return };
        self.forget(|session| Output::End { session, reason: Ending::Withdrawn }, Settled::Withdrawn, out);
        // Behind the puts that are under way, so that it takes them too.
        out.push(Output::DropAccount { account });
    }

    /// Acts on a record of the loaded account: devices that are not on it any more end, and nothing of them is kept.
    pub(crate) fn reconcile(&mut self, record: &Arc<Record>, out: &mut Vec<Output<R>>) {
        let before = match &self.record {
            Some(before) if Arc::ptr_eq(before, record) => return,
            before => before.clone(),
        };
        self.record = Some(Arc::clone(record));
        let ids: Vec<DeviceId> = self.devices.keys().copied().collect();
        for id in ids {
            let keep = record.device(id).map(|device| device.registration);
            let known = before.as_ref().and_then(|before| before.device(id)).map(|device| device.registration);
            if keep.is_some() && keep == known {
                continue;
            }
            self.remove(id, record.account, keep, out);
        }
    }

    /// Writes everything that is not acknowledged, without waiting for the window of each message.
    pub(crate) fn finish(&mut self, out: &mut Vec<Output<R>>) {
        let in_order: BTreeMap<Seq, MessageKey> =
            self.pending.iter().map(|(key, pending)| (pending.header.seq, *key)).collect();
        for key in in_order.values() {
            self.window_over(key, out);
        }
    }

    /// All sessions are to attach elsewhere.
    pub(crate) fn leave(&mut self, out: &mut Vec<Output<R>>) {
        let sessions: Vec<(DeviceId, SessionKey)> = self.sessions().collect();
        for (id, session) in sessions {
            out.push(Output::Moved { session });
            self.end_served(id, None, out);
        }
    }

    /// The account is another's, or may be: nothing of what is known of it is certain any more. Messages without an
    /// outcome fail, and sessions are to attach again. What is under way in the mailbox is not waited for.
    pub(crate) fn reset(&mut self, out: &mut Vec<Output<R>>) {
        self.forget(|session| Output::Moved { session }, Settled::Unanswered, out);
        self.puts.clear();
        self.retry = None;
        self.forgetful = false;
    }

    /// No account is loaded any more: its sessions are told that, and its messages without an outcome fail.
    fn forget(&mut self, told: impl Fn(SessionKey) -> Output<R>, how: Settled, out: &mut Vec<Output<R>>) {
        let account = self.account.take();
        let served = std::mem::take(&mut self.devices).into_values().filter_map(|device| device.served);
        out.extend(served.map(|served| told(served.session)));
        for (_, pending) in std::mem::take(&mut self.pending) {
            let Header { seq, class, .. } = *pending.header;
            out.extend(account.map(|account| Output::Settled { account, seq, class, how }));
            out.extend(pending.replies.into_iter().map(|reply| Output::Fail { reply }));
        }
        self.record = None;
        self.newest.clear();
        self.hints.clear();
        self.outcomes = None;
        self.deadlines.clear();
        self.unwritten.clear();
        self.undropped.clear();
    }
}
