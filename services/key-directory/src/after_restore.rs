//! What is to be done once after the directory's database was restored from a backup.

use crate::config::{DirectoryConfig, StoreKind};
use crate::error::DirectoryError;
use crate::store::{PostgresStore, SqliteStore};

/// What became of one-time prekeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// So many were in the backup, some of which may have been handed out since it was made. Nobody gets any of them.
    pub prekeys: u64,
}

/// Makes a database usable that was restored from a backup, or moved. A key-directory refuses one until then, as far as it can know.
///
/// All one-time prekeys are treated as handed out, also when their device publishes them again; devices are asked for new
/// ones at their next login. If `nothing_lost` says that the database is as it was last, only moved, they stay.
/// To do it again, or in vain, costs one-time prekeys and nothing else.
///
/// # Errors
/// [`DirectoryError`], which names the setting, file or folder and the fix.
pub async fn after_restore(config: &DirectoryConfig, nothing_lost: bool) -> Result<GivenUp, DirectoryError> {
    let prekeys = match config.store {
        StoreKind::Sqlite => {
            let folder = config.data_dir.clone();
            let done = tokio::task::spawn_blocking(move || SqliteStore::after_restore(&folder, !nothing_lost)).await;
            done.map_err(|_| DirectoryError::StoreLost)??
        }
        StoreKind::Postgres => Box::pin(PostgresStore::after_restore(&config.postgres, !nothing_lost)).await?,
    };
    Ok(GivenUp { prekeys })
}
