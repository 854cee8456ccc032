//! A map for the few devices of an account: a sorted list that takes no more room than what is in it.

/// By key, in order.
#[derive(Debug)]
pub(super) struct Few<K, V>(Vec<(K, V)>);

impl<K: Ord + Copy, V> Few<K, V> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.at(key).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.at(key).ok().map(|at| &mut self.0[at].1)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.at(key).is_ok()
    }

    /// What is there under this key, or what is so by default.
    pub(super) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = match self.at(&key) {
            Ok(at) => at,
            Err(at) => self.put(at, key, V::default()),
        };
        &mut self.0[at].1
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.at(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                self.put(at, key, value);
            }
        }
    }

    /// True if it was there.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let Ok(at) = self.at(key) else { return false };
        self.0.remove(at);
        self.0.shrink_to_fit();
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    fn at(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by_key(key, |(key, _)| *key)
    }

    fn put(&mut self, at: usize, key: K, value: V) -> usize {
        // Most accounts have one device, and few get another one soon.
        self.0.reserve_exact(1);
        self.0.insert(at, (key, value));
        at
    }
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> FromIterator<(K, V)> for Few<K, V>
where
    K: Ord,
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        let all: std::collections::BTreeMap<K, V> = all.into_iter().collect();
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..3_u8, 0..6_u8, 0..100_u8), 0..40)) {
            let (mut few, mut map) = (Few::new(), BTreeMap::new());
            for (what, key, value) in steps {
                match what {
                    0 => {
                        few.insert(key, value);
                        map.insert(key, value);
                    }
                    1 => {
                        prop_assert_eq!(few.remove(&key), map.remove(&key).is_some());
                    }
                    _ => prop_assert_eq!(few.or_default(key), map.entry(key).or_default()),
                }
                prop_assert_eq!(few.get(&key), map.get(&key));
                prop_assert_eq!(few.contains_key(&key), map.contains_key(&key));
                prop_assert!(few.iter().eq(map.iter()) && few.keys().eq(map.keys()));
            }
            let again: Few<u8, u8> = map.clone().into_iter().collect();
            prop_assert!(again.into_values().eq(few.into_values()));
        }
    }
}
