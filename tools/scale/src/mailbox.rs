//! What waits in mailboxes over a year: devices that are away for minutes, nights, holidays, or for good; messages that
//! expire after 30 days; at most 10,000 for a device.
//!
//! Time is in days. What is written only because a device did not acknowledge in time is erased in the same second: it
//! counts among writes, not among what waits.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

const YEAR: f64 = 365.0;
/// `routing.chat_expiry_ms`.
const EXPIRY: f64 = 30.0;
/// `routing.mailbox_messages`.
const BOUND: f64 = 10_000.0;

/// How long devices are away: a share of all times, and the mean of these, in days.
const AWAY: [(f64, f64); 4] = [(0.945, 1.0 / 24.0), (0.0542, 9.0 / 24.0), (0.0007, 4.0), (0.0001, 20.0)];
/// How long they stay, in the mean.
const HERE: f64 = 10.0 / 60.0 / 24.0;
/// Devices of a user that are lost or replaced, a year.
const LOST: f64 = 0.35;

/// How much is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) devices: u32,
    /// Messages to a device a day, in the mean over users, of whom some get far more.
    pub(crate) messages: f64,
    /// A device that was away for so many days is removed; `None`: never, as it is built.
    pub(crate) removed_after: Option<f64>,
}

/// What came of it, for a device in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mailboxes {
    /// What waits at the end of each day.
    pub(crate) waiting: Vec<f64>,
    /// Of this at the end of the year, share that waits for devices that are gone.
    pub(crate) for_gone: f64,
    /// Messages a year that waited and were fetched, that expired, and that were refused because a mailbox was full.
    pub(crate) fetched: f64,
    pub(crate) expired: f64,
    pub(crate) refused: f64,
    /// Share of users at the end of the year to whom nobody can write, since a mailbox of theirs is full.
    pub(crate) blocked: f64,
    /// The most that waited for one device.
    pub(crate) most: f64,
    /// Devices that are gone and still enlisted.
    pub(crate) gone: f64,
}

/// Runs it.
pub(crate) fn simulate(size: Size, seed: u64) -> Mailboxes {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut all = Mailboxes { waiting: vec![0.0; YEAR as usize], ..Mailboxes::default() };
    for _ in 0..size.devices {
        // Log-normal with a mean of 1.
        let spread = 1.0_f64;
        let rate = size.messages * (spread * normal(&mut random) - spread * spread / 2.0).exp();
        user(size, rate, &mut random, &mut all);
    }
    let each = f64::from(size.devices);
    all.for_gone /= all.waiting.last().copied().unwrap_or(0.0).max(1.0);
    for sum in all.waiting.iter_mut().chain([
        &mut all.fetched,
        &mut all.expired,
        &mut all.refused,
        &mut all.blocked,
        &mut all.gone,
    ]) {
        *sum /= each;
    }
    all
}

/// A user's device, and those that take its place.
fn user(size: Size, rate: f64, random: &mut SmallRng, all: &mut Mailboxes) {
    let lost_each = -YEAR / LOST;
    let mut lost_at = lost_each * uniform(random).ln();
    let mut blocked = false;
    let mut now = random.random_range(0.0..1.0);
    while now < YEAR {
        now -= HERE * uniform(random).ln();
        if now >= lost_at {
            let removed = size.removed_after.map_or(f64::INFINITY, |after| lost_at + after);
            blocked |= wait(rate, lost_at, removed, true, all);
            lost_at = now - lost_each.abs() * uniform(random).ln();
            continue;
        }
        let back = now + away(random);
        let removed = size.removed_after.map_or(f64::INFINITY, |after| now + after);
        blocked |= wait(rate, now, back.min(removed), false, all);
        now = back;
    }
    all.blocked += f64::from(u8::from(blocked));
}

/// What a device's absence does to its mailbox. True if it is full at the end of the year.
fn wait(rate: f64, from: f64, until: f64, gone: bool, all: &mut Mailboxes) -> bool {
    let waiting = |at: f64| (rate * (at - from).min(EXPIRY)).min(BOUND);
    let end = until.min(YEAR);
    let first = from.ceil() as usize;
    for day in first..=(end.floor() as usize) {
        // At the end of each day, of which the first is number 0.
        if let Some(sum) = day.checked_sub(1).and_then(|day| all.waiting.get_mut(day)) {
            *sum += waiting(day as f64);
        }
    }
    let left = waiting(end);
    all.most = all.most.max(left);
    // What came and is not there any more has expired, but for what never got in.
    let came = rate * (end - from);
    let refused = (came - BOUND * ((end - from) / EXPIRY).max(1.0)).max(0.0);
    all.refused += refused;
    all.expired += (came - refused - left).max(0.0);
    let still = until >= YEAR;
    if gone && still {
        all.gone += 1.0;
        all.for_gone += left;
    }
    if !gone && !still {
        all.fetched += left;
    }
    still && left >= BOUND
}

fn away(random: &mut SmallRng) -> f64 {
    let mut share = random.random_range(0.0..1.0);
    for (of, mean) in AWAY {
        if share < of {
            return -mean * uniform(random).ln();
        }
        share -= of;
    }
    -AWAY[0].1 * uniform(random).ln()
}

/// Never 0.
fn uniform(random: &mut SmallRng) -> f64 {
    1.0 - random.random_range(0.0..1.0)
}

fn normal(random: &mut SmallRng) -> f64 {
    (-2.0 * uniform(random).ln()).sqrt() * (std::f64::consts::TAU * uniform(random)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(messages: f64, removed_after: Option<f64>) -> Mailboxes {
        simulate(Size { devices: 300, messages, removed_after }, 1)
    }

    #[test]
    fn no_mailbox_holds_more_than_its_bounds() {
        for messages in [1.0, 100.0, 5_000.0] {
            let found = year(messages, None);
            assert!(found.most <= BOUND, "{found:?}");
            assert!(found.waiting.iter().all(|waiting| (0.0..=BOUND * (1.0 + LOST * 4.0)).contains(waiting)));
        }
    }

    #[test]
    fn what_waits_for_devices_that_are_gone_grows_unless_they_are_removed() {
        let (kept, removed) = (year(90.0, None), year(90.0, Some(30.0)));
        assert!(kept.for_gone > 0.8 && kept.waiting[364] > 2.0 * kept.waiting[89], "{kept:?}");
        assert!(removed.waiting[364] < kept.waiting[364] / 2.0 && removed.gone < kept.gone / 2.0, "{removed:?}");
    }

    #[test]
    fn who_gets_much_and_has_lost_a_device_is_blocked() {
        assert!(year(5_000.0, None).blocked > 0.1);
        assert!(year(1.0, None).blocked == 0.0);
    }

    #[test]
    fn a_seed_says_all() {
        assert_eq!(format!("{:?}", year(90.0, None)), format!("{:?}", year(90.0, None)));
    }
}
