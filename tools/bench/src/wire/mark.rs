//! What a message's id says: who sent it, its number, and when it was due. So nothing has to be remembered of a message to
//! know how long it took.

/// The id of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The sender's number in the run.
    pub(crate) sender: u32,
    /// Its message's number, from 0.
    pub(crate) number: u32,
    /// When it was due, in nanoseconds.
    pub(crate) due: u64,
}

impl Mark {
    /// As an id.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&self.sender.to_be_bytes());
        id[4..8].copy_from_slice(&self.number.to_be_bytes());
        id[8..].copy_from_slice(&self.due.to_be_bytes());
        id
    }

    /// From an id.
    pub(crate) fn from_bytes(id: [u8; 16]) -> Self {
        let id = u128::from_be_bytes(id);
        // Each cast takes the lower half of what is left of it.
        Self { sender: (id >> 96) as u32, number: (id >> 64) as u32, due: id as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_what_it_was_made_of() {
        for mark in [
            Mark { sender: 0, number: 0, due: 0 },
            Mark { sender: u32::MAX, number: 1, due: u64::MAX - 1 },
            Mark { sender: 7, number: u32::MAX, due: 12_345_678_901_234 },
        ] {
            assert_eq!(Mark::from_bytes(mark.to_bytes()), mark);
        }
    }
}
