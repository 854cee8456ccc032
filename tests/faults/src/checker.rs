//! Judges a finished run from its records: what the servers promised, and whether it is so. Pure functions over the
//! ledger and the log of faults; nothing here has seen the run.
//!
//! | invariant | what is asserted |
//! |---|---|
//! | I1 loss | a chat message that was `delivered` or `stored` is shown on every device it was addressed to that was not removed; a call that was `delivered` likewise |
//! | I2 rejected | a message whose only outcome is `rejected`, submitted once and with no fault meanwhile, reaches nobody |
//! | I3 once | no message is shown twice by the SDK; a repeat on the wire needs a fault or a lost session between the two |
//! | I4 origin | every delivery was submitted, for that device; tags rise by one |
//! | I5 order | between two devices messages are shown in the order of submission; but one that may have been refused (closed consent, rate limit) and that its sender repeats before hearing so comes when it comes |
//! | I6 consent | nothing whose whole time lies between a confirmed closing and the next request to open, and nothing to a removed device |
//! | I7 account | a body opens with the key of the device that got it, and names it, its account and the message |
//! | I8 acks | at `delivered` every device has acknowledged; an outcome names a message of its session; a tag never sent is not acknowledged |
//! | I9 session | what is submitted after a newer session began does not reach the older one; who is told `replaced` has a login that began later |
//! | I10 keys | no one-time prekey is handed out twice |
//! | I11 progress | every device finishes in the drain, mailboxes and presence are empty then, and each fault is recovered from in time |
//! | I14 silence | no process ended by itself or panicked, and no name is in a log |
//! | I15 media | no file is handed out with other bytes; with no fault near none is refused; what was stored can be fetched when all is healed |
//!
//! How often each rule had something to judge is counted ([`Rule`]). Reported, and asserted on request only
//! ([`Verdict::be_strict`]): repeats on the wire are at most 1% (I3), outcomes come within 10 s of a heal, and for 99% of
//! submissions within 5 s while one process is away (I11).
//!
//! Not asserted: I8 for `stored` by killing everything at that instant (the schedule kills at random instants, and I1
//! judges); I8 and the first of I9 for devices of the SDK, whose tags are not seen; I12 (memory and descriptors: they are
//! reported, and need hours) and I13 (audit chain and key log, which do not exist yet).

mod closed;
pub mod figures;
mod history;
mod judge;
mod media;
mod recovery;
mod rules;
#[cfg(test)]
mod tests;
pub mod timeline;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cluster::Variant;
use crate::events::{self, Faults};
use crate::ledger::{self, Fetched, MessageNumber, Outcome, Record};

pub use figures::Figures;
pub use recovery::{Latency, Recovery};
pub use rules::Rule;

/// A rule of the delivery contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// I1: nothing acknowledged is lost.
    Loss,
    /// I2: nothing rejected arrives.
    Rejected,
    /// I3: nothing arrives twice.
    Once,
    /// I4: nothing comes from nowhere.
    Origin,
    /// I5: order within a pair.
    Order,
    /// I6: consent and removal hold.
    Consent,
    /// I7: nothing reaches another account or device.
    Account,
    /// I8: acknowledgements are true.
    Acks,
    /// I9: one session a device.
    Session,
    /// I10: one-time keys go out once.
    Keys,
    /// I11: everything goes on after a fault, and nothing is left in the end.
    Progress,
    /// I14: no panic, nothing in logs.
    Silence,
    /// I15: files arrive as they were sent.
    Media,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Loss,
        Self::Rejected,
        Self::Once,
        Self::Origin,
        Self::Order,
        Self::Consent,
        Self::Account,
        Self::Acks,
        Self::Session,
        Self::Keys,
        Self::Progress,
        Self::Silence,
        Self::Media,
    ];

    /// What the simulation (`tests/simulation`) says when this is broken; nothing if it does not look for it.
    pub const fn promises(self) -> &'static [&'static str] {
        match self {
            Self::Loss => &["what is acknowledged arrives"],
            Self::Rejected => &["what is rejected does not arrive"],
            Self::Once => &["nothing comes twice without a reason"],
            Self::Origin => &["nothing comes from nowhere", "tags rise by one, from 1"],
            Self::Order => &["a pair's messages stay in order"],
            Self::Consent => &["who has closed gets nothing"],
            Self::Account => &["nobody gets what is for another", "a delivery is what its sender sent"],
            Self::Acks => &[
                "an acknowledgement names a message that its session submitted",
                "delivered means that every device has acknowledged",
                "a wrong acknowledgement ends the session",
                "a right acknowledgement does not end the session",
            ],
            Self::Session => &["only a login that began later replaces a session"],
            Self::Progress => &["every message gets an outcome in the end", "mailboxes are empty in the end"],
            Self::Keys | Self::Silence | Self::Media => &[],
        }
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which rule.
    pub invariant: Invariant,
    /// What is wrong.
    pub what: String,
    /// When it became wrong, in microseconds since the run began.
    pub t: u64,
    /// The message.
    pub message: Option<MessageNumber>,
    /// The device that saw it, or did not.
    pub device: Option<u32>,
}

/// How many of what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Messages submitted.
    pub submitted: u64,
    /// Submissions beyond the first of each.
    pub again: u64,
    /// Messages by their last outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Rejections by their reason.
    pub rejections: BTreeMap<String, u64>,
    /// Messages without an outcome.
    pub unknown: u64,
    /// Of these, shown on at least one device.
    pub unknown_arrived: u64,
    /// `delivered` or `stored`.
    pub acknowledged: u64,
    /// Acknowledged messages that a device does not have.
    pub lost: u64,
    /// Messages shown twice.
    pub duplicated: u64,
    /// Messages shown on devices of the SDK. Light ones drop repeats before they write anything down.
    #[serde(default)]
    pub shown_sdk: u64,
    /// Messages shown out of order.
    pub inversions: u64,
    /// Shown late and rightly so: it may have been refused, and the sender repeated it without having heard so.
    pub late_retries: u64,
    /// Deliveries.
    pub wire: u64,
    /// Messages shown.
    pub shown: u64,
    /// Deliveries of what a device had had on the wire.
    pub wire_repeats: u64,
    /// Of these, of what it had acknowledged.
    pub wire_repeats_acknowledged: u64,
    /// Deliveries to light devices.
    pub light_wire: u64,
    /// Of these, of what the device had had on the wire.
    pub light_repeats: u64,
    /// Why clients of the SDK stopped by themselves, and how often.
    pub stopped: BTreeMap<String, u64>,
    /// Files.
    pub media: MediaTotals,
    /// Sessions.
    pub sessions: u64,
    /// Devices, those removed included.
    pub devices: u64,
    /// Devices removed.
    pub removed: u64,
    /// Messages that name a device whose removal was confirmed before they were sent.
    #[serde(default)]
    pub to_removed: u64,
    /// Of these, accepted all the same (for the other devices).
    #[serde(default)]
    pub to_removed_accepted: u64,
    /// Logins of such devices that were refused.
    #[serde(default)]
    pub logins_of_removed: u64,
    /// Confirmed changes of consent.
    pub consents: u64,
    /// Messages sent while it was confirmed that they may not arrive.
    pub while_closed: u64,
    /// Prekey bundles handed out.
    pub bundles: u64,
    /// Acknowledgements of tags that were never sent.
    pub wrong_acks: u64,
}

/// Files that went up and came down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaTotals {
    /// Uploads begun.
    pub uploads: u64,
    /// Of these, stored.
    pub stored: u64,
    /// Downloads, by what came of them.
    pub downloads: BTreeMap<Fetched, u64>,
    /// Uploads and downloads that were refused while something was disturbed, which is not judged.
    pub refused_in_faults: u64,
    /// Stored, and not to be fetched in the end.
    pub lost: u64,
}

/// What a process used, before the load and after the drain. One that was started again has begun anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory, in bytes.
    pub bytes: (u64, u64),
    /// Descriptors.
    pub files: (u64, u64),
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the run was made of.
    pub seed: u64,
    /// Which deployment.
    pub variant: String,
    /// Its planted bug.
    pub planted: Option<String>,
    /// Microseconds from begin to end.
    pub lasted: u64,
    /// Counts.
    pub totals: Totals,
    /// How often each rule had something to judge.
    pub judged: BTreeMap<Rule, u64>,
    /// Goals, asserted on request only.
    pub figures: Figures,
    /// Violations by invariant.
    pub violated: BTreeMap<Invariant, u64>,
    /// The first of each rule, in order of time.
    pub violations: Vec<Violation>,
    /// Faults by kind, and how they were recovered from.
    pub faults: BTreeMap<String, Recovery>,
    /// Faults that did not go as planned.
    pub faults_failed: Vec<String>,
    /// From submission to outcome.
    pub latency: Latency,
    /// The same of what was submitted while no fault was.
    pub quiet_latency: Latency,
    /// Microseconds in which nothing was disturbed, nor had been shortly before.
    pub quiet: u64,
    /// How processes that were told to leave did not do so.
    pub stayed: Vec<String>,
    /// Milliseconds from the end of all sessions until the stores were empty.
    pub emptied_ms: Option<u64>,
    /// What processes used before the load and after the drain.
    pub usage: BTreeMap<String, Usage>,
}

impl Verdict {
    /// Whether nothing is wrong, and that says something.
    pub fn is_good(&self) -> bool {
        self.violated.is_empty() && self.proves_nothing().is_none()
    }

    /// Why the run says nothing although nothing is violated.
    pub fn proves_nothing(&self) -> Option<&'static str> {
        if self.totals.acknowledged == 0 {
            Some("no message was acknowledged")
        } else if self.fault_count() == 0 && (!self.faults.is_empty() || self.variant.parse::<Variant>().is_ok()) {
            Some("no fault did what it should")
        } else {
            None
        }
    }

    /// Faults that were done as planned and met something.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().map(|kind| kind.count).sum()
    }

    /// Faults that met nothing.
    pub fn idle_count(&self) -> u64 {
        self.faults.values().map(|kind| kind.idle).sum()
    }

    /// Kinds of faults of which one at least did something.
    pub fn kind_count(&self) -> usize {
        self.faults.values().filter(|kind| kind.count > 0).count()
    }
}

/// Judges records in their order.
///
/// # Errors
/// A record cannot be read.
pub fn check(records: impl Iterator<Item = anyhow::Result<Record>>, faults: &Faults) -> anyhow::Result<Verdict> {
    let mut history = history::History::new(faults);
    for record in records {
        history.take(record?);
    }
    Ok(judge::judge(history, faults))
}

/// Judges the run in `folder`; `strict`: its figures too.
///
/// # Errors
/// It has no ledger or no log of faults.
pub fn check_folder(folder: &Path, strict: bool) -> anyhow::Result<(Verdict, Faults)> {
    let faults = events::read(folder)?;
    let mut verdict = check(ledger::read(folder)?, &faults)?;
    if strict {
        verdict.be_strict();
    }
    Ok((verdict, faults))
}
