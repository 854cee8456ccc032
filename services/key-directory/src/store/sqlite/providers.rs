//! Statements about providers and their token keys.

use causeway_identity::{Domain, ProviderId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::engine::failed;
use super::rows::Column;
use crate::providers::{Provider, ProviderKind, ProviderSettings, ProviderStatus, TokenKeySet};
use crate::store::stored::{StoredProvider, settings_to_json};
use crate::store::{Change, Registered, StoreError, Updated, Written};

pub(super) fn register(
    db: &Connection,
    new: &Provider,
    keys: &TokenKeySet,
    limit: u32,
) -> Result<Written<Registered>, StoreError> {
    let ProviderSettings { domain, kind, issuer, .. } = &new.settings;
    if exists(db, "SELECT 1 FROM providers WHERE domain = ?1", domain.as_str())? {
        return Ok(Written::silent(Registered::DomainTaken));
    }
    if exists(db, "SELECT 1 FROM providers WHERE issuer = ?1", issuer)? {
        return Ok(Written::silent(Registered::IssuerTaken));
    }
    let count: u32 = db.query_row("SELECT count(*) FROM providers", [], |row| row.get(0)).map_err(failed)?;
    if count >= limit {
        return Ok(Written::silent(Registered::Full));
    }
    db.execute(
        "INSERT INTO providers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            Column(new.id),
            domain.as_str(),
            issuer,
            Column(*kind),
            Column(new.status),
            Column(new.revision),
            Column(new.registered_ms),
            settings_to_json(&new.settings)?,
            keys.jwks,
            keys.count,
            Column(keys.fetched_ms),
        ],
    )
    .map_err(failed)?;
    Ok(Written::told(Registered::Done, Change::Provider { domain: domain.clone() }))
}

pub(super) fn update(
    db: &Connection,
    settings: &ProviderSettings,
    keys: &TokenKeySet,
) -> Result<Written<Updated>, StoreError> {
    let Some(before) = by_domain(db, &settings.domain)? else { return Ok(Written::silent(Updated::Unknown)) };
    if before.settings.kind != settings.kind {
        return Ok(Written::silent(Updated::OtherKind));
    }
    let taken: Option<i64> = db
        .query_row(
            "SELECT 1 FROM providers WHERE issuer = ?1 AND domain <> ?2",
            params![settings.issuer, settings.domain.as_str()],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    if taken.is_some() {
        return Ok(Written::silent(Updated::IssuerTaken));
    }
    let after = Provider { settings: settings.clone(), revision: before.revision + 1, ..before };
    db.execute(
        "UPDATE providers SET issuer = ?2, settings = ?3, revision = ?4, jwks = ?5, jwks_count = ?6,
         jwks_fetched_ms = ?7 WHERE provider_id = ?1",
        params![
            Column(after.id),
            settings.issuer,
            settings_to_json(settings)?,
            Column(after.revision),
            keys.jwks,
            keys.count,
            Column(keys.fetched_ms),
        ],
    )
    .map_err(failed)?;
    Ok(Written::told(Updated::Done(Box::new(after)), Change::Provider { domain: settings.domain.clone() }))
}

pub(super) fn set_status(
    db: &Connection,
    domain: &Domain,
    status: ProviderStatus,
) -> Result<Written<Option<Provider>>, StoreError> {
    db.execute("UPDATE providers SET status = ?2 WHERE domain = ?1", params![domain.as_str(), Column(status)])
        .map_err(failed)?;
    Ok(match by_domain(db, domain)? {
        Some(provider) => Written::told(Some(provider), Change::Provider { domain: domain.clone() }),
        None => Written::silent(None),
    })
}

pub(super) fn by_domain(db: &Connection, domain: &Domain) -> Result<Option<Provider>, StoreError> {
    let raw = db
        .prepare_cached(concat!(
            "SELECT provider_id, domain, issuer, kind, status, revision, registered_ms, settings ",
            "FROM providers WHERE domain = ?1"
        ))
        .map_err(failed)?
        .query_row([domain.as_str()], read)
        .optional()
        .map_err(failed)?;
    raw.map(StoredProvider::into_provider).transpose()
}

pub(super) fn page(db: &Connection, after: Option<&Domain>, limit: u32) -> Result<Vec<Provider>, StoreError> {
    let mut statement = db
        .prepare_cached(concat!(
            "SELECT provider_id, domain, issuer, kind, status, revision, registered_ms, settings ",
            "FROM providers WHERE domain > ?1 ORDER BY domain LIMIT ?2"
        ))
        .map_err(failed)?;
    let rows = statement.query_map(params![after.map_or("", Domain::as_str), limit], read).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?.into_provider()).collect()
}

pub(super) fn keep_keys(
    db: &Connection,
    provider: ProviderId,
    revision: u64,
    before_ms: u64,
    keys: &TokenKeySet,
) -> Result<bool, StoreError> {
    let changed = db
        .execute(
            "UPDATE providers SET jwks = ?4, jwks_count = ?5, jwks_fetched_ms = ?6
             WHERE provider_id = ?1 AND revision = ?2 AND jwks_fetched_ms = ?3",
            params![
                Column(provider),
                Column(revision),
                Column(before_ms),
                keys.jwks,
                keys.count,
                Column(keys.fetched_ms)
            ],
        )
        .map_err(failed)?;
    Ok(changed == 1)
}

pub(super) fn keys(db: &Connection, provider: ProviderId) -> Result<Option<TokenKeySet>, StoreError> {
    db.query_row(
        "SELECT jwks, jwks_count, jwks_fetched_ms FROM providers WHERE provider_id = ?1",
        [Column(provider)],
        |row| Ok(TokenKeySet { jwks: row.get(0)?, count: row.get(1)?, fetched_ms: row.get::<_, Column<u64>>(2)?.0 }),
    )
    .optional()
    .map_err(failed)
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredProvider> {
    Ok(StoredProvider {
        id: row.get::<_, Column<ProviderId>>(0)?.0,
        domain: row.get(1)?,
        issuer: row.get(2)?,
        kind: row.get::<_, Column<ProviderKind>>(3)?.0,
        status: row.get::<_, Column<ProviderStatus>>(4)?.0,
        revision: row.get::<_, Column<u64>>(5)?.0,
        registered_ms: row.get::<_, Column<u64>>(6)?.0,
        settings: row.get(7)?,
    })
}

fn exists(db: &Connection, query: &str, value: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = db.query_row(query, [value], |row| row.get(0)).optional().map_err(failed)?;
    Ok(found.is_some())
}
