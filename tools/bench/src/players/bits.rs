//! Sets of message numbers.

use std::collections::BTreeMap;

/// Numbers of messages, by sender.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(BTreeMap<u32, Vec<u64>>);

impl Bits {
    /// Adds one; false if it was there.
    pub(crate) fn insert(&mut self, sender: u32, number: u32) -> bool {
        let words = self.0.entry(sender).or_default();
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.values().flatten().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many are here and not there.
    pub(crate) fn without(&self, other: &Self) -> u64 {
        let none = Vec::new();
        self.0
            .iter()
            .map(|(sender, words)| {
                let others = other.0.get(sender).unwrap_or(&none);
                let others = others.iter().copied().chain(std::iter::repeat(0));
                words.iter().zip(others).map(|(mine, other)| u64::from((mine & !other).count_ones())).sum::<u64>()
            })
            .sum()
    }

    /// Adds all of another.
    pub(crate) fn merge(&mut self, other: Self) {
        for (sender, words) in other.0 {
            let mine = self.0.entry(sender).or_default();
            mine.resize(mine.len().max(words.len()), 0);
            for (mine, other) in mine.iter_mut().zip(words) {
                *mine |= other;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted() {
        let (mut told, mut came) = (Bits::default(), Bits::default());
        for number in [0, 63, 64, 1_000] {
            assert!(told.insert(1, number) && !told.insert(1, number));
        }
        told.insert(9, 5);
        came.insert(1, 63);
        came.insert(1, 7);
        let mut more = Bits::default();
        more.insert(1, 1_000);
        came.merge(more);
        assert_eq!((told.len(), came.len()), (5, 3));
        assert_eq!(told.without(&came), 3);
        assert_eq!(came.without(&told), 1);
    }
}
