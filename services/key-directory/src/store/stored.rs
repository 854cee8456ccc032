//! Values as every backend writes them: numbers for the closed lists, JSON for settings that nothing is looked up by,
//! digests of keys. What is on disk is never given another meaning.

use aws_lc_rs::digest::{Context, SHA256, digest};
use causeway_identity::ProviderId;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::consent::{InboxSetting, Reach};
use crate::keys::{EcPublicKey, KyberPublicKey, PrekeyId, Signature, SignedPrekey};
use crate::providers::{Provider, ProviderKind, ProviderSettings, ProviderStatus, WebhookTarget};

/// A value of a closed list, which has a number on disk.
pub(super) trait Listed: Copy {
    fn number(self) -> i16;
    fn from_number(number: i64) -> Option<Self>;
}

macro_rules! listed {
    ($($list:ident { $($value:ident = $number:literal),* }),*) => {$(
        impl Listed for $list {
            fn number(self) -> i16 {
                match self { $($list::$value => $number),* }
            }

            fn from_number(number: i64) -> Option<Self> {
                match number {
                    $($number => Some($list::$value),)*
                    _ => None,
                }
            }
        }
    )*};
}
listed!(
    ProviderKind { Home = 1, ThirdParty = 2 },
    ProviderStatus { Live = 1, Suspended = 2 },
    InboxSetting { Separate = 1, Combined = 2 },
    Reach { Everyone = 1, Nobody = 3 },
    PrekeyKind { Ec = 1, Kyber = 2 }
);

/// The kinds of one-time keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrekeyKind {
    Ec,
    Kyber,
}

/// A prekey as its columns hold it; one-time EC keys have no signature.
pub(super) struct StoredPrekey {
    pub(super) id: u32,
    pub(super) key: Vec<u8>,
    pub(super) signature: Option<Vec<u8>>,
}

impl StoredPrekey {
    pub(super) fn signed_ec(self) -> Result<SignedPrekey<EcPublicKey>, StoreError> {
        Ok(SignedPrekey { id: prekey_id(self.id)?, key: ec_key(&self.key)?, signature: signature(self.signature)? })
    }

    pub(super) fn kyber(self) -> Result<SignedPrekey<KyberPublicKey>, StoreError> {
        let key = KyberPublicKey::from_stored(self.key).ok_or(StoreError::Corrupt("Kyber key"))?;
        Ok(SignedPrekey { id: prekey_id(self.id)?, key, signature: signature(self.signature)? })
    }
}

pub(super) fn ec_key(bytes: &[u8]) -> Result<EcPublicKey, StoreError> {
    EcPublicKey::from_stored(bytes).ok_or(StoreError::Corrupt("EC key"))
}

pub(super) fn prekey_id(number: u32) -> Result<PrekeyId, StoreError> {
    PrekeyId::try_from(number).map_err(corrupt("prekey id"))
}

fn signature(bytes: Option<Vec<u8>>) -> Result<Signature, StoreError> {
    Signature::try_from(bytes.unwrap_or_default().as_slice()).map_err(corrupt("signature"))
}

/// By which a one-time key is known when it is published again. 128 bits suffice: only the device itself could gain from
/// two of its own keys that collide.
pub(super) fn key_digest(key: &[u8]) -> Vec<u8> {
    digest(&SHA256, key).as_ref()[..16].to_vec()
}

/// Digests of an address, and of a Noise key at that address: of a withdrawn account neither the address nor the key
/// stays in the store. 128 bits suffice: nobody gains from a collision but the user whose own keys collide.
pub(super) struct RetiredNames {
    pub(super) owner: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl RetiredNames {
    pub(super) fn of(address: &str, noise_key: &[u8]) -> Self {
        let short = |parts: &[&[u8]]| {
            let mut context = Context::new(&SHA256);
            parts.iter().for_each(|part| context.update(part));
            context.finish().as_ref()[..16].to_vec()
        };
        // The key is of one length and comes first, so that no two pairs are written alike.
        Self { owner: short(&[address.as_bytes()]), key: short(&[noise_key, address.as_bytes()]) }
    }
}

/// A provider as its row holds it.
pub(super) struct StoredProvider {
    pub(super) id: ProviderId,
    pub(super) domain: String,
    pub(super) issuer: String,
    pub(super) kind: ProviderKind,
    pub(super) status: ProviderStatus,
    pub(super) revision: u64,
    pub(super) registered_ms: u64,
    pub(super) settings: String,
}

impl StoredProvider {
    pub(super) fn into_provider(self) -> Result<Provider, StoreError> {
        let stored: StoredSettings = serde_json::from_str(&self.settings).map_err(corrupt("provider"))?;
        let settings = ProviderSettings {
            domain: self.domain.parse().map_err(corrupt("provider"))?,
            display_name: stored.display_name,
            kind: self.kind,
            issuer: self.issuer,
            hosts: stored.hosts,
            media_prefixes: stored.media_prefixes,
            webhook: stored.webhook.map(|(url, secret)| WebhookTarget { url, secret }),
        };
        Ok(Provider {
            id: self.id,
            settings,
            status: self.status,
            registered_ms: self.registered_ms,
            revision: self.revision,
        })
    }
}

/// Settings that nothing is looked up by, as JSON in one column.
#[derive(Serialize, Deserialize)]
struct StoredSettings {
    display_name: String,
    hosts: Vec<String>,
    media_prefixes: Vec<String>,
    webhook: Option<(String, String)>,
}

pub(super) fn settings_to_json(settings: &ProviderSettings) -> Result<String, StoreError> {
    let stored = StoredSettings {
        display_name: settings.display_name.clone(),
        hosts: settings.hosts.clone(),
        media_prefixes: settings.media_prefixes.clone(),
        webhook: settings.webhook.as_ref().map(|target| (target.url.clone(), target.secret.clone())),
    };
    serde_json::to_string(&stored).map_err(|error| StoreError::Failed(error.to_string()))
}

/// For stored values that a domain type refuses.
pub(super) fn corrupt<E>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |_| StoreError::Corrupt(what)
}
