//! Accounts and their devices, and the rule that says who reaches whom.

use std::fmt;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, NoiseKey};

use crate::consent::{Consent, Reach};
use crate::keys::{EcPublicKey, RegistrationId};
use crate::providers::{ProviderKind, ProviderRef, ProviderStatus};

/// All that is known of an account, but for its prekeys: one consistent reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Assigned at enlistment, never used again.
    pub account: AccountId,
    /// The user-visible name.
    pub address: Address,
    /// The provider that vouches for it, as it is now.
    pub provider: ProviderRef,
    /// In the order of their ids.
    pub devices: Vec<Device>,
    /// What the user allows.
    pub consent: Consent,
}

/// A device of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Assigned at enlistment, 1..=127.
    pub id: DeviceId,
    /// The one key that may log in as this device.
    pub noise_key: NoiseKey,
    /// As the device chose it.
    pub registration_id: RegistrationId,
    /// Signal identity key.
    pub identity_key: EcPublicKey,
    /// Unix milliseconds.
    pub enlisted_ms: u64,
    /// For webhooks to its provider.
    pub push_token: Option<PushToken>,
}

/// What a device's provider needs to wake it: opaque here, 1 to 512 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct PushToken(Bytes);

impl PushToken {
    /// Most bytes of a token.
    pub const MAX_BYTES: usize = 512;

    /// The token; `None` when it is empty or too long.
    pub fn new(bytes: Bytes) -> Option<Self> {
        (1..=Self::MAX_BYTES).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushToken(..)")
    }
}

impl Record {
    /// The device with this id.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// True if a message may go from this account to `other`: the same account, or one side at the home provider, both
    /// users in the network, both providers live, and nothing that `other` set against it. Routing decides by the same
    /// rule, from the same record.
    pub fn reaches(&self, other: &Self) -> bool {
        let both_live = self.provider.status == ProviderStatus::Live && other.provider.status == ProviderStatus::Live;
        if self.account == other.account {
            return both_live;
        }
        let home_is_part = self.provider.kind == ProviderKind::Home || other.provider.kind == ProviderKind::Home;
        both_live
            && home_is_part
            && self.consent.interop
            && other.consent.interop
            && other.consent.reach == Reach::Everyone
            && other.consent.allows(&self.provider.domain)
    }
}

#[cfg(test)]
mod tests {
    use causeway_identity::ProviderId;

    use super::*;

    fn record(n: u8, kind: ProviderKind) -> Record {
        let domain = if kind == ProviderKind::Home { "home.example" } else { "birdy.example" };
        Record {
            account: AccountId::from_bytes([n; 16]),
            address: format!("user{n}@{domain}").parse().unwrap(),
            provider: ProviderRef {
                id: ProviderId::from_bytes([0; 16]),
                domain: domain.parse().unwrap(),
                kind,
                status: ProviderStatus::Live,
            },
            devices: Vec::new(),
            consent: Consent { interop: true, ..Consent::default() },
        }
    }

    #[test]
    fn a_route_needs_the_home_provider_and_both_users() {
        let (home, ada, bo) =
            (record(1, ProviderKind::Home), record(2, ProviderKind::ThirdParty), record(3, ProviderKind::ThirdParty));
        assert!(home.reaches(&ada) && ada.reaches(&home));
        assert!(!ada.reaches(&bo), "third parties do not meet through this network");
        for closed in [&home, &ada] {
            let mut off = closed.clone();
            off.consent.interop = false;
            let other = if closed.account == home.account { &ada } else { &home };
            assert!(!off.reaches(other) && !other.reaches(&off));
        }
    }

    #[test]
    fn what_the_recipient_set_counts_and_what_the_sender_set_does_not() {
        let (home, mut ada) = (record(1, ProviderKind::Home), record(2, ProviderKind::ThirdParty));
        ada.consent.rules.insert("home.example".parse().unwrap(), false);
        assert!(!home.reaches(&ada));
        assert!(ada.reaches(&home));
        ada.consent.rules.insert("home.example".parse().unwrap(), true);
        assert!(home.reaches(&ada));
        ada.consent.reach = Reach::Nobody;
        assert!(!home.reaches(&ada) && ada.reaches(&home));
    }

    #[test]
    fn nobody_of_a_suspended_provider_is_reached_or_reaches() {
        let (home, mut ada) = (record(1, ProviderKind::Home), record(2, ProviderKind::ThirdParty));
        ada.provider.status = ProviderStatus::Suspended;
        assert!(!home.reaches(&ada) && !ada.reaches(&home) && !ada.reaches(&ada));
    }

    #[test]
    fn own_devices_are_reached_without_consent() {
        let mut ada = record(2, ProviderKind::ThirdParty);
        ada.consent = Consent::default();
        assert!(ada.reaches(&ada.clone()));
    }
}
