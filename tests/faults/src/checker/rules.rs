//! The rules one by one, and how often each had something to judge: a rule that never had has shown nothing.

use serde::{Deserialize, Serialize};

use super::Invariant;

/// One thing that is asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Acknowledged is shown.
    Kept,
    /// Rejected is nowhere.
    Nowhere,
    /// Shown once.
    ShownOnce,
    /// A repeat on the wire has a reason.
    RepeatHasReason,
    /// Sent by that sender to that device.
    Addressed,
    /// Tags rise by one.
    Tags,
    /// In order.
    InOrder,
    /// Not to those who are closed.
    Closed,
    /// Not to those who are removed.
    Removed,
    /// Opens with that device's key.
    Opens,
    /// `delivered` is true.
    Delivered,
    /// An outcome names a message of its session.
    OwnOutcome,
    /// A tag that was never sent is not taken.
    WrongTag,
    /// Not to an older session.
    OlderSession,
    /// Only a later login replaces a session.
    Replaced,
    /// A prekey goes out once.
    PrekeyOnce,
    /// All finish.
    Finished,
    /// Mailboxes are empty.
    Mailboxes,
    /// Presence is empty.
    Presence,
    /// Faults are recovered from.
    Recovered,
    /// Processes leave when told to.
    Leaves,
    /// Media are byte for byte what was uploaded.
    MediaBytes,
    /// Media servers answer rightly.
    MediaAnswers,
    /// What is stored can be fetched.
    MediaKept,
    /// Logs are clean.
    Logs,
    /// Processes live.
    Alive,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::Kept,
        Self::Nowhere,
        Self::ShownOnce,
        Self::RepeatHasReason,
        Self::Addressed,
        Self::Tags,
        Self::InOrder,
        Self::Closed,
        Self::Removed,
        Self::Opens,
        Self::Delivered,
        Self::OwnOutcome,
        Self::WrongTag,
        Self::OlderSession,
        Self::Replaced,
        Self::PrekeyOnce,
        Self::Finished,
        Self::Mailboxes,
        Self::Presence,
        Self::Recovered,
        Self::Leaves,
        Self::MediaBytes,
        Self::MediaAnswers,
        Self::MediaKept,
        Self::Logs,
        Self::Alive,
    ];

    /// What it is part of.
    pub const fn invariant(self) -> Invariant {
        match self {
            Self::Kept => Invariant::Loss,
            Self::Nowhere => Invariant::Rejected,
            Self::ShownOnce | Self::RepeatHasReason => Invariant::Once,
            Self::Addressed | Self::Tags => Invariant::Origin,
            Self::InOrder => Invariant::Order,
            Self::Closed | Self::Removed => Invariant::Consent,
            Self::Opens => Invariant::Account,
            Self::Delivered | Self::OwnOutcome | Self::WrongTag => Invariant::Acks,
            Self::OlderSession | Self::Replaced => Invariant::Session,
            Self::PrekeyOnce => Invariant::Keys,
            Self::Finished | Self::Mailboxes | Self::Presence | Self::Recovered | Self::Leaves => Invariant::Progress,
            Self::MediaBytes | Self::MediaAnswers | Self::MediaKept => Invariant::Media,
            Self::Logs | Self::Alive => Invariant::Silence,
        }
    }

    /// What is asserted, and of what it is counted.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Kept => "each acknowledged message on each of its devices is shown",
            Self::Nowhere => "each message that was rejected, sent once and with no fault near, is nowhere",
            Self::ShownOnce => "each message shown on a device of the SDK is shown once",
            Self::RepeatHasReason => "each repeat on the wire has a fault or a lost session before it",
            Self::Addressed => "each delivery was sent, to that device",
            Self::Tags => "each delivery has the next tag",
            Self::InOrder => "each message shown after another of its sender is behind it",
            Self::Closed => "each message decided while consent was closed is nowhere",
            Self::Removed => {
                "each message that names a removed device does not come there, and each login of one is refused"
            }
            Self::Opens => "each body opens on its device and names it",
            Self::Delivered => "each device of a `delivered` message has acknowledged it",
            Self::OwnOutcome => "each outcome is of a message of its session",
            Self::WrongTag => "each acknowledgement of a tag never sent ends the session",
            Self::OlderSession => {
                "each session that ends beside a newer one was given nothing that was sent after that began"
            }
            Self::Replaced => "each session that is told `replaced` has a login of its device that began later",
            Self::PrekeyOnce => "each one-time prekey goes out once",
            Self::Finished => "each device finishes, and nothing waits for it",
            Self::Mailboxes => "each look into the mailboxes after the drain finds none",
            Self::Presence => "each look into presence after the drain finds none",
            Self::Recovered => "each fault that was felt is recovered from in time",
            Self::Leaves => "each process that is told to leave with no other fault near does so, in time",
            Self::MediaBytes => "each file that is fetched is what was uploaded",
            Self::MediaAnswers => "each upload and download with no fault near is not refused",
            Self::MediaKept => "each file that is stored can be fetched when all is healed",
            Self::Logs => "each line of the logs is without a panic and a name",
            Self::Alive => "each run is without a process that ends by itself",
        }
    }
}
