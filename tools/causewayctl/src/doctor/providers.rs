//! Whether providers are registered and their token keys come.

use super::finding::{Check, Findings};
use crate::screen::duration;
use crate::view::Keys;

/// Keys are fetched every some minutes; older ones were not, whatever is said of them.
const OLD_MS: u64 = 2 * 60 * 60 * 1_000;

pub(super) fn check(asked: anyhow::Result<Option<Vec<Keys>>>, now_ms: u64, findings: &mut Findings) {
    let all = match asked {
        Ok(Some(all)) => all,
        Ok(None) => {
            findings.note(Check::Providers, "not checked: give --operator and --operator-token-file");
            return;
        }
        Err(error) => {
            let act = "see that key-directory runs, and correct --operator and what goes with it";
            findings.problem(Check::Providers, format!("{error}"), act);
            return;
        }
    };
    if all.is_empty() {
        findings.note(Check::Providers, "none is registered yet: causewayctl provider register");
        return;
    }
    let live = || all.iter().filter(|keys| !keys.suspended);
    if !live().any(|keys| keys.home) {
        findings.note(Check::Providers, "no home provider is live: messages go only between home and other providers");
    }
    for keys in live() {
        let domain = &keys.domain;
        let ago = match keys.fetched_ms {
            0 => "never".to_owned(),
            fetched => format!("{} ago", duration(now_ms.saturating_sub(fetched) as f64 / 1e3)),
        };
        if !keys.error.is_empty() {
            findings.problem(
                Check::Providers,
                format!("{domain}: its token keys cannot be fetched: {}; fetched last: {ago}", keys.error),
                "tell the provider, and see whether key-directory reaches its issuer; its users' logins go on for directory.keys_stale_ms",
            );
        } else if keys.count == 0 {
            let says = format!("{domain}: it has no token keys, so nobody of it can log in");
            findings.problem(Check::Providers, says, "tell the provider: its JWKS has no key that can be used");
        } else if now_ms.saturating_sub(keys.fetched_ms) > OLD_MS {
            let says = format!("{domain}: its token keys were fetched last: {ago}");
            findings.problem(
                Check::Providers,
                says,
                "see that key-directory runs and is not degraded, and what its log says",
            );
        }
    }
    let suspended = all.iter().filter(|keys| keys.suspended).count();
    let more = if suspended > 0 { format!(", {suspended} suspended") } else { String::new() };
    findings.fine_else(Check::Providers, format!("{} live with fresh token keys{more}", all.len() - suspended));
}
