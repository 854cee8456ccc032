//! Providers: what an operator registers, and the checks that each field passes first.

mod settings;

use causeway_identity::{Domain, ProviderId};

pub use settings::{BadSetting, ProviderSettings, WebhookTarget};

pub(crate) use settings::RawSettings;

/// Whose messenger it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// The operator's own.
    Home,
    /// Everybody else's.
    ThirdParty,
}

/// Whether a provider's users may use the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderStatus {
    /// They may.
    Live,
    /// Not until it is live again; accounts and keys stay.
    Suspended,
}

/// A registered provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Assigned at registration.
    pub id: ProviderId,
    /// What the operator set.
    pub settings: ProviderSettings,
    /// Live or suspended.
    pub status: ProviderStatus,
    /// Unix milliseconds.
    pub registered_ms: u64,
    /// Rises with each change of the settings, so that keys fetched under older ones are not kept.
    pub revision: u64,
}

/// What accounts know of their provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRef {
    /// Its internal id.
    pub id: ProviderId,
    /// Its registered domain.
    pub domain: Domain,
    /// Home or third party.
    pub kind: ProviderKind,
    /// Live or suspended.
    pub status: ProviderStatus,
}

impl Provider {
    /// The short form.
    pub fn reference(&self) -> ProviderRef {
        let ProviderSettings { domain, kind, .. } = &self.settings;
        ProviderRef { id: self.id, domain: domain.clone(), kind: *kind, status: self.status }
    }
}

/// A provider's token keys as the last successful fetch gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKeySet {
    /// A JSON Web Key Set with the usable public keys only.
    pub jwks: String,
    /// How many keys it has.
    pub count: u32,
    /// Unix milliseconds of the fetch.
    pub fetched_ms: u64,
}
