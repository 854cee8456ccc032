//! Who owns which account among many routings: the edges' own code, over names as deployments have them.

use std::cell::Cell;
use std::collections::BTreeMap;

use causeway_edge::rendezvous::{Chosen, choose};

/// How much is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) replicas: u64,
    pub(crate) accounts: u64,
    /// Replicas that are restarted at a time.
    pub(crate) batch: u64,
}

/// What came of it; shares are of all accounts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ownership {
    /// Of the replica with the most, by the mean.
    pub(crate) fullest: f64,
    /// How uneven it is, by what chance makes of it: 1 if no better or worse.
    pub(crate) unevenness: f64,
    pub(crate) leaves: Moved,
    pub(crate) joins: Moved,
    pub(crate) restart: Restart,
}

/// All were restarted, some at a time, under the same names, while an edge looked each account up after each change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restart {
    /// How often an account moved.
    pub(crate) moves: f64,
    /// Names weighed for a look-up, in the mean: it would be all of them each time.
    pub(crate) weighed: f64,
    /// Accounts for which in the end another was chosen than by who does not remember.
    pub(crate) wrong: usize,
}

/// What moved when one replica left or came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// From or to it.
    pub(crate) with_it: f64,
    /// Between others.
    pub(crate) others: f64,
}

fn name(replica: u64) -> String {
    format!("http://routing-{replica}.routing.causeway:7461")
}

fn addresses(size: Size, seed: u64) -> Vec<String> {
    (0..size.accounts).map(|n| format!("user{}@provider{}.example", seed.wrapping_mul(1_000_003) + n, n % 50)).collect()
}

/// A link to a replica: its name, unless it takes nothing new.
type Links = BTreeMap<u64, Option<String>>;

fn owners(links: &Links, addresses: &[String]) -> Vec<Option<u64>> {
    let named: Vec<(&str, u64)> = links.iter().filter_map(|(id, name)| Some((name.as_deref()?, *id))).collect();
    addresses.iter().map(|address| choose(named.iter().copied(), address)).collect()
}

/// Runs it.
pub(crate) fn simulate(size: Size, seed: u64) -> Ownership {
    let addresses = addresses(size, seed);
    let mut links: Links = (0..size.replicas).map(|id| (id, Some(name(id)))).collect();
    let before = owners(&links, &addresses);
    let mut counts = vec![0_u64; size.replicas as usize];
    for owner in before.iter().flatten() {
        counts[*owner as usize] += 1;
    }
    let mean = size.accounts as f64 / size.replicas as f64;
    let variance = counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum::<f64>() / (size.replicas - 1) as f64;
    let fullest = counts.iter().max().map_or(0.0, |most| *most as f64 / mean);

    let one = seed % size.replicas;
    let left = links.remove(&one);
    let without = owners(&links, &addresses);
    let leaves = moved(&before, &without, one);
    links.insert(one, left.flatten());
    links.insert(size.replicas, Some(name(size.replicas)));
    let joins = moved(&before, &owners(&links, &addresses), size.replicas);
    links.remove(&size.replicas);

    // Fewer, since each is looked up after each change.
    let restart = restart(size, links, addresses.get(..addresses.len() / 4).unwrap_or(&addresses));
    Ownership { fullest, unevenness: variance / mean, leaves, joins, restart }
}

fn moved(before: &[Option<u64>], after: &[Option<u64>], one: u64) -> Moved {
    let all = before.len() as f64;
    let (mut with_it, mut others) = (0_u64, 0_u64);
    for (from, to) in before.iter().zip(after).filter(|(from, to)| from != to) {
        *if *from == Some(one) || *to == Some(one) { &mut with_it } else { &mut others } += 1;
    }
    Moved { with_it: with_it as f64 / all, others: others as f64 / all }
}

fn restart(size: Size, mut links: Links, addresses: &[String]) -> Restart {
    let (chosen, weighed) = (Chosen::default(), Cell::new(0_u64));
    let look = |links: &Links, address: &str| {
        let counted = |link| {
            weighed.set(weighed.get() + 1);
            Option::as_deref(link)
        };
        chosen.choose(links, counted, address)
    };
    let mut now: Vec<Option<u64>> = addresses.iter().map(|address| look(&links, address)).collect();
    weighed.set(0);
    let (mut moves, mut looks, mut next) = (0_u64, 0_u64, size.replicas);
    let mut settle = |links: &Links, now: &mut [Option<u64>]| {
        for (place, address) in now.iter_mut().zip(addresses) {
            let owner = look(links, address);
            looks += 1;
            moves += u64::from(owner != *place);
            *place = owner;
        }
    };
    for first in (0..size.replicas).step_by(size.batch.max(1) as usize) {
        let batch: Vec<u64> = (first..(first + size.batch.max(1)).min(size.replicas)).collect();
        for id in &batch {
            links.insert(*id, None);
        }
        settle(&links, &mut now);
        for id in &batch {
            links.remove(id);
            links.insert(next, Some(name(*id)));
            next += 1;
        }
        settle(&links, &mut now);
    }
    let wrong = owners(&links, addresses).iter().zip(&now).filter(|(right, found)| right != found).count();
    let moves = moves as f64 / addresses.len() as f64;
    Restart { moves, weighed: weighed.get() as f64 / looks.max(1) as f64, wrong }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_spread_by_chance_and_nothing_moves_that_need_not() {
        let found = simulate(Size { replicas: 40, accounts: 4_000, batch: 4 }, 7);
        assert!((0.5..2.0).contains(&found.unevenness) && found.fullest < 1.5, "{found:?}");
        for moved in [found.leaves, found.joins] {
            assert!(moved.others == 0.0 && moved.with_it < 2.0 / 40.0, "{found:?}");
        }
        assert!((1.5..3.0).contains(&found.restart.moves), "away and back, and a little more: {found:?}");
        assert!(found.restart.weighed < 40.0 / 3.0, "hardly ever all: {found:?}");
        assert_eq!(found.restart.wrong, 0);
    }

    #[test]
    fn a_seed_says_all() {
        let size = Size { replicas: 10, accounts: 200, batch: 1 };
        let [one, other] = [(); 2].map(|()| format!("{:?}", simulate(size, 3)));
        assert_eq!(one, other);
    }
}
