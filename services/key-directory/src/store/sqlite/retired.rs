//! Statements about Noise keys of devices that are no more, so that a token which enlisted one does not bring it back.
//!
//! Only digests are kept: of a withdrawn account neither the address nor the key stays in the file.

use causeway_identity::{Address, NoiseKey};
use rusqlite::{Connection, params};

use super::engine::failed;
use super::rows::Column;
use crate::store::stored::RetiredNames;
use crate::store::{MAX_RETIRED_KEYS, RETIRED_MS, StoreError};

/// True if this key was a device's of this address less than [`RETIRED_MS`] ago.
pub(super) fn holds(db: &Connection, address: &Address, key: &NoiseKey, now_ms: u64) -> Result<bool, StoreError> {
    let names = RetiredNames::of(address.as_str(), key.as_bytes());
    db.prepare_cached("SELECT 1 FROM retired_keys WHERE owner = ?1 AND noise_key = ?2 AND until_ms > ?3")
        .map_err(failed)?
        .exists(params![names.owner, names.key, Column(now_ms)])
        .map_err(failed)
}

/// Remembers the key, and forgets those whose time is over.
pub(super) fn add(db: &Connection, address: &str, noise_key: &[u8], now_ms: u64) -> Result<(), StoreError> {
    db.execute("DELETE FROM retired_keys WHERE until_ms <= ?1", [Column(now_ms)]).map_err(failed)?;
    let names = RetiredNames::of(address, noise_key);
    db.execute(
        "INSERT OR REPLACE INTO retired_keys VALUES (?1, ?2, ?3)",
        params![names.owner, names.key, Column(now_ms.saturating_add(RETIRED_MS))],
    )
    .map_err(failed)?;
    db.execute(
        "DELETE FROM retired_keys WHERE owner = ?1 AND noise_key IN (
            SELECT noise_key FROM retired_keys WHERE owner = ?1 ORDER BY until_ms DESC LIMIT -1 OFFSET ?2)",
        params![names.owner, MAX_RETIRED_KEYS as i64],
    )
    .map_err(failed)?;
    Ok(())
}
