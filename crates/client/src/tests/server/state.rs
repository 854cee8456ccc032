//! What the server knows, and what goes wrong in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use causeway_identity::{AccountId, Address, DeviceAddress, DeviceId, MessageId, ServerCertificate, SessionId};
use causeway_noise::StaticKey;
use causeway_stanza as stanza;
use causeway_stanza::{
    ConsentSettings, Delivery, DeviceMismatch, Enlisted, ErrorCode, FailureReason, Fate, FromServer, InboxSetting,
    IqError, KeyBundle, KeyBundles, KeyCounts, List, Reach, Rejected, ResponseBody, Submit, Success,
};
use tokio::sync::mpsc;

use super::{Session, error, origin};

#[derive(Default)]
pub(in crate::tests) struct State {
    pub(in crate::tests) accounts: BTreeMap<Address, Account>,
    pub(super) outcomes: HashMap<(AccountId, DeviceId, MessageId), Fate>,
    pub(super) next_account: u8,
    pub(in crate::tests) faults: Faults,
    pub(in crate::tests) stats: Stats,
    pub(super) late: Vec<(mpsc::UnboundedSender<FromServer>, FromServer)>,
    pub(super) static_key: Option<Arc<StaticKey>>,
    pub(super) certificate: Option<ServerCertificate>,
}

/// What goes wrong.
#[derive(Default)]
pub(in crate::tests) struct Faults {
    /// So many messages are taken, and then the connection is lost instead of an answer.
    pub(in crate::tests) lose_outcomes: u32,
    /// So many messages are refused for this long.
    pub(in crate::tests) rate_limit: u32,
    /// These addresses do not exist, as far as anybody is told.
    pub(in crate::tests) closed: BTreeSet<Address>,
    /// Every login fails with this.
    pub(in crate::tests) refuse: Option<FailureReason>,
    /// Ciphertexts to this device are damaged while the count lasts.
    pub(in crate::tests) damage: Option<(Address, DeviceId, u32)>,
    /// Bundles carry a damaged signature.
    pub(in crate::tests) bad_bundles: bool,
    /// Claims are refused so many times.
    pub(in crate::tests) refuse_claims: u32,
    /// Devices are enlisted, and their answers wait in [`State::late`].
    pub(in crate::tests) answer_enlistments_late: bool,
}

/// What happened.
#[derive(Default)]
pub(in crate::tests) struct Stats {
    pub(in crate::tests) logins: u32,
    pub(in crate::tests) resumed: u32,
    pub(in crate::tests) submits: u32,
    pub(in crate::tests) enlistments: u32,
    pub(in crate::tests) claims: u32,
    pub(in crate::tests) device_rejections: u32,
    pub(in crate::tests) tokens: Vec<String>,
    pub(in crate::tests) refreshed: Vec<String>,
    pub(in crate::tests) bad_acks: u32,
}

pub(in crate::tests) struct Account {
    pub(in crate::tests) id: AccountId,
    pub(in crate::tests) devices: BTreeMap<DeviceId, Device>,
    pub(super) consent: ConsentSettings,
}

pub(in crate::tests) struct Device {
    pub(super) noise: [u8; 32],
    pub(super) registration: stanza::RegistrationId,
    pub(in crate::tests) identity: stanza::PublicKey,
    pub(in crate::tests) signed: stanza::SignedPrekey,
    pub(in crate::tests) last_resort: stanza::SignedPrekey,
    pub(in crate::tests) ec: VecDeque<stanza::EcPrekey>,
    pub(in crate::tests) kyber: VecDeque<stanza::SignedPrekey>,
    pub(in crate::tests) mailbox: VecDeque<Delivery>,
    pub(super) online: Option<Online>,
}

pub(super) struct Online {
    pub(super) session: u64,
    pub(super) to: mpsc::UnboundedSender<FromServer>,
    pub(super) next_tag: u64,
    pub(super) sent: VecDeque<(u64, (AccountId, DeviceId, MessageId))>,
}

impl State {
    /// Of each device whether it is here, and how much waits for it.
    pub(in crate::tests) fn mailboxes(&self) -> Vec<(String, DeviceId, bool, usize)> {
        let of = |(address, account): (&Address, &Account)| {
            let devices = account.devices.iter();
            let devices =
                devices.map(|(id, device)| (address.to_string(), *id, device.online.is_some(), device.mailbox.len()));
            devices.collect::<Vec<_>>()
        };
        self.accounts.iter().flat_map(of).collect()
    }

    pub(super) fn device(&mut self, address: &Address, device: Option<DeviceId>) -> Option<&mut Device> {
        self.accounts.get_mut(address)?.devices.get_mut(&device?)
    }

    pub(super) fn login(&mut self, session: &Session) -> FromServer {
        if let Some(reason) = self.faults.refuse {
            return FromServer::Failure(reason);
        }
        let enlisted = match session.device {
            None => None,
            Some(id) => {
                let account = self.accounts.get(&session.address);
                let Some((account, device)) = account.and_then(|account| Some((account, account.devices.get(&id)?)))
                else {
                    return FromServer::Failure(FailureReason::DeviceUnknown);
                };
                if device.noise != session.noise {
                    return FromServer::Failure(FailureReason::DeviceKey);
                }
                Some((account, device, Enlisted { account: account.id, device: id }))
            }
        };
        FromServer::Success(Success {
            session: SessionId::from_bytes([7; 16]),
            address: session.address.clone(),
            enlisted: enlisted.as_ref().map(|(_, _, enlisted)| *enlisted),
            device_count: enlisted.as_ref().map_or(0, |(account, _, _)| u32::try_from(account.devices.len()).unwrap()),
            prekeys_low: enlisted.as_ref().is_some_and(|(_, device, _)| device.ec.len() < 20),
            waiting: enlisted.as_ref().map_or(0, |(_, device, _)| u64::try_from(device.mailbox.len()).unwrap()),
        })
    }

    pub(super) fn enlist(&mut self, session: &Session, enlist: stanza::Enlist) -> ResponseBody {
        self.stats.enlistments += 1;
        if session.device.is_some() {
            return error(ErrorCode::AlreadyEnlisted);
        }
        let next = &mut self.next_account;
        let account = self.accounts.entry(session.address.clone()).or_insert_with(|| {
            *next += 1;
            let consent = ConsentSettings {
                interop: false,
                providers: List::new(),
                inbox: InboxSetting::Separate,
                reach: Reach::Everyone,
            };
            Account { id: AccountId::from_bytes([*next; 16]), devices: BTreeMap::new(), consent }
        });
        let same = account.devices.iter().find(|(_, device)| device.noise == session.noise).map(|(id, _)| *id);
        let id = same.unwrap_or_else(|| {
            let last = account.devices.keys().next_back().map_or(0, |id| id.get());
            DeviceId::new(last + 1).unwrap()
        });
        account.devices.entry(id).or_insert_with(|| Device {
            noise: session.noise,
            registration: enlist.registration,
            identity: enlist.identity_key,
            signed: enlist.signed_prekey,
            last_resort: enlist.last_resort_kyber,
            ec: enlist.ec_prekeys.into_vec().into(),
            kyber: enlist.kyber_prekeys.into_vec().into(),
            mailbox: VecDeque::new(),
            online: None,
        });
        ResponseBody::Enlisted(Enlisted { account: account.id, device: id })
    }

    pub(super) fn list(&self, address: &Address) -> stanza::Devices {
        let devices = self.accounts[address].devices.iter();
        let devices =
            devices.map(|(id, device)| stanza::Device { id: *id, registration: device.registration, enlisted_ms: 0 });
        List::try_from(devices.collect::<Vec<_>>()).unwrap()
    }

    pub(super) fn claim(&mut self, session: &Session, address: &Address, named: &[DeviceId]) -> ResponseBody {
        self.stats.claims += 1;
        if self.faults.refuse_claims > 0 {
            self.faults.refuse_claims -= 1;
            return ResponseBody::Error(IqError::new(ErrorCode::RateLimited).retry_after_ms(1));
        }
        let bad = self.faults.bad_bundles;
        let open = !self.faults.closed.contains(address);
        let Some(account) = self.accounts.get_mut(address).filter(|_| open) else {
            return error(ErrorCode::NotAvailable);
        };
        let mut bundles = Vec::new();
        for (id, device) in &mut account.devices {
            let own = *address == session.address && Some(*id) == session.device;
            if own || !(named.is_empty() || named.contains(id)) {
                continue;
            }
            let mut signed_prekey = device.signed.clone();
            if bad {
                signed_prekey.signature = stanza::Signature::try_from(vec![9; 64]).unwrap();
            }
            bundles.push(KeyBundle {
                device: *id,
                registration: device.registration,
                identity_key: device.identity.clone(),
                signed_prekey,
                ec_prekey: device.ec.pop_front(),
                kyber_prekey: device.kyber.pop_front().unwrap_or(device.last_resort.clone()),
            });
        }
        ResponseBody::KeyBundles(KeyBundles { account: account.id, bundles: List::try_from(bundles).unwrap() })
    }

    pub(super) fn accept(&mut self, from: &Address, device: DeviceId, submit: Submit) -> Fate {
        if self.faults.rate_limit > 0 {
            self.faults.rate_limit -= 1;
            return Fate::Rejected(Rejected::RateLimited { retry_after_ms: 1 });
        }
        let key = (self.accounts[from].id, device, submit.id);
        if let Some(fate) = self.outcomes.get(&key) {
            return fate.clone();
        }
        let open = !self.faults.closed.contains(&submit.to);
        let sender = self.accounts[from].id;
        let Some(account) = self.accounts.get_mut(&submit.to).filter(|_| open) else {
            return Fate::Rejected(Rejected::NotAvailable);
        };
        let expected: BTreeMap<_, _> = account
            .devices
            .iter()
            .filter(|(id, _)| submit.to != *from || **id != device)
            .map(|(id, device)| (*id, device.registration))
            .collect();
        let named: BTreeMap<_, _> = submit.enc.iter().map(|enc| (enc.device, enc.registration)).collect();
        if expected != named {
            self.stats.device_rejections += 1;
            let list = |ids: Vec<DeviceId>| List::try_from(ids).unwrap();
            return Fate::Rejected(Rejected::Devices(DeviceMismatch {
                missing: list(expected.keys().filter(|id| !named.contains_key(id)).copied().collect()),
                extra: list(named.keys().filter(|id| !expected.contains_key(id)).copied().collect()),
                stale: list(
                    named
                        .iter()
                        .filter(|(id, reg)| expected.get(id).is_some_and(|known| known != *reg))
                        .map(|(id, _)| *id)
                        .collect(),
                ),
            }));
        }
        for enc in submit.enc.into_vec() {
            let mut ciphertext = enc.ciphertext;
            if let Some((address, damaged, count)) = &mut self.faults.damage
                && (&*address, *damaged) == (&submit.to, enc.device)
                && *count > 0
                && enc.kind != stanza::EncType::Plaintext
            {
                *count -= 1;
                let mut bytes = ciphertext.as_bytes().to_vec();
                // Within the encrypted part of either kind of message.
                bytes[150] ^= 1;
                ciphertext = stanza::Ciphertext::try_from(bytes).unwrap();
            }
            let delivery = Delivery {
                id: submit.id,
                from: DeviceAddress { account: from.clone(), device },
                from_account: sender,
                class: submit.class,
                ts_ms: 1,
                tag: 1,
                origin: origin(from),
                kind: enc.kind,
                ciphertext,
            };
            let device = account.devices.get_mut(&enc.device).unwrap();
            device.mailbox.push_back(delivery.clone());
            device.deliver(delivery);
        }
        self.outcomes.insert(key, Fate::Stored);
        Fate::Stored
    }

    /// An acknowledgement in one session; a session that has been replaced acknowledges nothing any more.
    pub(super) fn processed(&mut self, address: &Address, device: Option<DeviceId>, session: u64, tag: u64) -> bool {
        let Some(device) = self.device(address, device) else { return false };
        let Some(online) = device.online.as_mut().filter(|online| online.session == session) else { return false };
        if tag >= online.next_tag {
            self.stats.bad_acks += 1;
            return false;
        }
        while online.sent.front().is_some_and(|(sent, _)| *sent <= tag) {
            let (_, (account, from, id)) = online.sent.pop_front().unwrap();
            device.mailbox.retain(|kept| (kept.from_account, kept.from.device, kept.id) != (account, from, id));
        }
        true
    }
}

impl Device {
    pub(super) fn counts(&self) -> KeyCounts {
        KeyCounts { ec: u32::try_from(self.ec.len()).unwrap(), kyber: u32::try_from(self.kyber.len()).unwrap() }
    }

    pub(super) fn deliver(&mut self, mut delivery: Delivery) {
        let Some(online) = &mut self.online else { return };
        delivery.tag = online.next_tag;
        online.next_tag += 1;
        online.sent.push_back((delivery.tag, (delivery.from_account, delivery.from.device, delivery.id)));
        let _ = online.to.send(FromServer::Message(delivery));
    }
}
