//! The sets of works that `make bench` and `make bench-peers` run.

use std::path::Path;

use clap::Parser as _;

use crate::arguments::{Arguments, Command, Options};
use crate::scenario::Scenario;
use crate::subject::Kind;

/// Works of `make bench`, each line as it would be given to `causeway-bench run`.
const STANDARD: &[&str] = &[
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
    "claim --seconds 1.5 --warm-up 0.5 --targets 1600",
    "growth --pairs 5000 --seconds 3",
    "storm --seconds 4 --repeat 2",
    "mixed --repeat 2",
];

/// Works of `make bench-peers`. All servers do the same work one right after the other; Causeway comes first.
const PEERS: &[&str] = &[
    "pairs",
    "pairs --deployment ejabberd",
    "pairs --deployment mosquitto",
    "rate",
    "rate --deployment ejabberd",
    "rate --deployment mosquitto",
    "login-xx",
    "login-xx --deployment ejabberd",
    "login-xx --deployment mosquitto",
    "idle --sessions 4000",
    "idle --sessions 4000 --deployment ejabberd",
    "idle --sessions 4000 --deployment mosquitto",
    "store --store-messages 20000",
    "store --store-messages 20000 --deployment ejabberd --repeat 1",
    "store --store-messages 20000 --deployment mosquitto",
    "store --store-messages 20000 --store postgres",
    "store --store-messages 20000 --store postgres --deployment ejabberd --repeat 2",
];

/// The scenarios of the standard set, and how each is run.
pub(crate) fn standard(server: &Path) -> anyhow::Result<Vec<(Scenario, Options)>> {
    set(STANDARD, server)
}

/// The same of the set that compares, without some of the servers.
pub(crate) fn peers(server: &Path, without: &[Kind]) -> anyhow::Result<Vec<(Scenario, Options)>> {
    let mut set = set(PEERS, server)?;
    set.retain(|(_, options)| !without.contains(&options.deployment));
    Ok(set)
}

fn set(lines: &[&str], server: &Path) -> anyhow::Result<Vec<(Scenario, Options)>> {
    let mut set = Vec::new();
    for line in lines {
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
        let set = standard(Path::new("x")).unwrap();
        assert_eq!(set.len(), STANDARD.len());
        for scenario in <Scenario as clap::ValueEnum>::value_variants() {
            assert!(set.iter().any(|(one, _)| one == scenario), "{scenario:?}");
        }
        assert!(set.iter().all(|(_, options)| options.server == Path::new("x")));
    }

    #[test]
    fn every_server_does_what_causeway_does() {
        let set = peers(Path::new("x"), &[]).unwrap();
        assert_eq!(set.len(), PEERS.len());
        let works = |kind| set.iter().filter(move |(_, options)| options.deployment == kind).map(|(work, _)| *work);
        for kind in [Kind::Ejabberd, Kind::Mosquitto] {
            assert!(works(Kind::All).all(|work| works(kind).any(|one| one == work)), "{kind:?}");
        }
        let ours = peers(Path::new("x"), &[Kind::Ejabberd, Kind::Mosquitto]).unwrap();
        assert!(!ours.is_empty() && ours.iter().all(|(_, options)| options.deployment == Kind::All));
    }
}
