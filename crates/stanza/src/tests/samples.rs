//! One stanza of each kind, for golden files and the examples of docs/protocol.md. Keys and ciphertexts are shortened.

use std::num::NonZeroU64;

use causeway_identity::{AccountId, DeviceId, MessageId, SessionId};

use crate::{
    Blob, ConsentSettings, Contact, Contacts, Delivery, Device, DeviceMismatch, EcPrekey, Enc, EncList, EncType, End,
    EndReason, Enlist, Enlisted, ErrorCode, FailureReason, Fate, FromClient, FromServer, Inbox, InboxSetting, IqError,
    KeyBundle, KeyBundles, KeyCounts, KeysClaim, KeysPublish, List, MediaDownload, MediaTicket, MediaUpload,
    MessageClass, Notification, Origin, Outcome, ProviderKind, ProviderRule, Reach, RegistrationId, Rejected, Report,
    Request, RequestBody, Response, ResponseBody, Sha256, SignedPrekey, Submit, Success, Text,
};

/// What clients send, by the name of the golden file.
pub(super) fn client() -> Vec<(&'static str, FromClient)> {
    let iq = |id: u64, body| FromClient::Iq(Request { id: NonZeroU64::new(id).expect("not 0"), body });
    vec![
        (
            "message",
            FromClient::Message(Submit {
                id: MessageId::from_bytes(*b"\x0b\x6f\x5a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d"),
                to: address("bo@home.example"),
                class: MessageClass::Chat,
                enc: EncList::try_from(vec![
                    enc(1, 9127, EncType::Prekey, b"first device"),
                    enc(4, 310, EncType::Whisper, b"fourth device"),
                ])
                .expect("two devices"),
            }),
        ),
        (
            "message-retry-request",
            FromClient::Message(Submit {
                id: MessageId::from_bytes([0x5e; 16]),
                to: address("ada@birdy.example"),
                class: MessageClass::Chat,
                enc: EncList::try_from(vec![enc(7, 55, EncType::Plaintext, b"decryption error")]).expect("one device"),
            }),
        ),
        ("ack", FromClient::Ack(17)),
        ("iq-enlist", iq(1, RequestBody::Enlist(enlist()))),
        (
            "iq-keys-publish",
            iq(
                2,
                RequestBody::KeysPublish(KeysPublish {
                    identity_key: blob(b"\x05identity"),
                    signed_prekey: Some(signed(2, b"\x05signed prekey")),
                    last_resort_kyber: None,
                    ec_prekeys: list(vec![ec(101)]),
                    kyber_prekeys: List::new(),
                }),
            ),
        ),
        ("iq-keys-count", iq(3, RequestBody::KeysCount)),
        (
            "iq-keys-claim",
            iq(
                4,
                RequestBody::KeysClaim(KeysClaim {
                    address: address("bo@home.example"),
                    devices: list(vec![device(1), device(4)]),
                }),
            ),
        ),
        ("iq-devices-list", iq(5, RequestBody::DevicesList)),
        ("iq-device-remove", iq(6, RequestBody::DeviceRemove(device(2)))),
        ("iq-consent-get", iq(7, RequestBody::ConsentGet)),
        ("iq-consent-set", iq(8, RequestBody::ConsentSet(consent()))),
        ("iq-contact", iq(9, RequestBody::Contact(Contact::Block(address("eve@crow.example"))))),
        ("iq-contact-list", iq(10, RequestBody::Contact(Contact::List))),
        ("iq-discover", iq(11, RequestBody::Discover(address("bo@home.example")))),
        (
            "iq-report",
            iq(
                12,
                RequestBody::Report(Report {
                    address: address("eve@crow.example"),
                    message: Some(MessageId::from_bytes([0xab; 16])),
                    evidence: blob(b"what was said"),
                }),
            ),
        ),
        ("iq-media-upload", iq(13, RequestBody::MediaUpload(MediaUpload { size: 65_568, sha256: Sha256([0x11; 32]) }))),
        (
            "iq-media-download",
            iq(
                14,
                RequestBody::MediaDownload(MediaDownload {
                    url: text("https://media.birdy.example/v1/blobs/4f1c00b7a2e34d5b8c9d0e1f2a3b4c5d?v=1&w=2"),
                    size: 65_568,
                    sha256: Sha256([0x11; 32]),
                }),
            ),
        ),
        ("iq-push", iq(15, RequestBody::Push(Some(blob(b"device token"))))),
        ("iq-push-drop", iq(16, RequestBody::Push(None))),
        ("iq-token-refresh", iq(17, RequestBody::TokenRefresh(text("eyJhbGciOiJFZERTQSJ9.e30.c2ln")))),
        ("iq-withdraw", iq(18, RequestBody::Withdraw)),
        ("ping", FromClient::Ping(3)),
        ("pong", FromClient::Pong(0)),
        ("end", FromClient::End(End::new(EndReason::Bye))),
    ]
}

/// What servers send, by the name of the golden file.
pub(super) fn server() -> Vec<(&'static str, FromServer)> {
    let iq = |id: u64, body| FromServer::Iq(Response { id: NonZeroU64::new(id).expect("not 0"), body });
    let ack = |fate| {
        FromServer::Ack(Outcome {
            id: MessageId::from_bytes(*b"\x0b\x6f\x5a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d"),
            to: address("bo@home.example"),
            fate,
        })
    };
    vec![
        (
            "success",
            FromServer::Success(Success {
                session: SessionId::from_bytes([0xc0; 16]),
                address: address("ada@birdy.example"),
                enlisted: Some(Enlisted { account: AccountId::from_bytes([0xa1; 16]), device: device(7) }),
                device_count: 2,
                prekeys_low: false,
                waiting: 3,
            }),
        ),
        (
            "success-not-enlisted",
            FromServer::Success(Success {
                session: SessionId::from_bytes([0xc1; 16]),
                address: address("ada@birdy.example"),
                enlisted: None,
                device_count: 0,
                prekeys_low: false,
                waiting: 0,
            }),
        ),
        ("failure", FromServer::Failure(FailureReason::TokenExpired)),
        (
            "message",
            FromServer::Message(Delivery {
                id: MessageId::from_bytes(*b"\x0b\x6f\x5a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d"),
                from: "ada@birdy.example/7".parse().expect("a device address"),
                from_account: AccountId::from_bytes([0xa1; 16]),
                class: MessageClass::Chat,
                ts_ms: 1_795_310_000_123,
                tag: 17,
                origin: Origin {
                    provider: "birdy.example".parse().expect("a domain"),
                    kind: ProviderKind::ThirdParty,
                    protocol: text("signal"),
                    inbox: Inbox::ThirdParty,
                },
                kind: EncType::Prekey,
                ciphertext: blob(b"first device"),
            }),
        ),
        ("ack-delivered", ack(Fate::Delivered)),
        ("ack-stored", ack(Fate::Stored)),
        ("ack-dropped", ack(Fate::Dropped)),
        (
            "ack-rejected-devices",
            ack(Fate::Rejected(Rejected::Devices(DeviceMismatch {
                missing: list(vec![device(3), device(5)]),
                extra: list(vec![device(4)]),
                stale: list(vec![device(1)]),
            }))),
        ),
        ("ack-rejected-not-available", ack(Fate::Rejected(Rejected::NotAvailable))),
        ("ack-rejected-rate-limited", ack(Fate::Rejected(Rejected::RateLimited { retry_after_ms: 1500 }))),
        ("iq-done", iq(6, ResponseBody::Done)),
        ("iq-error", iq(4, ResponseBody::Error(IqError::new(ErrorCode::RateLimited).retry_after_ms(60_000)))),
        (
            "iq-error-detail",
            iq(1, ResponseBody::Error(IqError::new(ErrorCode::BadKeys).with_detail("kyber_prekeys[3].signature"))),
        ),
        (
            "iq-enlisted",
            iq(1, ResponseBody::Enlisted(Enlisted { account: AccountId::from_bytes([0xa1; 16]), device: device(7) })),
        ),
        ("iq-key-counts", iq(3, ResponseBody::KeyCounts(KeyCounts { ec: 98, kyber: 0 }))),
        (
            "iq-key-bundles",
            iq(
                4,
                ResponseBody::KeyBundles(KeyBundles {
                    account: AccountId::from_bytes([0xb0; 16]),
                    bundles: list(vec![
                        KeyBundle {
                            device: device(1),
                            registration: registration(9127),
                            identity_key: blob(b"\x05identity"),
                            signed_prekey: signed(1, b"\x05signed prekey"),
                            ec_prekey: Some(ec(100)),
                            kyber_prekey: signed(200, b"\x08kyber"),
                        },
                        KeyBundle {
                            device: device(4),
                            registration: registration(310),
                            identity_key: blob(b"\x05other identity"),
                            signed_prekey: signed(9, b"\x05signed prekey"),
                            ec_prekey: None,
                            kyber_prekey: signed(1, b"\x08last resort"),
                        },
                    ]),
                }),
            ),
        ),
        (
            "iq-devices",
            iq(
                5,
                ResponseBody::Devices(list(vec![
                    Device { id: device(1), registration: registration(9127), enlisted_ms: 1_795_000_000_000 },
                    Device { id: device(4), registration: registration(310), enlisted_ms: 1_795_100_000_000 },
                ])),
            ),
        ),
        ("iq-consent", iq(8, ResponseBody::Consent(consent()))),
        (
            "iq-media-ticket-upload",
            iq(
                13,
                ResponseBody::MediaTicket(MediaTicket {
                    url: text("https://media.home.example/v1/blobs/9d0e1f2a3b4c5d4f1c00b7a2e34d5b8c"),
                    ticket: text("dGlja2V0"),
                    expires_ms: 1_795_310_600_000,
                    public_url: Some(text("https://media.home.example/v1/blobs/9d0e1f2a3b4c5d4f1c00b7a2e34d5b8c")),
                }),
            ),
        ),
        (
            "iq-media-ticket-download",
            iq(
                14,
                ResponseBody::MediaTicket(MediaTicket {
                    url: text("https://relay.home.example/v1/relay"),
                    ticket: text("dGlja2V0"),
                    expires_ms: 1_795_310_600_000,
                    public_url: None,
                }),
            ),
        ),
        (
            "iq-contacts",
            iq(
                10,
                ResponseBody::Contacts(Contacts {
                    accepted: list(vec![address("ada@birdy.example")]),
                    blocked: list(vec![address("eve@crow.example")]),
                    requests: List::new(),
                }),
            ),
        ),
        ("notification-prekeys-low", FromServer::Notification(Notification::PrekeysLow(KeyCounts { ec: 9, kyber: 4 }))),
        (
            "notification-devices-changed",
            FromServer::Notification(Notification::DevicesChanged(address("bo@home.example"))),
        ),
        ("notification-consent-changed", FromServer::Notification(Notification::ConsentChanged)),
        (
            "notification-contact-request",
            FromServer::Notification(Notification::ContactRequest(address("o'hara@birdy.example"))),
        ),
        ("ping", FromServer::Ping(3)),
        ("pong", FromServer::Pong(3)),
        ("end", FromServer::End(End::new(EndReason::Replaced))),
        ("end-draining", FromServer::End(End { reason: EndReason::Draining, retry_after_ms: 2000 })),
    ]
}

fn enlist() -> Enlist {
    Enlist {
        registration: registration(9127),
        identity_key: blob(b"\x05identity"),
        signed_prekey: signed(1, b"\x05signed prekey"),
        last_resort_kyber: signed(1, b"\x08last resort"),
        ec_prekeys: list(vec![ec(100), ec(101)]),
        kyber_prekeys: list(vec![signed(200, b"\x08kyber")]),
    }
}

fn consent() -> ConsentSettings {
    ConsentSettings {
        interop: true,
        providers: list(vec![ProviderRule { provider: "crow.example".parse().expect("a domain"), allow: false }]),
        inbox: InboxSetting::Separate,
        reach: Reach::Everyone,
    }
}

fn enc(number: u32, reg: u32, kind: EncType, ciphertext: &[u8]) -> Enc {
    Enc { device: device(number), registration: registration(reg), kind, ciphertext: blob(ciphertext) }
}

fn signed(id: u32, key: &[u8]) -> SignedPrekey {
    SignedPrekey { id, public_key: blob(key), signature: blob(b"signature") }
}

fn ec(id: u32) -> EcPrekey {
    EcPrekey { id, public_key: blob(b"\x05one-time") }
}

pub(super) fn address(text: &str) -> causeway_identity::Address {
    text.parse().expect("an address")
}

fn device(number: u32) -> DeviceId {
    DeviceId::new(number).expect("in range")
}

fn registration(number: u32) -> RegistrationId {
    RegistrationId::new(number).expect("in range")
}

fn blob<const MIN: usize, const MAX: usize>(bytes: &[u8]) -> Blob<MIN, MAX> {
    Blob::try_from(bytes).expect("within bounds")
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Text<MIN, MAX> {
    Text::try_from(text).expect("within bounds")
}

fn list<T: std::fmt::Debug, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    List::try_from(items).expect("within bounds")
}
