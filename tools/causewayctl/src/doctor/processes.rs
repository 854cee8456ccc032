//! Whether all processes answer and serve, and all their parts work.

use std::collections::BTreeMap;

use super::Patient;
use super::finding::{Check, Findings};

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    if patient.seen.is_empty() {
        findings.note(Check::Processes, "none was asked: set server.health_listen, or give --target http://host:port");
        return;
    }
    let mut serving = BTreeMap::<&str, usize>::new();
    for seen in patient.seen {
        let name = seen.name();
        let health = match &seen.health {
            Ok(health) => health,
            Err(problem) => {
                let act = "start the process, or look at its log; or correct the address that doctor was given";
                findings.problem(Check::Processes, format!("{name} {problem}"), act);
                continue;
            }
        };
        *serving.entry(seen.service()).or_default() += 1;
        match health.status.as_str() {
            "ready" | "degraded" => {}
            "starting" => findings.problem(
                Check::Processes,
                format!("{name} is starting and does not serve yet"),
                "wait; if it stays so, look at its log for what it misses: providers, a routing, a store",
            ),
            "draining" => findings.problem(
                Check::Processes,
                format!("{name} is stopping"),
                "nothing if it is meant to; else look at its log, and at who sends it SIGTERM",
            ),
            other => findings.problem(
                Check::Processes,
                format!("{name} is in the state {other}, which this tool does not know"),
                "use a causewayctl of the same version",
            ),
        }
        for (part, meaning) in health.degraded() {
            findings.problem(Check::Parts, format!("{name}: {part} does not work: {meaning}"), act(part));
        }
    }
    let serving: Vec<_> = serving.iter().map(|(service, count)| format!("{count} {service}")).collect();
    findings.fine_else(Check::Processes, format!("all answer and serve: {}", serving.join(", ")));
    if !serving.is_empty() {
        findings.fine_else(Check::Parts, "all parts of all processes work");
    }
}

/// What mends a part.
fn act(part: &str) -> &'static str {
    match part {
        "server.tls" => "put a good certificate, key and authority into the files of server.tls; no restart is needed",
        "edge.certificate" => {
            "sign a new one (causewayctl keys certify) and put it into edge.certificate_file of all edges"
        }
        "edge.routing" => "see that routings run, and that server.routing_urls of the edge names them",
        "routing.mailbox" => "see that routing's database runs and takes writes (routing.postgres.url), and has room",
        "routing.advertise_url" => "give each routing a routing.advertise_url of its own",
        "directory.replicas" => {
            "see that key-directory's database runs and takes writes (directory.postgres.url), and has room"
        }
        "directory.epoch" => {
            "find out who else writes to key-directory's Redis, and delete the key that the text names"
        }
        part if part.ends_with(".redis") => "see that Redis runs and answers at the addresses of this section",
        _ => "look at the log of the process",
    }
}
