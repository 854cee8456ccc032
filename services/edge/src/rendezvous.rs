//! Who of several is responsible for an address: rendezvous hashing (highest random weight). Everybody who sees the same
//! names chooses the same one, and when a name comes or goes, only the addresses move that it gains or had.
//!
//! The weight of a name for an address is the first eight bytes, big-endian, of SHA-256 over `causeway rendezvous v1`, a
//! zero byte, the length of the name in bytes as eight bytes big-endian, the name, and the address in its canonical
//! form.

use aws_lc_rs::digest::{Context, SHA256};

const DOMAIN: &[u8] = b"causeway rendezvous v1\0";

/// The weight of `name` for `address`.
fn weight(name: &str, address: &str) -> u64 {
    let mut hash = Context::new(&SHA256);
    hash.update(DOMAIN);
    hash.update(&(name.len() as u64).to_be_bytes());
    hash.update(name.as_bytes());
    hash.update(address.as_bytes());
    hash.finish().as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The candidate whose name has the highest weight for `address`; of equal names the one with the greatest id.
pub(crate) fn choose<'a, I: Ord + Copy>(
    candidates: impl IntoIterator<Item = (&'a str, I)>,
    address: &str,
) -> Option<I> {
    let weighed = candidates.into_iter().map(|(name, id)| (weight(name, address), name, id));
    weighed.max().map(|(_, _, id)| id)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn chosen<'a>(names: &'a BTreeSet<String>, address: &str) -> Option<&'a str> {
        choose(names.iter().map(|name| (name.as_str(), name.as_str())), address)
    }

    /// Other implementations of edges must agree.
    #[test]
    fn the_weight_is_what_the_text_says() {
        assert_eq!(weight("http://10.0.0.1:7451", "ada@birdy.example"), 3_884_003_856_193_999_362);
    }

    #[test]
    fn of_equal_names_the_newest_is_taken_and_of_none_none() {
        assert_eq!(choose([("a", 1), ("a", 3), ("a", 2)], "ada@birdy.example"), Some(3));
        assert_eq!(choose([] as [(&str, u8); 0], "ada@birdy.example"), None);
    }

    #[test]
    fn addresses_are_spread_evenly() {
        let names: BTreeSet<String> = (1..=3).map(|n| format!("http://routing-{n}:7451")).collect();
        let mut counts = BTreeMap::new();
        for n in 0..3_000 {
            let address = format!("user{n}@birdy.example");
            *counts.entry(chosen(&names, &address).unwrap()).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| (900..=1_100).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_name_that_comes_or_goes_moves_only_its_own_addresses(
            names in prop::collection::btree_set("[a-z]{1,8}", 1..6),
            other in "[a-z]{1,8}",
            addresses in prop::collection::vec("[a-z]{1,8}@[a-z]{1,5}\\.example", 1..20),
        ) {
            let mut more = names.clone();
            let new = more.insert(other.clone());
            for address in &addresses {
                let (before, after) = (chosen(&names, address), chosen(&more, address));
                prop_assert!(before == after || new && after == Some(&other));
            }
        }
    }
}
