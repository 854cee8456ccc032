//! How this crate's own maps hash: by a fast function under keys that are drawn from the system's randomness, and that
//! nobody outside can foresee. What it is used for is bounded, so that whoever guessed some bits of a key would gain
//! little.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// A map under keys of its own.
pub(crate) type KeyedMap<K, V> = HashMap<K, V, Keyed>;

/// The keys of this process.
static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));

/// Hashes under a key of its own and those of this process.
#[derive(Debug, Clone)]
pub(crate) struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        Self(random())
    }
}

impl BuildHasher for Keyed {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        FoldHasher::with_seed(self.0, &SHARED)
    }
}

/// What the standard library takes from the system.
fn random() -> u64 {
    RandomState::new().hash_one(0_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_maps_do_not_hash_alike() {
        let (one, other) = (Keyed::default(), Keyed::default());
        assert_eq!(one.hash_one(7_u8), one.hash_one(7_u8));
        assert_ne!(one.hash_one(7_u8), other.hash_one(7_u8));
    }
}
