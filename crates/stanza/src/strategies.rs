//! Strategies for every stanza, for property tests and fuzz seeds.

use std::num::NonZeroU64;

use causeway_identity::{AccountId, Address, DeviceAddress, DeviceId, Domain, MessageId, SessionId};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{
    Blob, ConsentSettings, Contact, Contacts, Delivery, Device, DeviceIds, DeviceMismatch, EcPrekey, Enc, EncList,
    EncType, End, EndReason, Enlist, Enlisted, ErrorCode, FailureReason, Fate, FromClient, FromServer, Inbox,
    InboxSetting, IqError, KeyBundle, KeyBundles, KeyCounts, KeysClaim, KeysPublish, List, MediaDownload, MediaTicket,
    MediaUpload, MessageClass, Notification, Origin, Outcome, ProviderKind, ProviderRule, Reach, RegistrationId,
    Rejected, Report, Request, RequestBody, Response, ResponseBody, Sha256, SignedPrekey, Submit, Success, Text,
};

/// Anything that a client can send.
pub fn from_client() -> impl Strategy<Value = FromClient> {
    prop_oneof![
        4 => submit().prop_map(FromClient::Message),
        1 => (1..=u64::MAX).prop_map(FromClient::Ack),
        8 => request().prop_map(FromClient::Iq),
        1 => any::<u64>().prop_map(FromClient::Ping),
        1 => any::<u64>().prop_map(FromClient::Pong),
        1 => end().prop_map(FromClient::End),
    ]
}

/// Anything that a server can send.
pub fn from_server() -> impl Strategy<Value = FromServer> {
    prop_oneof![
        1 => success().prop_map(FromServer::Success),
        1 => select(FailureReason::ALL).prop_map(FromServer::Failure),
        4 => delivery().prop_map(FromServer::Message),
        4 => outcome().prop_map(FromServer::Ack),
        8 => response().prop_map(FromServer::Iq),
        2 => notification().prop_map(FromServer::Notification),
        1 => any::<u64>().prop_map(FromServer::Ping),
        1 => any::<u64>().prop_map(FromServer::Pong),
        1 => end().prop_map(FromServer::End),
    ]
}

/// A submitted message.
pub fn submit() -> impl Strategy<Value = Submit> {
    let shares =
        btree_map(device(), (registration(), select(EncType::ALL), blob::<1, { crate::MAX_RECORD_BYTES }>()), 1..=16);
    let enc = shares.prop_map(|shares| {
        let list: Vec<Enc> = shares
            .into_iter()
            .map(|(device, (registration, kind, ciphertext))| Enc { device, registration, kind, ciphertext })
            .collect();
        EncList::try_from(list).expect("1 to 16 different devices")
    });
    (message_id(), address(), select(MessageClass::ALL), enc).prop_map(|(id, to, class, enc)| Submit {
        id,
        to,
        class,
        enc,
    })
}

/// A request of any kind.
pub fn request() -> impl Strategy<Value = Request> {
    let body = prop_oneof![
        enlist().prop_map(RequestBody::Enlist),
        keys_publish().prop_map(RequestBody::KeysPublish),
        Just(RequestBody::KeysCount),
        (address(), devices()).prop_map(|(address, devices)| RequestBody::KeysClaim(KeysClaim { address, devices })),
        Just(RequestBody::DevicesList),
        device().prop_map(RequestBody::DeviceRemove),
        Just(RequestBody::ConsentGet),
        consent().prop_map(RequestBody::ConsentSet),
        contact().prop_map(RequestBody::Contact),
        address().prop_map(RequestBody::Discover),
        (address(), option::of(message_id()), blob())
            .prop_map(|(address, message, evidence)| RequestBody::Report(Report { address, message, evidence })),
        (1..=u64::MAX, hash()).prop_map(|(size, sha256)| RequestBody::MediaUpload(MediaUpload { size, sha256 })),
        (text(), 1..=u64::MAX, hash()).prop_map(|(url, size, sha256)| RequestBody::MediaDownload(MediaDownload {
            url,
            size,
            sha256
        })),
        option::of(blob()).prop_map(RequestBody::Push),
        text().prop_map(RequestBody::TokenRefresh),
        Just(RequestBody::Withdraw),
    ];
    (iq_id(), body).prop_map(|(id, body)| Request { id, body })
}

/// A response of any kind.
pub fn response() -> impl Strategy<Value = Response> {
    let body = prop_oneof![
        Just(ResponseBody::Done),
        (select(ErrorCode::ALL), any::<u64>(), text())
            .prop_map(|(code, retry_after_ms, detail)| ResponseBody::Error(IqError { code, retry_after_ms, detail })),
        enlisted().prop_map(ResponseBody::Enlisted),
        counts().prop_map(ResponseBody::KeyCounts),
        key_bundles().prop_map(ResponseBody::KeyBundles),
        btree_map(device(), (registration(), any::<u64>()), 0..=16).prop_map(|devices| {
            let list = devices
                .into_iter()
                .map(|(id, (registration, enlisted_ms))| Device { id, registration, enlisted_ms })
                .collect();
            ResponseBody::Devices(bounded(list))
        }),
        consent().prop_map(ResponseBody::Consent),
        (text(), text(), any::<u64>(), option::of(text())).prop_map(|(url, ticket, expires_ms, public_url)| {
            ResponseBody::MediaTicket(MediaTicket { url, ticket, expires_ms, public_url })
        }),
        (vec(address(), 0..4), vec(address(), 0..4), vec(address(), 0..4)).prop_map(|(accepted, blocked, requests)| {
            ResponseBody::Contacts(Contacts {
                accepted: bounded(accepted),
                blocked: bounded(blocked),
                requests: bounded(requests),
            })
        }),
    ];
    (iq_id(), body).prop_map(|(id, body)| Response { id, body })
}

fn success() -> impl Strategy<Value = Success> {
    (any::<[u8; 16]>(), address(), option::of(enlisted()), any::<u32>(), any::<bool>(), any::<u64>()).prop_map(
        |(session, address, enlisted, device_count, prekeys_low, waiting)| Success {
            session: SessionId::from_bytes(session),
            address,
            enlisted,
            device_count,
            prekeys_low,
            waiting,
        },
    )
}

pub(crate) fn delivery() -> impl Strategy<Value = Delivery> {
    (
        (message_id(), address(), device(), account(), select(MessageClass::ALL)),
        (any::<u64>(), 1..=u64::MAX, origin(), select(EncType::ALL), blob()),
    )
        .prop_map(|((id, from, device, from_account, class), (ts_ms, tag, origin, kind, ciphertext))| Delivery {
            id,
            from: DeviceAddress { account: from, device },
            from_account,
            class,
            ts_ms,
            tag,
            origin,
            kind,
            ciphertext,
        })
}

fn origin() -> impl Strategy<Value = Origin> {
    (domain(), select(ProviderKind::ALL), text(), select(Inbox::ALL))
        .prop_map(|(provider, kind, protocol, inbox)| Origin { provider, kind, protocol, inbox })
}

pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    let mismatch =
        (devices(), devices(), devices()).prop_map(|(missing, extra, stale)| DeviceMismatch { missing, extra, stale });
    let fate = prop_oneof![
        Just(Fate::Delivered),
        Just(Fate::Stored),
        Just(Fate::Dropped),
        mismatch.prop_map(|mismatch| Fate::Rejected(Rejected::Devices(mismatch))),
        Just(Fate::Rejected(Rejected::NotAvailable)),
        any::<u64>().prop_map(|retry_after_ms| Fate::Rejected(Rejected::RateLimited { retry_after_ms })),
        Just(Fate::Rejected(Rejected::TooLarge)),
        Just(Fate::Rejected(Rejected::RequestPending)),
    ];
    (message_id(), address(), fate).prop_map(|(id, to, fate)| Outcome { id, to, fate })
}

fn notification() -> impl Strategy<Value = Notification> {
    prop_oneof![
        counts().prop_map(Notification::PrekeysLow),
        address().prop_map(Notification::DevicesChanged),
        Just(Notification::ConsentChanged),
        address().prop_map(Notification::ContactRequest),
    ]
}

fn end() -> impl Strategy<Value = End> {
    (select(EndReason::ALL), any::<u64>()).prop_map(|(reason, retry_after_ms)| End { reason, retry_after_ms })
}

fn enlist() -> impl Strategy<Value = Enlist> {
    (registration(), blob(), signed_prekey(), signed_prekey(), vec(ec_prekey(), 0..5), vec(signed_prekey(), 0..5))
        .prop_map(|(registration, identity_key, signed_prekey, last_resort_kyber, ec, kyber)| Enlist {
            registration,
            identity_key,
            signed_prekey,
            last_resort_kyber,
            ec_prekeys: bounded(ec),
            kyber_prekeys: bounded(kyber),
        })
}

fn keys_publish() -> impl Strategy<Value = KeysPublish> {
    let signed = || option::of(signed_prekey());
    (blob(), signed(), signed(), vec(ec_prekey(), 0..5), vec(signed_prekey(), 0..5)).prop_map(
        |(identity_key, signed_prekey, last_resort_kyber, ec, kyber)| KeysPublish {
            identity_key,
            signed_prekey,
            last_resort_kyber,
            ec_prekeys: bounded(ec),
            kyber_prekeys: bounded(kyber),
        },
    )
}

fn key_bundles() -> impl Strategy<Value = KeyBundles> {
    let keys = (registration(), blob(), signed_prekey(), option::of(ec_prekey()), signed_prekey());
    (account(), btree_map(device(), keys, 0..4)).prop_map(|(account, bundles)| {
        let list = bundles
            .into_iter()
            .map(|(device, (registration, identity_key, signed_prekey, ec_prekey, kyber_prekey))| KeyBundle {
                device,
                registration,
                identity_key,
                signed_prekey,
                ec_prekey,
                kyber_prekey,
            })
            .collect();
        KeyBundles { account, bundles: bounded(list) }
    })
}

fn signed_prekey() -> impl Strategy<Value = SignedPrekey> {
    (any::<u32>(), blob(), blob()).prop_map(|(id, public_key, signature)| SignedPrekey { id, public_key, signature })
}

fn ec_prekey() -> impl Strategy<Value = EcPrekey> {
    (any::<u32>(), blob()).prop_map(|(id, public_key)| EcPrekey { id, public_key })
}

fn consent() -> impl Strategy<Value = ConsentSettings> {
    (any::<bool>(), btree_map(domain(), any::<bool>(), 0..5), select(InboxSetting::ALL), select(Reach::ALL)).prop_map(
        |(interop, rules, inbox, reach)| {
            let providers = rules.into_iter().map(|(provider, allow)| ProviderRule { provider, allow }).collect();
            ConsentSettings { interop, providers: bounded(providers), inbox, reach }
        },
    )
}

fn contact() -> impl Strategy<Value = Contact> {
    prop_oneof![
        address().prop_map(Contact::Accept),
        address().prop_map(Contact::Decline),
        address().prop_map(Contact::Block),
        address().prop_map(Contact::Unblock),
        Just(Contact::List),
    ]
}

/// An address whose local part may hold anything that XML has to escape.
pub fn address() -> impl Strategy<Value = Address> {
    let local = prop_oneof![3 => "[a-z0-9._+-]{1,12}", 1 => "[a-z<>&\"'éß中\u{1F600} ]{0,12}[a-z&]"];
    (local, domain()).prop_filter_map("an address", |(local, domain)| Address::new(&local, &domain).ok())
}

fn domain() -> impl Strategy<Value = Domain> {
    "[a-z][a-z0-9]{0,8}\\.(example|test)".prop_filter_map("a domain", |text| text.parse().ok())
}

fn enlisted() -> impl Strategy<Value = Enlisted> {
    (account(), device()).prop_map(|(account, device)| Enlisted { account, device })
}

fn counts() -> impl Strategy<Value = KeyCounts> {
    (any::<u32>(), any::<u32>()).prop_map(|(ec, kyber)| KeyCounts { ec, kyber })
}

fn device() -> impl Strategy<Value = DeviceId> {
    prop_oneof![1..=127_u32, 1..=i32::MAX as u32].prop_map(|number| DeviceId::new(number).expect("in range"))
}

fn devices() -> impl Strategy<Value = DeviceIds> {
    btree_set(device(), 0..=16).prop_map(|set| bounded(set.into_iter().collect()))
}

fn registration() -> impl Strategy<Value = RegistrationId> {
    (1..=RegistrationId::MAX).prop_map(|number| RegistrationId::new(number).expect("in range"))
}

fn message_id() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId::from_bytes)
}

fn account() -> impl Strategy<Value = AccountId> {
    any::<[u8; 16]>().prop_map(AccountId::from_bytes)
}

fn hash() -> impl Strategy<Value = Sha256> {
    any::<[u8; 32]>().prop_map(Sha256)
}

fn iq_id() -> impl Strategy<Value = NonZeroU64> {
    prop_oneof![1..1000_u64, 1..=u64::MAX].prop_map(|id| NonZeroU64::new(id).expect("not 0"))
}

fn blob<const MIN: usize, const MAX: usize>() -> impl Strategy<Value = Blob<MIN, MAX>> {
    vec(any::<u8>(), MIN..=MAX.min(80)).prop_map(|bytes| Blob::try_from(bytes).expect("within bounds"))
}

fn text<const MIN: usize, const MAX: usize>() -> impl Strategy<Value = Text<MIN, MAX>> {
    prop_oneof![2 => "[a-zA-Z0-9._:/?=-]{1,30}", 1 => "\\PC{1,10}", 1 => "[<>&\"' 0]{1,10}"]
        .prop_map(|text| Text::lossy(&text))
}

fn bounded<T: std::fmt::Debug, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    List::try_from(items).expect("the strategies keep to the bounds")
}
