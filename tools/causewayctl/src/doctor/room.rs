//! Whether there is room in what is bounded, and all edges are linked to all routings.

use super::Patient;
use super::finding::{Check, Findings};
use crate::screen::{duration, percent};

/// Fuller than this is a problem.
const FULL: f64 = 0.8;

/// What is used, its bound, what it is, and what makes room.
const BOUNDED: &[(&str, &str, &str, &str)] = &[
    (
        "process_unix_file_descriptor_count",
        "causeway_process_file_descriptors_limit",
        "its open descriptors",
        "raise the limit (LimitNOFILE, ulimit -n), or run more replicas",
    ),
    (
        "causeway_edge_pending_bytes",
        "causeway_edge_pending_limit_bytes",
        "the memory of messages that wait for outcomes",
        "see whether routings and their store are slow (causewayctl top), or run more edges",
    ),
    (
        "causeway_edge_queued_bytes",
        "causeway_edge_queued_limit_bytes",
        "the memory of messages that wait for clients",
        "run more edges: clients read more slowly than they are written to",
    ),
    (
        "causeway_routing_memory_bytes",
        "causeway_routing_memory_limit_bytes",
        "the memory of messages",
        "see whether its store is slow (causewayctl top), or run more routings",
    ),
];

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    let counting = patient.seen.iter().filter(|seen| !seen.metrics.is_empty()).count();
    let silent = patient.seen.iter().filter(|seen| seen.health.is_ok() && seen.metrics.is_empty());
    for seen in silent {
        findings.note(Check::Room, format!("{} does not count anything: telemetry.metrics may be off", seen.name()));
    }
    for seen in patient.seen {
        for (used, limit, what, act) in BOUNDED {
            let (Some(used), Some(limit)) = (seen.metrics.sum(used, &[]), seen.metrics.sum(limit, &[])) else {
                continue;
            };
            let share = used / limit.max(1.0);
            if share > FULL {
                findings.problem(
                    Check::Room,
                    format!("{}: {what} at {} of the bound", seen.name(), percent(share)),
                    *act,
                );
            }
        }
        if let Some(out) = seen.metrics.sum("causeway_routing_lease_out_seconds", &[]).filter(|out| *out > 0.0) {
            findings.problem(
                Check::Room,
                format!("{}: its store has not let it decide for {}", seen.name(), duration(out)),
                "see that routing's database runs and takes writes (routing.postgres.url)",
            );
        }
    }
    if counting > 0 {
        findings
            .fine_else(Check::Room, format!("{counting} processes use less than {} of their bounds", percent(FULL)));
    }

    let routings = patient.seen.iter().filter(|seen| seen.service() == "routing").count();
    let mut edges = 0;
    for seen in patient.seen.iter().filter(|seen| seen.service() == "edge" && routings > 0) {
        let Some(links) = seen.metrics.sum("causeway_edge_links", &[("state", "up")]) else { continue };
        edges += 1;
        if links < routings as f64 {
            findings.problem(
                Check::Links,
                format!("{} is linked to {links} routings, and {routings} were found", seen.name()),
                "see that its server.routing_urls names all of them, and that it can reach each",
            );
        }
    }
    if edges > 0 {
        findings.fine_else(Check::Links, format!("{edges} edges are linked to all {routings} routings"));
    }
}
