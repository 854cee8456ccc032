//! The tables: every message of the protocol with its two faces. A row is a field: its number and name in the .proto,
//! and its name and place in XML. A test compares the numbers, names and types with the .proto itself.

use crate::lists;
use crate::shape::Value::{Bool, Bytes, Id, Name, Text, U32, U64};
use crate::shape::{Field, Shape, choice, shape};

const DEVICES: usize = 16;
/// One-time prekeys of one kind in one request; the directory takes 100 and judges more (`bad-keys`).
const ONE_TIME: usize = 256;
const RULES: usize = 256;
const CONTACTS: usize = 256;

/// What a client sends.
pub(crate) static CLIENT: Shape = choice(
    "ClientStanza",
    &[
        Field::maybe(1, "message", "message", &SUBMIT),
        Field::maybe(2, "ack", "ack", &PROCESSED),
        Field::maybe(3, "iq", "iq", &REQUEST),
        Field::maybe(4, "ping", "ping", &PING),
        Field::maybe(5, "pong", "pong", &PONG),
        Field::maybe(6, "end", "end", &END),
    ],
);

/// What the server sends.
pub(crate) static SERVER: Shape = choice(
    "ServerStanza",
    &[
        Field::maybe(1, "success", "success", &SUCCESS),
        Field::maybe(2, "failure", "failure", &FAILURE),
        Field::maybe(3, "message", "message", &DELIVERY),
        Field::maybe(4, "ack", "ack", &OUTCOME),
        Field::maybe(5, "iq", "iq", &RESPONSE),
        Field::maybe(6, "notification", "notification", &NOTIFICATION),
        Field::maybe(7, "ping", "ping", &PING),
        Field::maybe(8, "pong", "pong", &PONG),
        Field::maybe(9, "end", "end", &END),
    ],
);

static SUCCESS: Shape = shape(
    "Success",
    &[
        Field::attr(1, "session_id", "session", Id),
        Field::maybe_attr(2, "account_id", "account", Id),
        Field::maybe_attr(3, "device_id", "device", U32),
        Field::attr(4, "device_count", "devices", U32),
        Field::attr(5, "prekeys_low", "prekeys-low", Bool),
        Field::attr(6, "waiting", "waiting", U64),
        Field::attr(7, "address", "address", Text),
    ],
);

static FAILURE: Shape = shape("Failure", &[Field::attr(1, "reason", "reason", Name(lists::FailureReason::NAMES))]);

static SUBMIT: Shape = shape(
    "Submit",
    &[
        Field::attr(1, "id", "id", Id),
        Field::attr(2, "to", "to", Text),
        Field::attr(3, "class", "class", Name(lists::MessageClass::NAMES)),
        Field::many(4, "enc", "enc", &ENC, DEVICES),
    ],
);

static ENC: Shape = shape(
    "Enc",
    &[
        Field::attr(1, "device", "device", U32),
        Field::attr(2, "reg", "reg", U32),
        Field::attr(3, "type", "type", Name(lists::EncType::NAMES)),
        Field::content(4, "ciphertext"),
    ],
);

static DELIVERY: Shape = shape(
    "Delivery",
    &[
        Field::attr(1, "id", "id", Id),
        Field::attr(2, "from", "from", Text),
        Field::attr(3, "from_account", "from-account", Id),
        Field::attr(4, "class", "class", Name(lists::MessageClass::NAMES)),
        Field::attr(5, "ts", "ts", U64),
        Field::attr(6, "tag", "tag", U64),
        Field::one(7, "origin", "origin", &ORIGIN),
        Field::fold(
            "enc",
            &[Field::attr(8, "type", "type", Name(lists::EncType::NAMES)), Field::content(9, "ciphertext")],
        ),
    ],
);

static ORIGIN: Shape = shape(
    "Origin",
    &[
        Field::attr(1, "provider", "provider", Text),
        Field::attr(2, "kind", "kind", Name(lists::ProviderKind::NAMES)),
        Field::attr(3, "protocol", "protocol", Text),
        Field::attr(4, "inbox", "inbox", Name(lists::Inbox::NAMES)),
    ],
);

static OUTCOME: Shape = shape(
    "Outcome",
    &[
        Field::attr(1, "id", "id", Id),
        Field::attr(2, "to", "to", Text),
        Field::attr(3, "status", "status", Name(lists::Status::NAMES)),
        Field::maybe_attr(4, "reason", "reason", Name(lists::Rejection::NAMES)),
        Field::maybe_attr(5, "retry_after_ms", "retry-after", U64),
        Field::maybe(6, "devices", "devices", &MISMATCH),
    ],
);

static MISMATCH: Shape = shape(
    "DeviceMismatch",
    &[
        Field::items(1, "missing", "missing", "id", U32, DEVICES),
        Field::items(2, "extra", "extra", "id", U32, DEVICES),
        Field::items(3, "stale", "stale", "id", U32, DEVICES),
    ],
);

static PROCESSED: Shape = shape("Processed", &[Field::attr(1, "tag", "tag", U64)]);
static PING: Shape = shape("Ping", &[Field::attr(1, "n", "n", U64)]);
static PONG: Shape = shape("Pong", &[Field::attr(1, "n", "n", U64)]);

static END: Shape = shape(
    "End",
    &[
        Field::attr(1, "reason", "reason", Name(lists::EndReason::NAMES)),
        Field::maybe_attr(2, "retry_after_ms", "retry-after", U64),
    ],
);

static NOTIFICATION: Shape = choice(
    "Notification",
    &[
        Field::maybe(1, "prekeys_low", "prekeys-low", &PREKEYS_LOW),
        Field::maybe(2, "devices_changed", "devices-changed", &DEVICES_CHANGED),
        Field::maybe(3, "consent_changed", "consent-changed", &CONSENT_CHANGED),
        Field::maybe(4, "contact_request", "contact-request", &CONTACT_REQUEST),
    ],
);

static PREKEYS_LOW: Shape =
    shape("PrekeysLow", &[Field::attr(1, "ec", "ec", U32), Field::attr(2, "kyber", "kyber", U32)]);
static DEVICES_CHANGED: Shape = shape("DevicesChanged", &[Field::attr(1, "address", "address", Text)]);
static CONSENT_CHANGED: Shape = shape("ConsentChanged", &[]);
static CONTACT_REQUEST: Shape = shape("ContactRequest", &[Field::attr(1, "from", "from", Text)]);

static REQUEST: Shape = choice(
    "IqRequest",
    &[
        Field::attr(1, "id", "id", U64),
        Field::arm(2, "enlist", "enlist", "set", &ENLIST),
        Field::arm(3, "keys_publish", "keys-publish", "set", &KEYS_PUBLISH),
        Field::arm(4, "keys_count", "keys-count", "get", &KEYS_COUNT),
        // Takes one-time keys away, so it is no mere reading.
        Field::arm(5, "keys_claim", "keys-claim", "set", &KEYS_CLAIM),
        Field::arm(6, "devices_list", "devices-list", "get", &DEVICES_LIST),
        Field::arm(7, "device_remove", "device-remove", "set", &DEVICE_REMOVE),
        Field::arm(8, "consent_get", "consent-get", "get", &CONSENT_GET),
        Field::arm(9, "consent_set", "consent-set", "set", &CONSENT_SET),
        Field::arm(10, "contact", "contact", "set", &CONTACT),
        Field::arm(11, "discover", "discover", "get", &DISCOVER),
        Field::arm(12, "report", "report", "set", &REPORT),
        Field::arm(13, "media_upload", "media-upload", "get", &MEDIA_UPLOAD),
        Field::arm(14, "media_download", "media-download", "get", &MEDIA_DOWNLOAD),
        Field::arm(15, "push", "push", "set", &PUSH),
        Field::arm(16, "token_refresh", "token-refresh", "set", &TOKEN_REFRESH),
        Field::arm(17, "withdraw", "withdraw", "set", &WITHDRAW),
    ],
);

static RESPONSE: Shape = choice(
    "IqResponse",
    &[
        Field::attr(1, "id", "id", U64),
        Field::arm(2, "done", "done", "result", &DONE),
        Field::arm(3, "error", "error", "error", &ERROR),
        Field::arm(4, "enlisted", "enlisted", "result", &ENLISTED),
        Field::arm(5, "key_counts", "key-counts", "result", &KEY_COUNTS),
        Field::arm(6, "key_bundles", "key-bundles", "result", &KEY_BUNDLES),
        Field::arm(7, "devices", "devices", "result", &DEVICE_LIST),
        Field::arm(8, "consent", "consent", "result", &CONSENT),
        Field::arm(9, "media_ticket", "media-ticket", "result", &MEDIA_TICKET),
        Field::arm(10, "contacts", "contacts", "result", &CONTACT_LIST),
    ],
);

static DONE: Shape = shape("Done", &[]);

static ERROR: Shape = shape(
    "IqError",
    &[
        Field::attr(1, "code", "code", Name(lists::ErrorCode::NAMES)),
        Field::maybe_attr(2, "retry_after_ms", "retry-after", U64),
        Field::maybe_attr(3, "detail", "detail", Text),
    ],
);

static SIGNED_PREKEY: Shape = shape(
    "SignedPrekey",
    &[
        Field::attr(1, "id", "id", U32),
        Field::maybe_attr(3, "signature", "signature", Bytes),
        Field::content(2, "public_key"),
    ],
);

static EC_PREKEY: Shape = shape("EcPrekey", &[Field::attr(1, "id", "id", U32), Field::content(2, "public_key")]);

static ENLIST: Shape = shape(
    "Enlist",
    &[
        Field::attr(1, "registration_id", "registration", U32),
        Field::bytes(2, "identity_key", "identity-key"),
        Field::one(3, "signed_prekey", "signed-prekey", &SIGNED_PREKEY),
        Field::one(4, "last_resort_kyber", "last-resort-kyber", &SIGNED_PREKEY),
        Field::many(5, "ec_prekeys", "ec-prekey", &EC_PREKEY, ONE_TIME),
        Field::many(6, "kyber_prekeys", "kyber-prekey", &SIGNED_PREKEY, ONE_TIME),
    ],
);

static ENLISTED: Shape =
    shape("Enlisted", &[Field::attr(1, "account_id", "account", Id), Field::attr(2, "device_id", "device", U32)]);

static KEYS_PUBLISH: Shape = shape(
    "KeysPublish",
    &[
        Field::bytes(1, "identity_key", "identity-key"),
        Field::maybe(2, "signed_prekey", "signed-prekey", &SIGNED_PREKEY),
        Field::maybe(3, "last_resort_kyber", "last-resort-kyber", &SIGNED_PREKEY),
        Field::many(4, "ec_prekeys", "ec-prekey", &EC_PREKEY, ONE_TIME),
        Field::many(5, "kyber_prekeys", "kyber-prekey", &SIGNED_PREKEY, ONE_TIME),
    ],
);

static KEYS_COUNT: Shape = shape("KeysCount", &[]);
static KEY_COUNTS: Shape =
    shape("KeyCounts", &[Field::attr(1, "ec", "ec", U32), Field::attr(2, "kyber", "kyber", U32)]);

static KEYS_CLAIM: Shape = shape(
    "KeysClaim",
    &[Field::attr(1, "address", "address", Text), Field::items(2, "devices", "device", "id", U32, DEVICES)],
);

static KEY_BUNDLES: Shape = shape(
    "KeyBundles",
    &[Field::attr(1, "account_id", "account", Id), Field::many(2, "bundles", "bundle", &KEY_BUNDLE, DEVICES)],
);

static KEY_BUNDLE: Shape = shape(
    "KeyBundle",
    &[
        Field::attr(1, "device", "device", U32),
        Field::attr(2, "registration_id", "registration", U32),
        Field::bytes(3, "identity_key", "identity-key"),
        Field::one(4, "signed_prekey", "signed-prekey", &SIGNED_PREKEY),
        Field::maybe(5, "ec_prekey", "ec-prekey", &EC_PREKEY),
        Field::one(6, "kyber_prekey", "kyber-prekey", &SIGNED_PREKEY),
    ],
);

static DEVICES_LIST: Shape = shape("DevicesList", &[]);
static DEVICE_LIST: Shape = shape("Devices", &[Field::many(1, "devices", "device", &DEVICE, DEVICES)]);

static DEVICE: Shape = shape(
    "Device",
    &[
        Field::attr(1, "id", "id", U32),
        Field::attr(2, "registration_id", "registration", U32),
        Field::attr(3, "enlisted_ms", "enlisted", U64),
    ],
);

static DEVICE_REMOVE: Shape = shape("DeviceRemove", &[Field::attr(1, "device", "device", U32)]);
static CONSENT_GET: Shape = shape("ConsentGet", &[]);
static CONSENT_SET: Shape = shape("ConsentSet", &[Field::one(1, "settings", "settings", &CONSENT)]);

static CONSENT: Shape = shape(
    "ConsentSettings",
    &[
        Field::attr(1, "interop", "interop", Bool),
        Field::attr(3, "inbox", "inbox", Name(lists::InboxSetting::NAMES)),
        Field::attr(4, "reach", "reach", Name(lists::Reach::NAMES)),
        Field::many(2, "providers", "provider", &RULE, RULES),
    ],
);

static RULE: Shape =
    shape("ProviderRule", &[Field::attr(1, "provider", "domain", Text), Field::attr(2, "allow", "allow", Bool)]);

static CONTACT: Shape = shape(
    "Contact",
    &[
        Field::attr(1, "action", "action", Name(lists::ContactAction::NAMES)),
        Field::maybe_attr(2, "address", "address", Text),
    ],
);

static CONTACT_LIST: Shape = shape(
    "Contacts",
    &[
        Field::items(1, "accepted", "accepted", "address", Text, CONTACTS),
        Field::items(2, "blocked", "blocked", "address", Text, CONTACTS),
        Field::items(3, "requests", "request", "address", Text, CONTACTS),
    ],
);

static DISCOVER: Shape = shape("Discover", &[Field::attr(1, "address", "address", Text)]);

static REPORT: Shape = shape(
    "Report",
    &[
        Field::attr(1, "address", "address", Text),
        Field::maybe_attr(2, "message_id", "message", Id),
        Field::maybe_bytes(3, "evidence", "evidence"),
    ],
);

static MEDIA_UPLOAD: Shape =
    shape("MediaUpload", &[Field::attr(1, "size", "size", U64), Field::attr(2, "sha256", "sha256", Bytes)]);

static MEDIA_DOWNLOAD: Shape = shape(
    "MediaDownload",
    &[
        Field::attr(1, "url", "url", Text),
        Field::attr(2, "size", "size", U64),
        Field::attr(3, "sha256", "sha256", Bytes),
    ],
);

static MEDIA_TICKET: Shape = shape(
    "MediaTicket",
    &[
        Field::attr(1, "url", "url", Text),
        Field::attr(2, "ticket", "ticket", Text),
        Field::attr(3, "expires_ms", "expires", U64),
        Field::maybe_attr(4, "public_url", "public-url", Text),
    ],
);

static PUSH: Shape = shape("Push", &[Field::content(1, "token")]);
static TOKEN_REFRESH: Shape = shape("TokenRefresh", &[Field::attr(1, "token", "token", Text)]);
static WITHDRAW: Shape = shape("Withdraw", &[]);

/// Handshake payload of a client. It has no XML form: the table serves for its bounds only.
pub(crate) static CLIENT_HELLO: Shape = shape(
    "ClientHello",
    &[
        Field::attr(1, "token", "token", Text),
        Field::attr(2, "device_id", "device", U32),
        Field::attr(3, "encoding", "encoding", Name(lists::Encoding::NAMES)),
        Field::attr(4, "agent", "agent", Text),
        Field::maybe(5, "forwarded", "forwarded", &FORWARDED),
    ],
);

static FORWARDED: Shape = shape(
    "Forwarded",
    &[
        Field::attr(1, "proxy_id", "proxy", Text),
        Field::attr(2, "client_ip", "ip", Text),
        Field::attr(3, "client_port", "port", U32),
        Field::attr(4, "timestamp_ms", "timestamp", U64),
        Field::attr(5, "signature", "signature", Bytes),
    ],
);

/// Handshake payload of the server. It has no XML form.
pub(crate) static SERVER_HELLO: Shape = shape(
    "ServerHello",
    &[
        Field::maybe(1, "certificate", "certificate", &CERTIFICATE),
        Field::attr(2, "server_time_ms", "time", U64),
        Field::maybe(3, "limits", "limits", &LIMITS),
    ],
);

static CERTIFICATE: Shape = shape(
    "ServerCertificate",
    &[
        Field::bytes(1, "body", "body"),
        Field::attr(2, "root_id", "root", Bytes),
        Field::attr(3, "signature", "signature", Bytes),
    ],
);

static LIMITS: Shape = shape(
    "Limits",
    &[
        Field::attr(1, "max_stanza_bytes", "max-stanza-bytes", U32),
        Field::attr(2, "ping_interval_ms", "ping-interval", U32),
    ],
);
