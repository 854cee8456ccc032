//! Providers and their token keys.

use async_trait::async_trait;
use causeway_identity::{Domain, ProviderId};
use causeway_postgres::Postgres;

use super::rows::{big, get, number, provider, small};
use super::statements::{
    COUNT_PROVIDERS, INSERT_PROVIDER, KEEP_TOKEN_KEYS, LOCK_PROVIDERS, LOCK_TOKEN_KEYS, PROVIDER, PROVIDER_OF_ISSUER,
    PROVIDERS, SET_PROVIDER_STATUS, TOKEN_KEYS, UPDATE_PROVIDER,
};
use super::step::{Done, Failure, Step, Tx, read};
use crate::providers::{Provider, ProviderSettings, ProviderStatus, TokenKeySet};
use crate::store::stored::{Listed as _, StoredProvider, corrupt, settings_to_json};
use crate::store::{Change, Registered, StoreError, Updated};

/// The step of registering. Done again, it finds the provider with its id, which is random.
pub(super) struct Register<'a> {
    pub(super) new: &'a Provider,
    pub(super) keys: &'a TokenKeySet,
    pub(super) limit: u32,
}

#[async_trait]
impl Step for Register<'_> {
    type Outcome = Registered;

    async fn attempt(&self, tx: &Tx<'_>, unanswered: Option<&Done<Registered>>) -> Result<Done<Registered>, Failure> {
        let ProviderSettings { domain, kind, issuer, .. } = &self.new.settings;
        tx.row(LOCK_PROVIDERS, &[]).await?;
        if let Some(row) = tx.row(PROVIDER, &[&domain.as_str()]).await? {
            let done = if provider(&row)?.id == self.new.id { unanswered } else { None };
            return Ok(done.cloned().unwrap_or_else(|| Done::nothing(Registered::DomainTaken)));
        }
        if tx.row(PROVIDER_OF_ISSUER, &[issuer]).await?.is_some() {
            return Ok(Done::nothing(Registered::IssuerTaken));
        }
        let count = tx.row(COUNT_PROVIDERS, &[]).await?.ok_or(StoreError::Corrupt("row"))?;
        if number::<i64, u64>(&count, 0)? >= u64::from(self.limit) {
            return Ok(Done::nothing(Registered::Full));
        }
        tx.execute(
            INSERT_PROVIDER,
            &[
                &self.new.id.as_bytes().as_slice(),
                &domain.as_str(),
                issuer,
                &kind.number(),
                &self.new.status.number(),
                &big(self.new.revision),
                &big(self.new.registered_ms),
                &settings_to_json(&self.new.settings)?,
                &self.keys.jwks,
                &small(self.keys.count),
                &big(self.keys.fetched_ms),
            ],
        )
        .await?;
        Ok(Done::told(Registered::Done, [Change::Provider { domain: domain.clone() }]))
    }
}

/// The step of replacing settings. Done again, the revision rises again, which does no harm.
pub(super) struct Update<'a> {
    pub(super) settings: &'a ProviderSettings,
    pub(super) keys: &'a TokenKeySet,
}

#[async_trait]
impl Step for Update<'_> {
    type Outcome = Updated;

    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<Updated>>) -> Result<Done<Updated>, Failure> {
        let Self { settings, keys } = self;
        tx.row(LOCK_PROVIDERS, &[]).await?;
        let Some(row) = tx.row(PROVIDER, &[&settings.domain.as_str()]).await? else {
            return Ok(Done::nothing(Updated::Unknown));
        };
        let before = provider(&row)?.into_provider()?;
        if before.settings.kind != settings.kind {
            return Ok(Done::nothing(Updated::OtherKind));
        }
        if let Some(row) = tx.row(PROVIDER_OF_ISSUER, &[&settings.issuer]).await?
            && get::<&[u8]>(&row, 0)? != before.id.as_bytes()
        {
            return Ok(Done::nothing(Updated::IssuerTaken));
        }
        let revision = before.revision + 1;
        let changed = tx
            .row(
                UPDATE_PROVIDER,
                &[
                    &before.id.as_bytes().as_slice(),
                    &settings.issuer,
                    &settings_to_json(settings)?,
                    &big(revision),
                    &keys.jwks,
                    &small(keys.count),
                    &big(keys.fetched_ms),
                ],
            )
            .await?
            .ok_or(StoreError::Corrupt("row"))?;
        // With the status as it is now: it is set without the lock.
        let after = provider(&changed)?.into_provider()?;
        Ok(Done::told(Updated::Done(Box::new(after)), [Change::Provider { domain: settings.domain.clone() }]))
    }
}

/// The step of setting the status. Done again, it is the same.
pub(super) struct SetStatus<'a> {
    pub(super) domain: &'a Domain,
    pub(super) status: ProviderStatus,
}

#[async_trait]
impl Step for SetStatus<'_> {
    type Outcome = Option<Provider>;

    async fn attempt(
        &self,
        tx: &Tx<'_>,
        _: Option<&Done<Option<Provider>>>,
    ) -> Result<Done<Option<Provider>>, Failure> {
        let Some(row) = tx.row(SET_PROVIDER_STATUS, &[&self.domain.as_str(), &self.status.number()]).await? else {
            return Ok(Done::nothing(None));
        };
        Ok(Done::told(Some(provider(&row)?.into_provider()?), [Change::Provider { domain: self.domain.clone() }]))
    }
}

/// The step of keeping token keys. Done again, it is the same. Other key-directories are told if the keys are others.
pub(super) struct KeepTokenKeys<'a> {
    pub(super) provider: ProviderId,
    pub(super) revision: u64,
    pub(super) before_ms: u64,
    pub(super) keys: &'a TokenKeySet,
}

#[async_trait]
impl Step for KeepTokenKeys<'_> {
    type Outcome = bool;

    async fn attempt(&self, tx: &Tx<'_>, unanswered: Option<&Done<bool>>) -> Result<Done<bool>, Failure> {
        let id = self.provider.as_bytes().as_slice();
        let Some(row) = tx.row(LOCK_TOKEN_KEYS, &[&id, &big(self.revision)]).await? else {
            return Ok(Done::nothing(false));
        };
        let keys = self.keys;
        let (jwks, fetched_ms) = (get::<&str>(&row, 1)?, number::<i64, u64>(&row, 2)?);
        if let Some(done) = unanswered
            && (jwks, fetched_ms) == (keys.jwks.as_str(), keys.fetched_ms)
        {
            return Ok(done.clone());
        }
        if fetched_ms != self.before_ms {
            return Ok(Done::nothing(false));
        }
        tx.execute(KEEP_TOKEN_KEYS, &[&id, &keys.jwks, &small(keys.count), &big(keys.fetched_ms)]).await?;
        if jwks == keys.jwks {
            return Ok(Done::silently(true));
        }
        let domain = get::<&str>(&row, 0)?.parse().map_err(corrupt("provider"))?;
        Ok(Done::told(true, [Change::TokenKeys { domain }]))
    }
}

pub(super) async fn by_domain(postgres: &Postgres, domain: &Domain) -> Result<Option<Provider>, StoreError> {
    let rows = read(postgres, PROVIDER, &[&domain.as_str()]).await?;
    rows.first().map(provider).transpose()?.map(StoredProvider::into_provider).transpose()
}

pub(super) async fn page(postgres: &Postgres, after: Option<&Domain>, limit: u32) -> Result<Vec<Provider>, StoreError> {
    let rows = read(postgres, PROVIDERS, &[&after.map_or("", Domain::as_str), &i64::from(limit)]).await?;
    rows.iter().map(|row| provider(row)?.into_provider()).collect()
}

pub(super) async fn token_keys(postgres: &Postgres, id: ProviderId) -> Result<Option<TokenKeySet>, StoreError> {
    let rows = read(postgres, TOKEN_KEYS, &[&id.as_bytes().as_slice()]).await?;
    let set = |row| {
        Ok(TokenKeySet {
            jwks: get(row, 0)?,
            count: number::<i32, u32>(row, 1)?,
            fetched_ms: number::<i64, u64>(row, 2)?,
        })
    };
    rows.first().map(set).transpose()
}
