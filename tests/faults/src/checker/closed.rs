//! When an account was certainly closed to whom.

use super::history::Account;
use crate::ledger::Consent;

/// A request to open whose answer never came may still be carried out for this long, in microseconds.
const LATE: u64 = 60_000_000;

/// Times, from a confirmed closing to the next request to open, in which users of `provider` could not reach the account.
/// With `outward`: in which the account itself could reach nobody.
pub(super) fn times(account: &Account, provider: u32, outward: bool) -> Vec<(u64, u64)> {
    let is_open = |rule: Consent| if outward { rule != Consent::Off } else { rule.admits(provider) };
    let mut times: Vec<(u64, u64)> = Vec::new();
    let mut closed: Option<u64> = None;
    // Until when an unanswered request to open may be carried out.
    let mut doubt = 0;
    for change in &account.changes {
        if is_open(change.rule) {
            if let Some(from) = closed.take() {
                times.push((from.max(doubt), change.asked));
            }
            if !change.ok {
                doubt = doubt.max(change.asked.saturating_add(LATE));
            }
        } else if change.ok && closed.is_none() {
            closed = change.answered;
        }
    }
    if let Some(from) = closed {
        times.push((from.max(doubt), u64::MAX));
    }
    times.retain(|(from, to)| from < to);
    times
}

/// Whether the account may have been closed at some time between these: from when closing is asked for until opening is
/// confirmed.
pub(super) fn maybe(account: &Account, provider: u32, outward: bool, from: u64, to: u64) -> bool {
    let is_open = |rule: Consent| if outward { rule != Consent::Off } else { rule.admits(provider) };
    let mut closed: Option<u64> = None;
    for change in &account.changes {
        if !is_open(change.rule) {
            closed.get_or_insert(change.asked);
        } else if change.ok
            && let Some(begin) = closed.take()
            && begin <= to
            && change.answered.is_none_or(|answered| answered >= from)
        {
            return true;
        }
    }
    closed.is_some_and(|begin| begin <= to)
}

#[cfg(test)]
mod tests {
    use super::super::history::Change;
    use super::*;

    fn account(changes: &[(u64, u64, Consent, bool)]) -> Account {
        let changes = changes.iter().map(|(asked, answered, rule, ok)| Change {
            asked: *asked,
            answered: Some(*answered),
            rule: *rule,
            ok: *ok,
        });
        Account { provider: 0, changes: changes.collect() }
    }

    #[test]
    fn closed_is_from_the_answer_to_the_next_request_to_open() {
        let account = account(&[
            (10, 20, Consent::All, true),
            (30, 40, Consent::NotProvider(1), true),
            (50, 60, Consent::Nobody, true),
            (70, 80, Consent::All, true),
            (90, 95, Consent::Off, false),
        ]);
        assert_eq!(times(&account, 1, false), [(40, 70)]);
        assert_eq!(times(&account, 2, false), [(60, 70)]);
        assert_eq!(times(&account, 1, true), []);
    }

    #[test]
    fn an_unanswered_opening_casts_doubt_on_what_follows() {
        let account =
            account(&[(10, 20, Consent::All, false), (30, 40, Consent::Off, true), (LATE * 2, 0, Consent::All, true)]);
        assert_eq!(times(&account, 0, false), [(10 + LATE, LATE * 2)]);
        assert_eq!(times(&account, 0, true), [(10 + LATE, LATE * 2)]);
    }

    #[test]
    fn perhaps_closed_is_from_the_request_to_the_confirmed_opening() {
        let account = account(&[(30, 40, Consent::Nobody, true), (70, 80, Consent::All, true)]);
        assert!(
            maybe(&account, 1, false, 0, 30) && maybe(&account, 1, false, 80, 90) && maybe(&account, 1, false, 50, 60)
        );
        assert!(!maybe(&account, 1, false, 0, 29) && !maybe(&account, 1, false, 81, 90));
        assert!(!maybe(&account, 1, true, 50, 60));
    }
}
