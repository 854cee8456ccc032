//! [`Store`] on PostgreSQL, for several key-directories on one database.
//!
//! `schema` holds the tables, `statements` the texts, `step` runs a change in a transaction and says when it may be tried
//! again; the others hold the steps by subject, a type each. A further change is a type that implements `Step`, and a
//! line here. `change_log` is what key-directories tell each other.

mod accounts;
pub(crate) mod change_log;
mod claim;
mod enlist;
mod home;
mod leave;
mod prekeys;
mod providers;
mod rows;
mod schema;
mod settings;
mod statements;
mod step;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId, Domain, ProviderId};
use causeway_postgres::{Postgres, PostgresConfig, PostgresError};
use causeway_runtime::health::Tables;

use self::claim::{Claim, Claims};
use self::enlist::Enlist;
use self::leave::{Remove, Withdraw};
use self::prekeys::Publish;
use self::providers::{KeepTokenKeys, Register, SetStatus, Update};
use self::settings::{SetConsent, SetPush};
use self::step::Turns;
use super::{
    Bundle, Enlisted, Enlistment, Epoch, KeyCounts, KnownDevice, Published, Registered, Removed, Store, StoreError,
    Updated, Who, Written,
};
use crate::accounts::{PushToken, Record};
use crate::consent::Consent;
use crate::error::DirectoryError;
use crate::keys::VerifiedPrekeys;
use crate::providers::{Provider, ProviderSettings, ProviderStatus, TokenKeySet};

/// For each connection. All statements go by an index to a few rows of some accounts, so one plan is as good as another,
/// and to make a plan each time costs more than to run it. A plan that was made while the tables were small or unknown
/// must not be another one.
const SETTINGS: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// The directory's state in PostgreSQL.
///
/// A call takes at most some seconds. While the database is away, calls fail with [`StoreError::Away`]; it is never lost.
pub struct PostgresStore {
    postgres: Postgres,
    claims: Claims,
    turns: Turns,
}

impl PostgresStore {
    /// What this program has brought the tables to.
    pub(crate) const TABLES: Tables = Tables { store: "postgres", version: schema::MIGRATIONS.len() as u32 };

    /// Connects, and makes or updates the tables, which any number of replicas may do at a time.
    ///
    /// # Errors
    /// [`DirectoryError::Postgres`]; [`DirectoryError::PutBack`] if the tables were made from a dump.
    pub async fn open(config: &PostgresConfig) -> Result<Self, DirectoryError> {
        let postgres = Self::connect(config).await?;
        if !home::is_home(&postgres).await? {
            return Err(DirectoryError::PutBack);
        }
        let claims = Claims::over(&postgres);
        Ok(Self { postgres, claims, turns: Turns::of(config.max_connections) })
    }

    /// Makes tables usable that were made from a dump: treats all one-time keys as handed out, if `give_up` says so, and
    /// gives their number.
    ///
    /// # Errors
    /// [`PostgresError`]; what was not done is done by the next call.
    pub(crate) async fn after_restore(config: &PostgresConfig, give_up: bool) -> Result<u64, PostgresError> {
        let postgres = Self::connect(config).await?;
        let given_up = if give_up { home::give_up_prekeys(&postgres).await? } else { 0 };
        home::settle(&postgres).await?;
        Ok(given_up)
    }

    async fn connect(config: &PostgresConfig) -> Result<Postgres, PostgresError> {
        let postgres = Postgres::open(config, "causeway-key-directory", SETTINGS).await?;
        postgres.migrate("directory", schema::MIGRATIONS).await?;
        Ok(postgres)
    }

    /// Its connections.
    #[cfg(test)]
    const fn postgres(&self) -> &Postgres {
        &self.postgres
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn register_provider(
        &self,
        new: &Provider,
        keys: &TokenKeySet,
        limit: u32,
    ) -> Result<Written<Registered>, StoreError> {
        self.turns.take(&self.postgres, &Register { new, keys, limit }).await
    }

    async fn update_provider(
        &self,
        settings: &ProviderSettings,
        keys: &TokenKeySet,
    ) -> Result<Written<Updated>, StoreError> {
        self.turns.take(&self.postgres, &Update { settings, keys }).await
    }

    async fn set_provider_status(
        &self,
        domain: &Domain,
        status: ProviderStatus,
    ) -> Result<Written<Option<Provider>>, StoreError> {
        self.turns.take(&self.postgres, &SetStatus { domain, status }).await
    }

    async fn provider(&self, domain: &Domain) -> Result<Option<Provider>, StoreError> {
        providers::by_domain(&self.postgres, domain).await
    }

    async fn providers(&self, after: Option<&Domain>, limit: u32) -> Result<Vec<Provider>, StoreError> {
        providers::page(&self.postgres, after, limit).await
    }

    async fn keep_token_keys(
        &self,
        provider: ProviderId,
        revision: u64,
        before_ms: u64,
        keys: &TokenKeySet,
    ) -> Result<bool, StoreError> {
        Ok(self.turns.take(&self.postgres, &KeepTokenKeys { provider, revision, before_ms, keys }).await?.outcome)
    }

    async fn token_keys(&self, provider: ProviderId) -> Result<Option<TokenKeySet>, StoreError> {
        providers::token_keys(&self.postgres, provider).await
    }

    async fn record(&self, who: &Who) -> Result<Option<Record>, StoreError> {
        accounts::record(&self.postgres, who).await
    }

    async fn known_device(
        &self,
        address: &Address,
        device: DeviceId,
        low: u32,
    ) -> Result<Option<KnownDevice>, StoreError> {
        accounts::known_device(&self.postgres, address, device, low).await
    }

    async fn enlist(&self, enlistment: &Enlistment) -> Result<Written<Enlisted>, StoreError> {
        self.turns.take(&self.postgres, &Enlist(enlistment)).await
    }

    async fn remove_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
        now_ms: u64,
    ) -> Result<Written<Removed>, StoreError> {
        self.turns.take(&self.postgres, &Remove { account, by, device, now_ms }).await
    }

    async fn withdraw(&self, account: AccountId, by: DeviceId, now_ms: u64) -> Result<Written<bool>, StoreError> {
        self.turns.take(&self.postgres, &Withdraw { account, by, now_ms }).await
    }

    async fn set_push(
        &self,
        account: AccountId,
        device: DeviceId,
        token: Option<&PushToken>,
    ) -> Result<Written<bool>, StoreError> {
        self.turns.take(&self.postgres, &SetPush { account, device, token }).await
    }

    async fn set_consent(
        &self,
        account: AccountId,
        by: DeviceId,
        consent: &Consent,
    ) -> Result<Written<bool>, StoreError> {
        self.turns.take(&self.postgres, &SetConsent { account, by, consent }).await
    }

    async fn publish(
        &self,
        account: AccountId,
        device: DeviceId,
        keys: &VerifiedPrekeys,
    ) -> Result<Published, StoreError> {
        Ok(step::take(&self.postgres, &Publish { account, device, keys }).await?.outcome)
    }

    async fn key_counts(&self, account: AccountId, device: DeviceId) -> Result<Option<KeyCounts>, StoreError> {
        prekeys::counts(&self.postgres, account, device).await
    }

    async fn claim(
        &self,
        account: AccountId,
        devices: &[DeviceId],
        one_time: bool,
        low: u32,
    ) -> Result<Written<Vec<Bundle>>, StoreError> {
        if one_time && !devices.is_empty() {
            self.claims.take(Claim { account, devices: devices.to_vec(), low }).await
        } else {
            // Takes nothing, so need not wait for a commit.
            Ok(Written::silent(claim::peek(&self.postgres, account, devices).await?))
        }
    }

    async fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        home::epoch(&self.postgres).await.map(Some).map_err(|error| StoreError::Failed(error.to_string()))
    }

    async fn is_home(&self) -> Result<bool, StoreError> {
        home::is_still_home(&self.postgres).await.map_err(|error| StoreError::Failed(error.to_string()))
    }

    async fn condemn(&self, highest: u64) -> Result<(), StoreError> {
        home::condemn(&self.postgres, highest).await.map_err(|error| StoreError::Failed(error.to_string()))
    }

    async fn turn_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        home::turn(&self.postgres).await.map(Some).map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// A database that is away may come back.
    async fn lost(&self) {
        std::future::pending().await
    }
}
