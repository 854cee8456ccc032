//! The one place where randomness comes from.

use causeway_identity::MessageId;
use rand::rngs::OsRng;
use rand::{CryptoRng, TryRngCore};

/// Randomness for keys, ids and jitter; tests may bring a seeded one.
pub(crate) type Random = Box<dyn CryptoRng + Send + Sync>;

/// The operating system's randomness. It panics if the system has none, which no client could survive.
pub(crate) fn system() -> Random {
    Box::new(OsRng.unwrap_err())
}

/// A new message id.
pub(crate) fn message_id(random: &mut Random) -> MessageId {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    MessageId::from_bytes(bytes)
}
