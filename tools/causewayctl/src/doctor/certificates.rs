//! Whether certificates are good for some time, and edges' are of the roots that clients pin.

use std::collections::BTreeMap;

use causeway_identity::RootPublicKey;

use super::Patient;
use super::finding::{Check, Findings};
use crate::screen::duration;

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    let mut soonest: Option<(u64, String)> = None;
    let mut roots = BTreeMap::<String, Vec<String>>::new();
    for seen in patient.seen {
        let Ok(health) = &seen.health else { continue };
        for (name, certificate) in &health.certificates {
            let (from, until, now) = (certificate.not_before, certificate.not_after, patient.now_ms);
            let left = until.saturating_sub(now);
            let whole = until.saturating_sub(from);
            let span = |ms: u64| duration(ms as f64 / 1e3);
            let warning = u64::try_from(patient.expiry.as_millis()).unwrap_or(u64::MAX).min(whole / 4);
            let what = format!("{} of {}", name, seen.name());
            if left == 0 {
                let says = format!("{what} has expired {} ago", span(now.saturating_sub(until)));
                findings.problem(Check::Certificates, says, renew(name));
            } else if now < from {
                let says = format!("{what} is good only in {}", span(from - now));
                findings.problem(
                    Check::Certificates,
                    says,
                    "put one that is good now into its place, or mend the clocks",
                );
            } else if left < warning {
                let says = format!("{what} expires in {}", span(left));
                findings.problem(Check::Certificates, says, renew(name));
            }
            if soonest.as_ref().is_none_or(|(least, _)| left < *least) {
                soonest = Some((left, what));
            }
            if let Some(root) = &certificate.root {
                roots.entry(root.clone()).or_default().push(seen.name());
            }
        }
    }
    match soonest {
        Some((left, what)) => {
            let says = format!("the first to expire is {what}, in {}", duration(left as f64 / 1e3));
            findings.fine_else(Check::Certificates, says);
        }
        None => findings.note(Check::Certificates, "no process that was asked has told of one"),
    }
    check_roots(patient.roots, &roots, findings);
}

fn renew(name: &str) -> &'static str {
    match name {
        "edge.certificate" => {
            "sign a new one (causewayctl keys certify) and put it into edge.certificate_file of all edges"
        }
        _ => {
            "put a new certificate and key into the files of server.tls (causewayctl keys new-tls-certificate, or your authority)"
        }
    }
}

fn check_roots(pinned: &[RootPublicKey], found: &BTreeMap<String, Vec<String>>, findings: &mut Findings) {
    if found.is_empty() {
        return;
    }
    for (root, edges) in found {
        if !pinned.is_empty() && !pinned.iter().any(|pinned| hex::encode(pinned.id()) == *root) {
            findings.problem(
                Check::Roots,
                format!("the certificate of {} is by root {root}, which was not given with --root", edges.join(", ")),
                "sign a certificate with a root that clients pin, and put it into edge.certificate_file of all edges",
            );
        }
    }
    if found.len() > 1 {
        let each: Vec<_> = found.iter().map(|(root, edges)| format!("{root}: {}", edges.join(", "))).collect();
        findings.problem(
            Check::Roots,
            format!("edges have certificates of different roots; {}", each.join("; ")),
            "give all edges the same certificate, unless clients pin all these roots",
        );
    }
    let root = found.keys().next().map_or("", String::as_str);
    match pinned.is_empty() {
        true => findings
            .fine_else(Check::Roots, format!("all edges have a certificate by root {root} (not compared: no --root)")),
        false => {
            findings.fine_else(Check::Roots, format!("all edges have a certificate by root {root}, which was given"))
        }
    }
}
