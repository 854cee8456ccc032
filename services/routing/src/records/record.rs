//! What routing knows of an account.

use std::collections::HashMap;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, Domain};
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;

use crate::message::Kind;

/// An account that is enlisted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) account: AccountId,
    pub(crate) provider: Domain,
    pub(crate) kind: Kind,
    /// Its provider is live.
    pub(crate) live: bool,
    /// By id; at most [`DeviceId::MAX_PER_ACCOUNT`].
    pub(crate) devices: Vec<RecordDevice>,
    pub(crate) interop: bool,
    /// Providers that differ from the default, which is allowed.
    pub(crate) rules: HashMap<Domain, bool>,
    /// Third parties' messages go to the main inbox.
    pub(crate) combined: bool,
    /// Anybody may reach it.
    pub(crate) reachable: bool,
}

/// A device of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordDevice {
    pub(crate) id: DeviceId,
    pub(crate) registration: u32,
    /// Empty: none.
    pub(crate) push_token: Bytes,
}

impl Record {
    /// The record that was asked for by `address`; an error names the field that is wrong.
    pub(crate) fn parse(record: pb::Record, address: &Address) -> Result<Self, &'static str> {
        if record.address != address.as_str() {
            return Err("address");
        }
        let consent = record.consent.unwrap_or_default();
        let mut devices = Vec::with_capacity(record.devices.len());
        for device in record.devices {
            let id = DeviceId::new(device.id).map_err(|_| "devices")?;
            // A slice would keep the whole answer in memory for as long as the record is known.
            let push_token = Bytes::copy_from_slice(&device.push_token);
            devices.push(RecordDevice { id, registration: device.registration_id, push_token });
        }
        devices.sort_by_key(|device| device.id);
        if devices.len() > DeviceId::MAX_PER_ACCOUNT || devices.windows(2).any(|pair| pair[0].id == pair[1].id) {
            return Err("devices");
        }
        let mut rules = HashMap::with_capacity(consent.providers.len());
        for rule in consent.providers {
            rules.insert(rule.provider.parse().map_err(|_| "consent.providers")?, rule.allow);
        }
        let kind = match wire::ProviderKind::try_from(record.provider_kind) {
            Ok(wire::ProviderKind::Home) => Kind::Home,
            Ok(wire::ProviderKind::ThirdParty) => Kind::ThirdParty,
            _ => return Err("provider_kind"),
        };
        Ok(Self {
            account: AccountId::try_from(&record.account_id[..]).map_err(|_| "account_id")?,
            provider: record.provider_domain.parse().map_err(|_| "provider_domain")?,
            kind,
            live: record.provider_status == i32::from(pb::ProviderStatus::Live),
            devices,
            interop: consent.interop,
            rules,
            combined: consent.inbox == i32::from(wire::InboxSetting::Combined),
            // Who is in the contacts is not known to this version: it keeps such an account closed.
            reachable: matches!(
                wire::Reach::try_from(consent.reach),
                Ok(wire::Reach::Everyone | wire::Reach::Unspecified)
            ),
        })
    }

    pub(crate) fn device(&self, id: DeviceId) -> Option<&RecordDevice> {
        self.devices.iter().find(|device| device.id == id)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_record_keeps_nothing_of_the_answer_that_it_came_in() {
        let device = pb::RecordDevice { id: 1, registration_id: 101, push_token: Bytes::from_static(b"wake me") };
        let record = pb::Record {
            account_id: Bytes::from_static(&[2; 16]),
            address: "ada@home.example".to_owned(),
            provider_domain: "home.example".to_owned(),
            provider_kind: wire::ProviderKind::Home.into(),
            devices: vec![device],
            ..pb::Record::default()
        };
        let received = Bytes::from(record.encode_to_vec());
        let record = pb::Record::decode(received.clone()).unwrap();
        let kept = Record::parse(record, &"ada@home.example".parse().unwrap()).unwrap();
        assert!(received.is_unique());
        assert_eq!(kept.devices[0].push_token, Bytes::from_static(b"wake me"));
    }
}
