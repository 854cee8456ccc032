//! What a run has shown.

pub(crate) mod compare;
pub(crate) mod document;
pub(crate) mod figure;
pub(crate) mod machine;
pub(crate) mod progress;
pub(crate) mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::run::Use;

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

impl Run {
    /// How it was set up.
    pub(crate) fn parameter(&mut self, name: &str, value: &dyn std::fmt::Display) {
        self.parameters.insert(name.to_owned(), value.to_string());
    }

    /// A figure.
    pub(crate) fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// One with a goal, if there is one for this deployment.
    pub(crate) fn goal(&mut self, figure: Figure, goal: Option<Goal>) {
        self.figure(match goal {
            Some(goal) => figure.goal(goal),
            None => figure,
        });
    }

    /// What a reader has to know besides.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// What each role used for each of so many, and what the generator did.
    pub(crate) fn processors(&mut self, uses: &[Use], numbers: &[u64], of: &str) {
        let each = |nanoseconds: u64, number: u64| (number > 0).then(|| nanoseconds as f64 / 1e3 / number as f64);
        let roles = uses.first().map(|one| one.processor.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
        if roles.len() > 1 {
            for role in roles {
                let values =
                    uses.iter().zip(numbers).filter_map(|(one, number)| each(*one.processor.get(role)?, *number));
                self.figure(Figure::new(&format!("of which {role}"), Unit::Us, values));
            }
        }
        let values = uses.iter().zip(numbers).filter_map(|(one, number)| each(one.generator, *number));
        self.figure(Figure::new(&format!("CPU of the load generator {of}"), Unit::Us, values));
    }
}
