//! The records, in order, as what they say of each message and device. Rules that can be judged as records come are
//! judged here; the others in [`super::judge`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::media::{Download, Media, Uploaded};
use super::rules::Rule;
use super::{Invariant, Totals, Violation, closed};
use crate::events::Faults;
use crate::ledger::{Class, Consent, Kind, MessageNumber, Outcome, Record};

/// Violations of one rule that are kept in full.
const KEPT: usize = 20;
/// After a fault is healed, its consequences on the wire may last so long, in microseconds.
pub(super) const AFTERMATH: u64 = 15_000_000;

/// How a light session ends that is told so.
const REPLACED: &str = "ended: Replaced";
/// Sessions that are remembered by their logins: one that lingers beside newer ones is soon over.
const BEGUN: u32 = 64;

/// A message.
pub(super) struct Message {
    pub(super) account: u32,
    pub(super) seq: u32,
    pub(super) class: Class,
    pub(super) to: Box<[u32]>,
    /// First submission.
    pub(super) at: u64,
    pub(super) again: u32,
    /// The first outcome that is a promise or, if there is none, the first.
    pub(super) outcome: Option<(Outcome, u64)>,
    pub(super) got: Vec<Got>,
}

/// A message on a device.
pub(super) struct Got {
    pub(super) device: u32,
    /// First and last delivery.
    pub(super) wire: Option<(u64, u64)>,
    pub(super) shown: Option<u64>,
    pub(super) acked: Option<u64>,
}

/// A device.
pub(super) struct Device {
    pub(super) account: u32,
    pub(super) kind: Kind,
    pub(super) removing: Option<u64>,
    pub(super) removed: Option<u64>,
    pub(super) drained: Option<(u64, u32)>,
    /// The newest session.
    newest: (u32, u64),
    /// When the last login began, and those that opened the last sessions.
    login: u64,
    begun: BTreeMap<u32, u64>,
    /// When a session began or ended last.
    turned: u64,
    /// When it left by itself.
    pub(super) left: Vec<u64>,
    /// Deliveries that are not acknowledged, by session.
    pending: BTreeMap<u32, VecDeque<(u64, MessageNumber)>>,
    /// The greatest seq shown, by sender.
    shown: HashMap<u32, (u32, MessageNumber)>,
}

impl Device {
    /// Its last login was begun when its removal had been confirmed.
    fn began_after_its_removal(&self) -> bool {
        self.removed.is_some_and(|removed| removed < self.login)
    }
}

/// One change of consent: asked for, answered, the rule, confirmed.
pub(super) struct Change {
    pub(super) asked: u64,
    pub(super) answered: Option<u64>,
    pub(super) rule: Consent,
    pub(super) ok: bool,
}

/// An account.
#[derive(Default)]
pub(super) struct Account {
    pub(super) provider: u32,
    pub(super) changes: Vec<Change>,
}

/// All that happened.
#[derive(Default)]
pub(super) struct History {
    pub(super) run: Option<(u64, String, Option<String>)>,
    pub(super) accounts: HashMap<u32, Account>,
    pub(super) devices: HashMap<u32, Device>,
    pub(super) messages: HashMap<MessageNumber, Message>,
    pub(super) totals: Totals,
    pub(super) violated: BTreeMap<Invariant, u64>,
    pub(super) violations: Vec<Violation>,
    pub(super) judged: BTreeMap<Rule, u64>,
    pub(super) media: Media,
    pub(super) last: u64,
    pub(super) ended: bool,
    pub(super) emptied_ms: Option<u64>,
    /// Of each process, before the load and after the drain.
    pub(super) usage: BTreeMap<String, [Option<(u64, u64)>; 2]>,
    claimed: HashSet<(u32, u32, u32, bool, u32)>,
    /// Times in which something was disturbed, merged and in order.
    disturbed: Vec<(u64, u64)>,
}

impl History {
    pub(super) fn new(faults: &Faults) -> Self {
        let mut times: Vec<_> = faults
            .faults
            .iter()
            .map(|fault| (fault.begin, fault.end.map_or(u64::MAX, |end| end.saturating_add(AFTERMATH))))
            .collect();
        times.sort_unstable();
        let mut disturbed: Vec<(u64, u64)> = Vec::new();
        for (begin, end) in times {
            match disturbed.last_mut() {
                Some(last) if last.1 >= begin => last.1 = last.1.max(end),
                _ => disturbed.push((begin, end)),
            }
        }
        Self { disturbed, ..Self::default() }
    }

    /// Whether a fault or its aftermath overlaps this time.
    pub(super) fn is_disturbed(&self, from: u64, to: u64) -> bool {
        let first = self.disturbed.partition_point(|(_, end)| *end < from);
        self.disturbed.get(first).is_some_and(|(begin, _)| *begin <= to)
    }

    /// How much of the run was not disturbed, in microseconds.
    pub(super) fn quiet(&self) -> u64 {
        let ill = self.disturbed.iter().map(|(begin, end)| (*end).min(self.last).saturating_sub(*begin)).sum();
        self.last.saturating_sub(ill)
    }

    /// A rule had so much to judge.
    pub(super) fn judged(&mut self, rule: Rule, count: u64) {
        if count > 0 {
            *self.judged.entry(rule).or_insert(0) += count;
        }
    }

    pub(super) fn violate(
        &mut self,
        invariant: Invariant,
        t: u64,
        message: Option<MessageNumber>,
        device: Option<u32>,
        what: String,
    ) {
        let count = self.violated.entry(invariant).or_insert(0);
        *count += 1;
        if *count <= KEPT as u64 {
            self.violations.push(Violation { invariant, what, t, message, device });
        }
    }

    #[expect(clippy::too_many_lines, reason = "an arm a record")]
    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Run { seed, variant, planted } => self.run = Some((seed, variant, planted)),
            Record::Account { a, p } => self.accounts.entry(a).or_default().provider = p,
            Record::Device { t, d, a, kind, .. } => {
                self.last = t;
                self.totals.devices += 1;
                let device = Device {
                    account: a,
                    kind,
                    removing: None,
                    removed: None,
                    drained: None,
                    newest: (0, 0),
                    login: 0,
                    begun: BTreeMap::new(),
                    turned: t,
                    left: Vec::new(),
                    pending: BTreeMap::new(),
                    shown: HashMap::new(),
                };
                self.devices.insert(d, device);
            }
            Record::Removing { t, d } => {
                if let Some(device) = self.devices.get_mut(&d) {
                    device.removing.get_or_insert(t);
                }
            }
            Record::Removed { t, d } => {
                self.totals.removed += 1;
                if let Some(device) = self.devices.get_mut(&d) {
                    device.removed.get_or_insert(t);
                }
            }
            Record::Login { t, d } => {
                if let Some(device) = self.devices.get_mut(&d) {
                    device.login = t;
                }
            }
            Record::Unknown { d, .. } => {
                let refused = u64::from(self.devices.get(&d).is_some_and(Device::began_after_its_removal));
                self.totals.logins_of_removed += refused;
                self.judged(Rule::Removed, refused);
            }
            Record::Up { t, d, e, .. } => {
                self.totals.sessions += 1;
                if self.devices.get(&d).is_some_and(Device::began_after_its_removal) {
                    self.judged(Rule::Removed, 1);
                    let what = format!("device {d} was removed, and logged in after that");
                    self.violate(Invariant::Consent, t, None, Some(d), what);
                }
                if let Some(device) = self.devices.get_mut(&d) {
                    device.newest = (e, t);
                    device.begun.insert(e, device.login);
                    device.begun.retain(|epoch, _| epoch + BEGUN > e);
                    device.turned = t;
                    // Tags of the session before the last are acknowledged by nobody any more.
                    device.pending.retain(|epoch, _| epoch + 2 > e);
                }
            }
            Record::Down { t, d, e, why } => {
                // Older records have no logins. Also one that came to nothing counts: its client has let go of the session
                // before it.
                if let Some(device) = self.devices.get(&d).filter(|device| why == REPLACED && device.login > 0) {
                    let later = device.begun.get(&e).is_none_or(|begun| device.login > *begun);
                    self.replaced(t, d, later);
                }
                let beside = self.devices.get(&d).is_some_and(|device| device.newest.0 > e);
                self.judged(Rule::OlderSession, u64::from(beside));
                if let Some(device) = self.devices.get_mut(&d) {
                    device.turned = t;
                    if ["away", "again", "twin", "stop"].iter().any(|word| why.starts_with(word)) {
                        device.left.push(t);
                    }
                }
            }
            Record::Submit { t, m, a, q, c, to, .. } => {
                self.last = t;
                self.totals.submitted += 1;
                let is_removed = |d: &&u32| self.devices.get(d).is_some_and(|device| device.removed.is_some());
                let removed = to.iter().filter(is_removed).count() as u64;
                self.totals.to_removed += removed;
                self.judged(Rule::Removed, removed);
                let message = Message {
                    account: a,
                    seq: q,
                    class: c,
                    to: to.into_boxed_slice(),
                    at: t,
                    again: 0,
                    outcome: None,
                    got: Vec::new(),
                };
                self.messages.insert(m, message);
            }
            Record::Again { m, .. } => {
                self.totals.again += 1;
                if let Some(message) = self.messages.get_mut(&m) {
                    message.again += 1;
                }
            }
            Record::Ack { t, m, o, r, .. } => self.ack(t, m, o, r),
            Record::StrayAck { t, d, e, what } => {
                let what = format!("device {d} was told in session {e} what became of what it did not send: {what}");
                self.violate(Invariant::Acks, t, None, Some(d), what);
            }
            Record::Wire { t, d, e, g, m, bad } => self.wire(t, d, e, g, m, bad),
            Record::App { t, d, m } => self.app(t, d, m),
            Record::AckOut { t, d, e, g } => {
                let Some(pending) = self.devices.get_mut(&d).and_then(|device| device.pending.get_mut(&e)) else {
                    return;
                };
                while let Some((_, m)) = pending.pop_front_if(|(tag, _)| *tag <= g) {
                    let message = self.messages.get_mut(&m);
                    if let Some(got) = message.and_then(|message| message.got.iter_mut().find(|got| got.device == d)) {
                        got.acked.get_or_insert(t);
                    }
                }
            }
            Record::WrongAck { .. } => {
                self.totals.wrong_acks += 1;
                self.judged(Rule::WrongTag, 1);
            }
            Record::WrongAckTaken { t, d, e } => {
                let what = format!("device {d} acknowledged a tag that session {e} never had, and the session went on");
                self.violate(Invariant::Acks, t, None, Some(d), what);
            }
            Record::ConsentAsk { t, a, c } => {
                let change = Change { asked: t, answered: None, rule: c, ok: false };
                self.accounts.entry(a).or_default().changes.push(change);
            }
            Record::ConsentAnswer { t, a, c, ok } => {
                self.totals.consents += u64::from(ok);
                let account = self.accounts.entry(a).or_default();
                if let Some(change) = account.changes.last_mut().filter(|change| change.rule == c) {
                    (change.answered, change.ok) = (Some(t), ok);
                }
            }
            Record::Claim { t, a, id, reg, ec, kyber, .. } => {
                self.totals.bundles += 1;
                for (key, is_ec) in [(ec, true), (kyber, false)] {
                    let Some(key) = key else { continue };
                    self.judged(Rule::PrekeyOnce, 1);
                    if !self.claimed.insert((a, id, reg, is_ec, key)) {
                        let kind = if is_ec { "EC" } else { "Kyber" };
                        let what = format!("one-time {kind} prekey {key} of account {a} device id {id} went out twice");
                        self.violate(Invariant::Keys, t, None, None, what);
                    }
                }
            }
            Record::Stopped { t, d, why, replaced } => {
                self.last = t;
                if replaced {
                    // It begins a login when it has done with the one before, and hears nothing of that any more.
                    self.replaced(t, d, false);
                }
                *self.totals.stopped.entry(why).or_insert(0) += 1;
            }
            Record::Upload { t, x, .. } => self.upload(t, x),
            Record::Uploaded { t, x, ok, refused, why } => self.uploaded(t, x, &Uploaded { ok, refused, why }),
            Record::Download { began, t, x, r, last, why, .. } => {
                self.download(t, Download { began, x, r, last, why });
            }
            Record::Logs { lines, .. } => self.judged(Rule::Logs, lines),
            Record::Drain { t } => self.last = t,
            Record::Drained { t, d, w, open } => {
                self.last = t;
                if let Some(device) = self.devices.get_mut(&d) {
                    device.drained = Some((w, open));
                }
            }
            Record::Usage { name, bytes, files, last, .. } => {
                self.usage.entry(name).or_default()[usize::from(last)] = Some((bytes, files));
            }
            Record::Stores { t, mailbox, presence, took_ms } => {
                self.emptied_ms = self.emptied_ms.max(took_ms);
                self.judged(Rule::Mailboxes, u64::from(mailbox.is_some()));
                self.judged(Rule::Presence, u64::from(presence.is_some()));
                for (what, left) in [("messages in mailboxes", mailbox), ("devices in presence", presence)] {
                    if let Some(left @ 1..) = left {
                        self.violate(Invariant::Progress, t, None, None, format!("{left} {what} after the drain"));
                    }
                }
            }
            Record::Log { t, file, line } => {
                self.violate(Invariant::Silence, t, None, None, format!("{file}: {line}"));
            }
            Record::End { t } => (self.last, self.ended) = (t, true),
        }
    }

    /// A session was told that a newer one has come; `later`: a login of the device has begun after its own.
    fn replaced(&mut self, t: u64, d: u32, later: bool) {
        self.judged(Rule::Replaced, 1);
        if !later {
            let what = format!("device {d} was told that it is replaced, and its login was the last to begin");
            self.violate(Invariant::Session, t, None, Some(d), what);
        }
    }

    fn ack(&mut self, t: u64, m: MessageNumber, outcome: Outcome, reason: String) {
        self.last = t;
        self.judged(Rule::OwnOutcome, 1);
        let Some(message) = self.messages.get_mut(&m) else {
            return self.violate(Invariant::Acks, t, Some(m), None, format!("an outcome of {m}, which nobody sent"));
        };
        if !reason.is_empty() {
            *self.totals.rejections.entry(reason).or_insert(0) += 1;
        }
        match message.outcome {
            Some((before, _)) if before.is_ok() || !outcome.is_ok() => {}
            _ => message.outcome = Some((outcome, t)),
        }
        if outcome == Outcome::Delivered {
            let counts = |d: &&u32| {
                let device = self.devices.get(d);
                device.is_some_and(|device| device.kind != Kind::Sdk && device.removing.is_none())
            };
            let judged = message.to.iter().filter(counts).count() as u64;
            let without: Vec<u32> = message
                .to
                .iter()
                .filter(counts)
                .filter(|d| !message.got.iter().any(|got| got.device == **d && got.acked.is_some()))
                .copied()
                .collect();
            self.judged(Rule::Delivered, judged);
            for d in without {
                let what = format!("{m} is said to be delivered, but device {d} has not acknowledged it");
                self.violate(Invariant::Acks, t, Some(m), Some(d), what);
            }
        }
    }

    fn wire(&mut self, t: u64, d: u32, e: u32, g: u64, m: MessageNumber, bad: Option<String>) {
        self.last = t;
        self.totals.wire += 1;
        let is_light = self.devices.get(&d).is_some_and(|device| device.kind == Kind::Light);
        self.totals.light_wire += u64::from(is_light);
        for rule in [Rule::Opens, Rule::Tags, Rule::Addressed] {
            self.judged(rule, 1);
        }
        if let Some(bad) = bad {
            let is_tag = bad.starts_with("tag ");
            let rule = if is_tag { Invariant::Origin } else { Invariant::Account };
            self.violate(rule, t, Some(m), Some(d), format!("device {d} was given {m}: {bad}"));
            if !is_tag {
                return;
            }
        }
        let Some(device) = self.devices.get_mut(&d) else { return };
        device.pending.entry(e).or_default().push_back((g, m));
        let (newest, removed, turned) = (device.newest, device.removed, device.turned);
        let sender_turned = self.devices.get(&m.device()).map_or(t, |sender| sender.turned);
        let Some(message) = self.messages.get_mut(&m).filter(|message| message.to.contains(&d)) else {
            let what = format!("device {d} was given {m}, which nobody sent to it");
            return self.violate(Invariant::Origin, t, Some(m), Some(d), what);
        };
        let at = message.at;
        let repeats = match message.got.iter_mut().find(|got| got.device == d) {
            Some(got) => {
                let acked = got.acked.is_some();
                let (first, last) = got.wire.unwrap_or((t, t));
                got.wire = Some((first, t));
                Some((last, acked))
            }
            None => {
                message.got.push(Got { device: d, wire: Some((t, t)), shown: None, acked: None });
                None
            }
        };
        if let Some((last, acked)) = repeats {
            self.totals.wire_repeats += 1;
            self.totals.light_repeats += u64::from(is_light);
            self.judged(Rule::RepeatHasReason, 1);
            self.totals.wire_repeats_acknowledged += u64::from(acked);
            if turned < last && sender_turned < last && !self.is_disturbed(at.min(last), t) {
                let what = format!("device {d} was given {m} twice in one session with no fault near");
                self.violate(Invariant::Once, t, Some(m), Some(d), what);
            }
        }
        if newest.0 > e && newest.1 < at {
            let what = format!("{m} was sent after session {} of device {d} began, and came to session {e}", newest.0);
            self.violate(Invariant::Session, t, Some(m), Some(d), what);
        }
        if removed.is_some_and(|removed| removed < at) {
            let what = format!("{m} was sent after device {d} was removed, and came to it");
            self.violate(Invariant::Consent, t, Some(m), Some(d), what);
        }
    }

    fn app(&mut self, t: u64, d: u32, m: MessageNumber) {
        self.last = t;
        self.totals.shown += 1;
        if self.devices.get(&d).is_some_and(|device| device.kind == Kind::Sdk) {
            self.totals.shown_sdk += 1;
            // Others drop repeats before they write this down.
            self.judged(Rule::ShownOnce, 1);
            // Of those nothing else is seen.
            self.judged(Rule::Opens, 1);
            self.judged(Rule::Addressed, 1);
        }
        let sdk = self.devices.get(&m.device()).is_some_and(|sender| sender.kind == Kind::Sdk);
        let Some(device) = self.devices.get_mut(&d) else { return };
        let Some(message) = self.messages.get_mut(&m).filter(|message| message.to.contains(&d)) else {
            let what = format!("device {d} shows {m}, which nobody sent to it");
            return self.violate(Invariant::Origin, t, Some(m), Some(d), what);
        };
        let twice = match message.got.iter_mut().find(|got| got.device == d) {
            Some(got) => got.shown.replace(t).is_some(),
            None => {
                message.got.push(Got { device: d, wire: None, shown: Some(t), acked: None });
                false
            }
        };
        if twice {
            self.totals.duplicated += 1;
            return self.violate(Invariant::Once, t, Some(m), Some(d), format!("device {d} shows {m} twice"));
        }
        let (account, seq, at, again) = (message.account, message.seq, message.at, message.again);
        let ephemeral = message.class == Class::Ephemeral;
        let before = device.shown.get(&m.device()).copied();
        let Some(greatest) = before.filter(|(greatest, _)| *greatest > seq) else {
            device.shown.insert(m.device(), (seq, m));
            self.judged(Rule::InOrder, u64::from(before.is_some()));
            return;
        };
        self.judged(Rule::InOrder, 1);
        // One that was dropped is nowhere; with the replica that dropped it, what it decided may be lost too.
        let dropped = ephemeral && self.is_disturbed(at, t);
        // What devices of the SDK submit again is not seen, nor what edges do that have lost a replica.
        let again = again > 0 || sdk;
        let refused = self.may_have_been_refused(m.device(), account, at, t);
        if again && (dropped || refused) || refused && self.is_disturbed(at, t) {
            self.totals.late_retries += 1;
            return;
        }
        self.totals.inversions += 1;
        let what = format!(
            "device {d} shows {m} (number {} of its sender to this account) after {} (number {})",
            seq, greatest.1, greatest.0
        );
        self.violate(Invariant::Order, t, Some(m), Some(d), what);
    }

    /// Whether a message to `account` that was sent at `from` may have been refused before `to` without its sender hearing
    /// of it. What is repeated before it has heard comes behind what was sent and accepted meanwhile, and rightly so.
    fn may_have_been_refused(&self, sender: u32, account: u32, from: u64, to: u64) -> bool {
        let Some(sender) = self.devices.get(&sender).map(|device| device.account) else { return false };
        let (Some(sender), Some(account)) = (self.accounts.get(&sender), self.accounts.get(&account)) else {
            return false;
        };
        closed::maybe(account, sender.provider, false, from, to) || closed::maybe(sender, 0, true, from, to)
    }
}
