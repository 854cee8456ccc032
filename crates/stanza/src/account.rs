//! What a user decides about the account: devices, consent, contacts, reports.

use causeway_identity::{Address, DeviceId, Domain, MessageId};
use causeway_proto::wire::v1 as pb;

use crate::bounded::{Blob, List};
use crate::error::{At, Problem, StanzaError};
use crate::keys::RegistrationId;
use crate::lists::{ContactAction, InboxSetting, Reach};
use crate::login::id_bytes;

/// The devices of an account.
pub type Devices = List<Device, { DeviceId::MAX_PER_ACCOUNT }>;

/// A device of one's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its registration id.
    pub registration: RegistrationId,
    /// When it enlisted, Unix milliseconds.
    pub enlisted_ms: u64,
}

/// What a user has agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentSettings {
    /// Off: nobody reaches the user, and the user reaches nobody.
    pub interop: bool,
    /// Providers that differ from the default, which is allowed; each once.
    pub providers: List<ProviderRule, 256>,
    /// How conversations are shown.
    pub inbox: InboxSetting,
    /// Who may reach the user.
    pub reach: Reach,
}

/// Whether users of a provider may reach this one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProviderRule {
    /// The provider.
    pub provider: Domain,
    /// They may.
    pub allow: bool,
}

/// What to do about a contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// Accept a request.
    Accept(Address),
    /// Decline a request.
    Decline(Address),
    /// Block.
    Block(Address),
    /// Unblock.
    Unblock(Address),
    /// List all.
    List,
}

/// The user's contacts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contacts {
    /// Accepted ones.
    pub accepted: List<Address, 256>,
    /// Blocked ones.
    pub blocked: List<Address, 256>,
    /// Those whose request waits.
    pub requests: List<Address, 256>,
}

/// A report of a sender or of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who is reported.
    pub address: Address,
    /// The message; `None`: the sender as such.
    pub message: Option<MessageId>,
    /// The decrypted message, if the reporter attaches it.
    pub evidence: Blob<0, 65_536>,
}

impl TryFrom<pb::Device> for Device {
    type Error = StanzaError;

    fn try_from(device: pb::Device) -> Result<Self, StanzaError> {
        Ok(Self {
            id: DeviceId::new(device.id).at("id")?,
            registration: RegistrationId::new(device.registration_id).at("registration_id")?,
            enlisted_ms: device.enlisted_ms,
        })
    }
}

impl From<Device> for pb::Device {
    fn from(device: Device) -> Self {
        Self { id: device.id.get(), registration_id: device.registration.get(), enlisted_ms: device.enlisted_ms }
    }
}

pub(crate) fn read_device_list(devices: pb::Devices) -> Result<Devices, StanzaError> {
    Devices::read("devices", devices.devices, Device::try_from)?.distinct("devices", |device| device.id)
}

impl TryFrom<pb::ConsentSettings> for ConsentSettings {
    type Error = StanzaError;

    fn try_from(settings: pb::ConsentSettings) -> Result<Self, StanzaError> {
        Ok(Self {
            interop: settings.interop,
            providers: List::read("providers", settings.providers, ProviderRule::try_from)?
                .distinct("providers", |rule: &ProviderRule| rule.provider.clone())?,
            inbox: InboxSetting::try_from(settings.inbox).at("inbox")?,
            reach: Reach::try_from(settings.reach).at("reach")?,
        })
    }
}

impl From<ConsentSettings> for pb::ConsentSettings {
    fn from(settings: ConsentSettings) -> Self {
        Self {
            interop: settings.interop,
            providers: settings.providers.write(pb::ProviderRule::from),
            inbox: settings.inbox.into(),
            reach: settings.reach.into(),
        }
    }
}

impl TryFrom<pb::ProviderRule> for ProviderRule {
    type Error = StanzaError;

    fn try_from(rule: pb::ProviderRule) -> Result<Self, StanzaError> {
        Ok(Self { provider: rule.provider.parse::<Domain>().at("provider")?, allow: rule.allow })
    }
}

impl From<ProviderRule> for pb::ProviderRule {
    fn from(rule: ProviderRule) -> Self {
        Self { provider: rule.provider.to_string(), allow: rule.allow }
    }
}

impl TryFrom<pb::Contact> for Contact {
    type Error = StanzaError;

    fn try_from(contact: pb::Contact) -> Result<Self, StanzaError> {
        let action = ContactAction::try_from(contact.action).at("action")?;
        if action == ContactAction::List {
            return if contact.address.is_empty() { Ok(Self::List) } else { Err(Problem::Contradiction).at("address") };
        }
        let address = contact.address.parse::<Address>().at("address")?;
        Ok(match action {
            ContactAction::Accept => Self::Accept(address),
            ContactAction::Decline => Self::Decline(address),
            ContactAction::Block => Self::Block(address),
            ContactAction::Unblock => Self::Unblock(address),
            ContactAction::List => Self::List,
        })
    }
}

impl From<Contact> for pb::Contact {
    fn from(contact: Contact) -> Self {
        let (action, address) = match contact {
            Contact::Accept(address) => (ContactAction::Accept, Some(address)),
            Contact::Decline(address) => (ContactAction::Decline, Some(address)),
            Contact::Block(address) => (ContactAction::Block, Some(address)),
            Contact::Unblock(address) => (ContactAction::Unblock, Some(address)),
            Contact::List => (ContactAction::List, None),
        };
        Self { action: action.into(), address: address.map(|one| one.to_string()).unwrap_or_default() }
    }
}

impl TryFrom<pb::Contacts> for Contacts {
    type Error = StanzaError;

    fn try_from(contacts: pb::Contacts) -> Result<Self, StanzaError> {
        let read = |name: &str, addresses| List::read(name, addresses, |text: String| text.parse::<Address>());
        Ok(Self {
            accepted: read("accepted", contacts.accepted)?,
            blocked: read("blocked", contacts.blocked)?,
            requests: read("requests", contacts.requests)?,
        })
    }
}

impl From<Contacts> for pb::Contacts {
    fn from(contacts: Contacts) -> Self {
        let write = |addresses: List<Address, 256>| addresses.write(|one| one.to_string());
        Self {
            accepted: write(contacts.accepted),
            blocked: write(contacts.blocked),
            requests: write(contacts.requests),
        }
    }
}

impl TryFrom<pb::Report> for Report {
    type Error = StanzaError;

    fn try_from(report: pb::Report) -> Result<Self, StanzaError> {
        let message = match report.message_id.is_empty() {
            true => None,
            false => Some(MessageId::try_from(&report.message_id[..]).at("message_id")?),
        };
        Ok(Self {
            address: report.address.parse::<Address>().at("address")?,
            message,
            evidence: Blob::try_from(report.evidence).at("evidence")?,
        })
    }
}

impl From<Report> for pb::Report {
    fn from(report: Report) -> Self {
        Self {
            address: report.address.to_string(),
            message_id: report.message.map(|id| id_bytes(id.as_bytes())).unwrap_or_default(),
            evidence: report.evidence.into(),
        }
    }
}
