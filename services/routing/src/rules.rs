//! The checks of a message, as pure functions, in the protocol's order: may it go at all, then size, then devices.

use causeway_identity::DeviceId;

use crate::message::{Inbox, Kind, Mismatch, Origin, Sender, Submission};
use crate::records::Record;

/// May this sender reach this account? Both providers are live and one of them is home; both users have opted in; the
/// recipient has closed neither its door nor the one towards that provider. Own devices may always be reached.
pub(crate) fn permits(recipient: &Record, sender: &Record, from: &Sender) -> bool {
    if sender.account != from.account || sender.device(from.device).is_none() || !sender.live {
        return false;
    }
    if recipient.account == sender.account {
        return true;
    }
    let route = recipient.live && (recipient.kind == Kind::Home || sender.kind == Kind::Home);
    let consent = recipient.interop && sender.interop && recipient.reachable;
    let provider_allowed = recipient.rules.get(&sender.provider).copied().unwrap_or(true);
    route && consent && provider_allowed && !recipient.devices.is_empty()
}

/// How the devices that a message names differ from those that it must name: all of the recipient; of one's own account
/// all but the sending one.
pub(crate) fn mismatch(submission: &Submission, recipient: &Record) -> Mismatch {
    let own = recipient.account == submission.from.account;
    // A bit for each device of the recipient.
    let mut named = 0_u32;
    let mut mismatch = Mismatch::default();
    for enc in &submission.enc {
        let at = recipient.devices.iter().position(|known| known.id == enc.device);
        let known = at.and_then(|at| recipient.devices.get(at).zip(1_u32.checked_shl(u32::try_from(at).ok()?)));
        let repeated = known.is_some_and(|(_, bit)| named & bit != 0);
        named |= known.map_or(0, |(_, bit)| bit);
        let sending = own && enc.device == submission.from.device;
        match known {
            Some((known, _)) if !repeated && !sending => {
                if known.registration != enc.registration {
                    mismatch.stale.push(enc.device);
                }
            }
            _ => mismatch.extra.push(enc.device),
        }
    }
    for (at, device) in recipient.devices.iter().enumerate() {
        let sending = own && device.id == submission.from.device;
        if !sending && named.checked_shr(u32::try_from(at).unwrap_or(u32::MAX)).is_none_or(|named| named & 1 == 0) {
            mismatch.missing.push(device.id);
        }
    }
    for list in [&mut mismatch.extra, &mut mismatch.stale] {
        list.sort_unstable();
        list.dedup();
        list.truncate(MAX_LISTED);
    }
    mismatch
}

/// What a recipient's client is told of where a message comes from.
pub(crate) fn origin(recipient: &Record, sender: &Record) -> Origin {
    let familiar = sender.kind == Kind::Home || sender.provider == recipient.provider || recipient.combined;
    let inbox = if familiar { Inbox::Main } else { Inbox::ThirdParty };
    Origin { provider: sender.provider.clone(), kind: sender.kind, inbox }
}

const _: () = assert!(DeviceId::MAX_PER_ACCOUNT <= 32, "a bit for each device");

/// An answer lists no more devices than this of a kind.
const MAX_LISTED: usize = 2 * DeviceId::MAX_PER_ACCOUNT;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{Class, Enc, EncType};
    use crate::records::fake;

    fn record(address: &str, account: u8, devices: &[u32]) -> Record {
        Record::parse(fake::record(address, account, devices), &address.parse().unwrap()).unwrap()
    }

    fn from(record: &Record, address: &str, device: u32) -> Sender {
        Sender {
            account: record.account,
            device: DeviceId::new(device).unwrap(),
            address: address.parse().unwrap(),
            provider: record.provider.clone(),
        }
    }

    fn submission(from: Sender, enc: &[(u32, u32)]) -> Submission {
        let enc = enc.iter().map(|&(device, registration)| Enc {
            device: DeviceId::new(device).unwrap(),
            registration,
            kind: EncType::Whisper,
            ciphertext: bytes::Bytes::new(),
        });
        Submission {
            id: causeway_identity::MessageId::from_bytes([1; 16]),
            from: Arc::new(from),
            to: "bo@home.example".parse().unwrap(),
            class: Class::Chat,
            enc: enc.collect(),
            charge: None,
            trace: None,
        }
    }

    fn devices(ids: &[u32]) -> Vec<DeviceId> {
        ids.iter().map(|&id| DeviceId::new(id).unwrap()).collect()
    }

    #[test]
    fn each_closed_door_keeps_a_message_out() {
        let (ada, bo) = (record("ada@birdy.example", 1, &[1]), record("bo@home.example", 2, &[1]));
        let sender = from(&ada, "ada@birdy.example", 1);
        assert!(permits(&bo, &ada, &sender));
        let closed: [fn(&mut Record, &mut Record); 8] = [
            |bo, _| bo.live = false,
            |_, ada| ada.live = false,
            |bo, _| bo.interop = false,
            |_, ada| ada.interop = false,
            |bo, _| bo.reachable = false,
            |bo, _| assert_eq!(bo.rules.insert("birdy.example".parse().unwrap(), false), None),
            |bo, _| bo.kind = Kind::ThirdParty,
            |bo, _| bo.devices.clear(),
        ];
        for (nth, close) in closed.into_iter().enumerate() {
            let (mut bo, mut ada) = (bo.clone(), ada.clone());
            close(&mut bo, &mut ada);
            assert!(!permits(&bo, &ada, &sender), "{nth}");
        }
        assert!(!permits(&bo, &ada, &from(&ada, "ada@birdy.example", 2)), "a device that was removed");
        let mut enlisted_again = ada;
        enlisted_again.account = causeway_identity::AccountId::from_bytes([9; 16]);
        assert!(!permits(&bo, &enlisted_again, &sender), "an account that was withdrawn");
    }

    #[test]
    fn every_device_is_to_be_named_once_under_its_registration() {
        let ada = record("ada@birdy.example", 1, &[1, 2]);
        let bo = record("bo@home.example", 2, &[1, 4]);
        let check = |enc: &[(u32, u32)]| mismatch(&submission(from(&ada, "ada@birdy.example", 1), enc), &bo);
        let mismatched = |missing: &[u32], extra: &[u32], stale: &[u32]| Mismatch {
            missing: devices(missing),
            extra: devices(extra),
            stale: devices(stale),
        };
        assert!(check(&[(1, 101), (4, 104)]).is_empty());
        assert_eq!(check(&[]), mismatched(&[1, 4], &[], &[]));
        assert_eq!(check(&[(1, 101), (1, 101), (4, 104)]), mismatched(&[], &[1], &[]));
        assert_eq!(check(&[(4, 104), (1, 7)]), mismatched(&[], &[], &[1]));
        assert_eq!(check(&[(1, 101), (7, 1)]), mismatched(&[4], &[7], &[]));
        let many: Vec<_> = (1..=200).map(|id| (id, 100 + id)).collect();
        assert_eq!(check(&many).extra.len(), MAX_LISTED);
    }

    #[test]
    fn of_ones_own_account_the_sending_device_is_left_out() {
        let ada = record("ada@birdy.example", 1, &[1, 2]);
        let check = |enc: &[(u32, u32)]| mismatch(&submission(from(&ada, "ada@birdy.example", 1), enc), &ada);
        assert!(check(&[(2, 102)]).is_empty());
        assert_eq!(check(&[(1, 101), (2, 102)]).extra, devices(&[1]));
        assert_eq!(check(&[]).missing, devices(&[2]));
    }

    #[test]
    fn third_parties_have_an_inbox_of_their_own_unless_it_is_combined() {
        let ada = record("ada@birdy.example", 1, &[1]);
        let mut bo = record("bo@home.example", 2, &[1]);
        assert_eq!(origin(&bo, &ada).inbox, Inbox::ThirdParty);
        assert_eq!(origin(&ada, &bo).inbox, Inbox::Main);
        assert_eq!(origin(&ada, &ada).inbox, Inbox::Main);
        bo.combined = true;
        assert_eq!(origin(&bo, &ada).inbox, Inbox::Main);
    }
}
