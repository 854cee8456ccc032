//! How often each ticket has been presented.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Tickets that are counted at one time; when all of these are in use and alive, further ones are refused.
const MAX_COUNTED: usize = 100_000;

/// Counts by the first half of a ticket's tag, which nobody can choose, until the ticket expires.
#[derive(Debug)]
pub(super) struct Uses {
    max: u32,
    counted: Mutex<HashMap<[u8; 16], Counted>>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    uses: u32,
    expires_ms: u64,
}

impl Uses {
    /// Allows `max` uses of each.
    pub(super) fn new(max: u32) -> Self {
        Self { max, counted: Mutex::default() }
    }

    /// Counts one more use; false when it was one too many.
    pub(super) fn count(&self, tag: &[u8; 32], expires_ms: u64, now_ms: u64) -> bool {
        let mut name = [0; 16];
        name.copy_from_slice(&tag[..16]);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= MAX_COUNTED && !counted.contains_key(&name) {
            counted.retain(|_, ticket| ticket.expires_ms > now_ms);
            if counted.len() >= MAX_COUNTED {
                return false;
            }
        }
        let ticket = counted.entry(name).or_insert(Counted { uses: 0, expires_ms });
        if ticket.uses >= self.max {
            return false;
        }
        ticket.uses += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_stays_bounded_and_forgets_what_expired() {
        let uses = Uses::new(1);
        let tag = |n: u32| {
            let mut tag = [0; 32];
            tag[..4].copy_from_slice(&n.to_be_bytes());
            tag
        };
        for n in 0..u32::try_from(MAX_COUNTED).unwrap() {
            assert!(uses.count(&tag(n), 100, 0));
        }
        assert!(!uses.count(&tag(u32::MAX), 200, 0), "full");
        assert!(!uses.count(&tag(0), 100, 0), "used up");
        assert!(uses.count(&tag(u32::MAX), 200, 100), "the others have expired");
    }
}
