//! How many handshakes each source address has under way, so that one that only connects does not take all the room.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handshakes at a time of one source.
const OF_ONE: usize = 32;
/// Of an IPv6 address: one machine has as many as it likes below it.
const NETWORK: u128 = !0 << 64;

/// Handshakes under way by source; a source without one has no entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A handshake; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    source: IpAddr,
    sources: Sources,
}

impl Sources {
    /// Begins one, unless this source has its share.
    pub(super) fn begin(&self, address: IpAddr) -> Option<Begun> {
        let source = match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into(),
            v4 => v4,
        };
        let mut known = self.known();
        let count = known.entry(source).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        drop(known);
        Some(Begun { source, sources: self.clone() })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut known = self.sources.known();
        if let Some(count) = known.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                known.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_share_and_gets_it_back() {
        let sources = Sources::default();
        let one: Vec<_> = (0..OF_ONE).map(|_| sources.begin("10.0.0.1".parse().unwrap()).unwrap()).collect();
        assert!(sources.begin("10.0.0.1".parse().unwrap()).is_none());
        assert!(sources.begin("::ffff:10.0.0.1".parse().unwrap()).is_none());
        let other = sources.begin("10.0.0.2".parse().unwrap()).unwrap();
        let six: Vec<_> =
            (0..OF_ONE).map(|n| sources.begin(format!("2001:db8::{n:x}").parse().unwrap()).unwrap()).collect();
        assert!(sources.begin("2001:db8::ffff".parse().unwrap()).is_none());
        assert!(sources.begin("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop((one, other, six));
        assert!(sources.known().is_empty());
    }
}
