//! What checks find.

use serde::Serialize;

/// What is checked, in the order of telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Check {
    Processes,
    Parts,
    Versions,
    Tables,
    Certificates,
    Roots,
    Clocks,
    Room,
    Links,
    Addresses,
    Providers,
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub(super) enum Finding {
    /// All that it looked at is as it should be.
    Fine { check: Check, says: String },
    /// It could not look, or something is unusual.
    Note { check: Check, says: String },
    /// Something is wrong, and this mends it.
    Problem { check: Check, says: String, act: String },
}

/// All of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    findings: Vec<Finding>,
    problems: usize,
}

impl Check {
    pub(super) const ALL: [Self; 11] = [
        Self::Processes,
        Self::Parts,
        Self::Versions,
        Self::Tables,
        Self::Certificates,
        Self::Roots,
        Self::Clocks,
        Self::Room,
        Self::Links,
        Self::Addresses,
        Self::Providers,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Parts => "parts",
            Self::Versions => "versions",
            Self::Tables => "tables",
            Self::Certificates => "certificates",
            Self::Roots => "roots",
            Self::Clocks => "clocks",
            Self::Room => "room",
            Self::Links => "links",
            Self::Addresses => "addresses",
            Self::Providers => "providers",
        }
    }
}

impl Finding {
    fn check(&self) -> Check {
        match self {
            Self::Fine { check, .. } | Self::Note { check, .. } | Self::Problem { check, .. } => *check,
        }
    }

    pub(super) fn says(&self) -> &str {
        match self {
            Self::Fine { says, .. } | Self::Note { says, .. } | Self::Problem { says, .. } => says,
        }
    }

    /// What to do.
    pub(super) fn act(&self) -> Option<&str> {
        match self {
            Self::Problem { act, .. } => Some(act),
            Self::Fine { .. } | Self::Note { .. } => None,
        }
    }
}

impl Findings {
    pub(super) fn problem(&mut self, check: Check, says: impl Into<String>, act: impl Into<String>) {
        self.problems += 1;
        self.findings.push(Finding::Problem { check, says: says.into(), act: act.into() });
    }

    pub(super) fn note(&mut self, check: Check, says: impl Into<String>) {
        self.findings.push(Finding::Note { check, says: says.into() });
    }

    pub(super) fn fine(&mut self, check: Check, says: impl Into<String>) {
        self.findings.push(Finding::Fine { check, says: says.into() });
    }

    /// Says so, unless the check has found something.
    pub(super) fn fine_else(&mut self, check: Check, says: impl Into<String>) {
        if self.of(check).next().is_none() {
            self.fine(check, says);
        }
    }

    pub(super) fn of(&self, check: Check) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.check() == check)
    }

    pub(super) fn problems(&self) -> usize {
        self.problems
    }
}
