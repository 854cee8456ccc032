//! Bugs that the histories must find.

/// A bug around the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// Results are told before the commit.
    StoredBeforeCommit,
    /// A commit that failed is told as done.
    CommitErrorIgnored,
    /// What a session that ends has not acknowledged is not written.
    DetachDropsWindow,
    /// Two deliveries to a session change places.
    SwappedDeliveries,
    /// A reading passes over its first entry.
    PageSkipsEntry,
    /// An acknowledgement erases one entry too many.
    ForgetsTooMuch,
    /// An entry of another device is shown.
    WrongDevice,
    /// Acknowledgements of what has not been given count.
    AcknowledgedTooMuch,
    /// A write is forgotten and told as done.
    LostWrite,
    /// The store takes writes of replicas that do not own the account.
    NotFenced,
    /// A replica decides although its lease has ended.
    DecidesWithoutLease,
}

impl Planted {
    pub(super) const ALL: [Self; 11] = [
        Self::StoredBeforeCommit,
        Self::CommitErrorIgnored,
        Self::DetachDropsWindow,
        Self::SwappedDeliveries,
        Self::PageSkipsEntry,
        Self::ForgetsTooMuch,
        Self::WrongDevice,
        Self::AcknowledgedTooMuch,
        Self::LostWrite,
        Self::NotFenced,
        Self::DecidesWithoutLease,
    ];
}
