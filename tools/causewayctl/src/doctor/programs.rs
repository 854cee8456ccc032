//! Whether all processes are of one program, and know the same tables.

use std::collections::BTreeMap;

use super::Patient;
use super::finding::{Check, Findings};

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    let told = || patient.seen.iter().filter_map(|seen| Some((seen, seen.health.as_ref().ok()?)));
    let mut programs = BTreeMap::<String, Vec<String>>::new();
    for (seen, health) in told() {
        programs.entry(health.program()).or_default().push(seen.name());
    }
    if programs.len() > 1 {
        let each: Vec<_> = programs.iter().map(|(program, who)| format!("{program}: {}", who.join(", "))).collect();
        findings.problem(
            Check::Versions,
            format!("processes run different programs; {}", each.join("; ")),
            "finish the upgrade, or take it back: a mixture is for the time of a rolling upgrade",
        );
    }
    if let Some(program) = programs.keys().next() {
        findings.fine_else(Check::Versions, format!("all processes run {program}"));
    }

    let mut tables = BTreeMap::<&str, BTreeMap<(&str, u32), Vec<String>>>::new();
    for (seen, health) in told() {
        for (name, of) in &health.tables {
            let users = tables.entry(name).or_default();
            users.entry((of.store.as_str(), of.version)).or_default().push(seen.name());
        }
    }
    for (name, versions) in &tables {
        if versions.len() > 1 {
            let each: Vec<_> =
                versions.iter().map(|((store, at), who)| format!("{store} version {at}: {}", who.join(", "))).collect();
            findings.problem(
                Check::Tables,
                format!("{name} is not the same for all; {}", each.join("; ")),
                "upgrade those with the older version; give all replicas the same store",
            );
        }
        for ((store, _), who) in versions.iter().filter(|((store, _), who)| *store == "sqlite" && who.len() > 1) {
            findings.problem(
                Check::Tables,
                format!("{name} is {store} in several processes, each of which has its own: {}", who.join(", ")),
                "run one of them, or set the store to postgres for all (docs/replicas.md)",
            );
        }
    }
    let each: Vec<_> = tables
        .iter()
        .flat_map(|(name, versions)| versions.keys().map(move |(store, at)| format!("{name} {store} version {at}")))
        .collect();
    if !each.is_empty() {
        findings.fine_else(Check::Tables, each.join(", "));
    }
}
