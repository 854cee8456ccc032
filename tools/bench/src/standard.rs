//! The standard set: what `make bench` runs.

use std::path::Path;

use clap::Parser as _;

use crate::arguments::{Arguments, Command, Options};
use crate::scenario::Scenario;

/// Each line as it would be given to `causeway-bench run`.
const SET: &[&str] = &[
    "pairs",
    "pairs --deployment split",
    "rate",
    "rate --deployment split",
    "fanout --repeat 2",
    "idle",
    "login-xx",
    "login-ik",
    "store",
    "store --deployment split --store postgres",
    "drain --repeat 2",
    "claim --seconds 1.5 --warm-up 0.5 --targets 800",
    "growth --pairs 5000 --seconds 3",
    "storm --seconds 4 --repeat 2",
    "mixed --repeat 2",
];

/// The scenarios of the set, and how each is run.
pub(crate) fn set(server: &Path) -> anyhow::Result<Vec<(Scenario, Options)>> {
    let mut set = Vec::new();
    for line in SET {
        let words = ["causeway-bench", "run"].into_iter().chain(line.split(' '));
        let Command::Run { scenarios, options, .. } = Arguments::try_parse_from(words)?.command else { continue };
        let options = Options { server: server.to_owned(), ..*options };
        set.extend(scenarios.into_iter().map(|scenario| (scenario, options.clone())));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_understood_and_every_work_is_in_it() {
        let set = set(Path::new("x")).unwrap();
        assert_eq!(set.len(), SET.len());
        for scenario in <Scenario as clap::ValueEnum>::value_variants() {
            assert!(set.iter().any(|(one, _)| one == scenario), "{scenario:?}");
        }
        assert!(set.iter().all(|(_, options)| options.server == Path::new("x")));
    }
}
