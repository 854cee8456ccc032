//! Bugs on purpose, so that the ledger test (tests/faults) can be seen to find them. Without the feature `planted-bugs`,
//! which no release has, nothing here does anything. With it, `CAUSEWAY_PLANTED_BUG` names one.

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn is(bug: &str) -> bool {
    static BUG: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());
    BUG.as_deref() == Some(bug)
}

#[cfg(feature = "planted-bugs")]
const VARIABLE: &str = "CAUSEWAY_PLANTED_BUG";

/// No bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is(_bug: &str) -> bool {
    false
}
