//! What a run has shown.

pub(crate) mod document;
pub(crate) mod figure;
pub(crate) mod machine;
pub(crate) mod progress;
pub(crate) mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use self::figure::{Figure, Goal, Unit};
use self::machine::Machine;

/// All runs of one call of this program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where and when.
    pub(crate) machine: Machine,
    /// What was set otherwise than by default.
    pub(crate) settings: String,
    /// The runs.
    pub(crate) runs: Vec<Run>,
}

/// One scenario on one deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The scenario's name.
    pub(crate) scenario: String,
    /// What it was run against: `all, sqlite`, or a peer's name.
    pub(crate) deployment: String,
    /// How it was set up.
    pub(crate) parameters: BTreeMap<String, String>,
    /// What was measured.
    pub(crate) figures: Vec<Figure>,
    /// What a reader has to know besides.
    pub(crate) notes: Vec<String>,
}
