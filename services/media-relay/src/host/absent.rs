//! How often a network asks for blobs that are not there. Each such question is a request to the store, and whoever guesses names
//! asks nothing else; who knows a name hardly ever does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::http::Peer;
use crate::http::network::Network;

/// Networks that are remembered of one second; more of them are not counted in it.
const MAX_NETWORKS: usize = 4_096;

/// What was not there, by network, in the present second.
#[derive(Debug, Default)]
pub(super) struct Absent(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    number: u64,
    asked: HashMap<Network, u32>,
}

impl Absent {
    /// Whether `peer` may ask for another one.
    pub(super) fn allows(&self, peer: Peer, now_ms: u64) -> bool {
        self.at(now_ms).asked.get(&peer.network).is_none_or(|asked| *asked < peer.absent_per_s)
    }

    /// Counts one that was not there.
    pub(super) fn count(&self, peer: Peer, now_ms: u64) {
        let mut second = self.at(now_ms);
        if second.asked.len() < MAX_NETWORKS || second.asked.contains_key(&peer.network) {
            *second.asked.entry(peer.network).or_default() += 1;
        }
    }

    fn at(&self, now_ms: u64) -> MutexGuard<'_, Second> {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != now_ms / 1_000 {
            second.number = now_ms / 1_000;
            second.asked.clear();
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_guesses_waits_for_the_next_second_and_others_do_not() {
        let peer = |text: &str| Peer { network: Network::of(text.parse().unwrap()), absent_per_s: 2 };
        let (absent, one, other) = (Absent::default(), peer("192.0.2.1"), peer("192.0.3.1"));
        for _ in 0..2 {
            assert!(absent.allows(one, 5_000));
            absent.count(one, 5_999);
        }
        assert!(!absent.allows(one, 5_999) && absent.allows(other, 5_999));
        assert!(absent.allows(one, 6_000));
        for n in 0..2 * MAX_NETWORKS {
            absent.count(peer(&format!("10.{}.{}.1", n / 256, n % 256)), 6_000);
        }
        assert_eq!(absent.at(6_000).asked.len(), MAX_NETWORKS);
    }
}
