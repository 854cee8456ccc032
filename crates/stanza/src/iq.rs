//! Requests and responses.
//!
//! To add a request: an arm in `IqRequest` and `IqResponse` of `proto/causeway/wire/v1/stanza.proto`, its typed form
//! beside its kind, an arm here, a row in `shapes.rs`, and a paragraph in `docs/protocol.md`.

use std::num::NonZeroU64;

use causeway_identity::{Address, DeviceId};
use causeway_proto::wire::v1 as pb;
use causeway_proto::wire::v1::iq_request::Request as Ask;
use causeway_proto::wire::v1::iq_response::Response as Answer;

use crate::account::{ConsentSettings, Contact, Contacts, Devices, Report, read_device_list};
use crate::bounded::{Blob, Text};
use crate::error::{At, Problem, StanzaError, required};
use crate::keys::{Enlist, KeyBundles, KeyCounts, KeysClaim, KeysPublish};
use crate::lists::ErrorCode;
use crate::login::Enlisted;
use crate::media::{MediaDownload, MediaTicket, MediaUpload};

/// A device's push token, opaque to the operator.
pub type PushToken = Blob<1, 512>;
/// A JWT. Whether it is one, the verifier judges.
pub type Token = Text<1, 4096>;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client, unique among its open requests.
    pub id: NonZeroU64,
    /// What is asked.
    pub body: RequestBody,
}

/// The requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// Opt in to the network with this device.
    Enlist(Enlist),
    /// Replace or top up prekeys.
    KeysPublish(KeysPublish),
    /// How many one-time keys are left.
    KeysCount,
    /// Bundles of an address.
    KeysClaim(KeysClaim),
    /// The account's devices.
    DevicesList,
    /// Remove a device of the account.
    DeviceRemove(DeviceId),
    /// The consent settings.
    ConsentGet,
    /// Replace the consent settings.
    ConsentSet(ConsentSettings),
    /// Contacts and requests.
    Contact(Contact),
    /// Does this address accept messages from me?
    Discover(Address),
    /// Report a sender or a message.
    Report(Report),
    /// A place for a ciphertext.
    MediaUpload(MediaUpload),
    /// The right to fetch a ciphertext.
    MediaDownload(MediaDownload),
    /// Set this device's push token, or drop it.
    Push(Option<PushToken>),
    /// A fresh token for this session.
    TokenRefresh(Token),
    /// Leave the network.
    Withdraw,
}

impl RequestBody {
    /// The request's element name: metric label and log field.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Enlist(_) => "enlist",
            Self::KeysPublish(_) => "keys-publish",
            Self::KeysCount => "keys-count",
            Self::KeysClaim(_) => "keys-claim",
            Self::DevicesList => "devices-list",
            Self::DeviceRemove(_) => "device-remove",
            Self::ConsentGet => "consent-get",
            Self::ConsentSet(_) => "consent-set",
            Self::Contact(_) => "contact",
            Self::Discover(_) => "discover",
            Self::Report(_) => "report",
            Self::MediaUpload(_) => "media-upload",
            Self::MediaDownload(_) => "media-download",
            Self::Push(_) => "push",
            Self::TokenRefresh(_) => "token-refresh",
            Self::Withdraw => "withdraw",
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: NonZeroU64,
    /// What is answered.
    pub body: ResponseBody,
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseBody {
    /// Carried out, and nothing to say.
    Done,
    /// Not carried out.
    Error(IqError),
    /// To `enlist`.
    Enlisted(Enlisted),
    /// To `keys-publish` and `keys-count`.
    KeyCounts(KeyCounts),
    /// To `keys-claim`.
    KeyBundles(KeyBundles),
    /// To `devices-list`.
    Devices(Devices),
    /// To `consent-get` and `consent-set`.
    Consent(ConsentSettings),
    /// To `media-upload` and `media-download`.
    MediaTicket(MediaTicket),
    /// To `contact` with `list`.
    Contacts(Contacts),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IqError {
    /// The reason.
    pub code: ErrorCode,
    /// Milliseconds to wait; 0: not said.
    pub retry_after_ms: u64,
    /// For a developer's eyes; never about another account. Empty: none.
    pub detail: Text<0, 200>,
}

impl IqError {
    /// An error with a code only.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, retry_after_ms: 0, detail: Text::lossy("") }
    }

    /// The same with a detail, cut to 200 bytes.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        Self { detail: Text::lossy(detail), ..self }
    }

    /// The same with a time to wait.
    #[must_use]
    pub fn retry_after_ms(self, retry_after_ms: u64) -> Self {
        Self { retry_after_ms, ..self }
    }
}

impl TryFrom<pb::IqRequest> for Request {
    type Error = StanzaError;

    fn try_from(request: pb::IqRequest) -> Result<Self, StanzaError> {
        let body = match required("request", request.request)? {
            Ask::Enlist(body) => RequestBody::Enlist(body.try_into().at("enlist")?),
            Ask::KeysPublish(body) => RequestBody::KeysPublish(body.try_into().at("keys_publish")?),
            Ask::KeysCount(pb::KeysCount {}) => RequestBody::KeysCount,
            Ask::KeysClaim(body) => RequestBody::KeysClaim(body.try_into().at("keys_claim")?),
            Ask::DevicesList(pb::DevicesList {}) => RequestBody::DevicesList,
            Ask::DeviceRemove(body) => {
                RequestBody::DeviceRemove(DeviceId::new(body.device).at("device").at("device_remove")?)
            }
            Ask::ConsentGet(pb::ConsentGet {}) => RequestBody::ConsentGet,
            Ask::ConsentSet(body) => {
                let settings = required("settings", body.settings).at("consent_set")?;
                RequestBody::ConsentSet(settings.try_into().at("settings").at("consent_set")?)
            }
            Ask::Contact(body) => RequestBody::Contact(body.try_into().at("contact")?),
            Ask::Discover(body) => RequestBody::Discover(body.address.parse::<Address>().at("address").at("discover")?),
            Ask::Report(body) => RequestBody::Report(body.try_into().at("report")?),
            Ask::MediaUpload(body) => RequestBody::MediaUpload(body.try_into().at("media_upload")?),
            Ask::MediaDownload(body) => RequestBody::MediaDownload(body.try_into().at("media_download")?),
            Ask::Push(body) => {
                let token = if body.token.is_empty() { None } else { Some(body.token) };
                RequestBody::Push(token.map(PushToken::try_from).transpose().at("token").at("push")?)
            }
            Ask::TokenRefresh(body) => {
                RequestBody::TokenRefresh(Token::try_from(body.token).at("token").at("token_refresh")?)
            }
            Ask::Withdraw(pb::Withdraw {}) => RequestBody::Withdraw,
        };
        Ok(Self { id: iq_id(request.id)?, body })
    }
}

impl From<Request> for pb::IqRequest {
    fn from(request: Request) -> Self {
        let ask = match request.body {
            RequestBody::Enlist(body) => Ask::Enlist(body.into()),
            RequestBody::KeysPublish(body) => Ask::KeysPublish(body.into()),
            RequestBody::KeysCount => Ask::KeysCount(pb::KeysCount {}),
            RequestBody::KeysClaim(body) => Ask::KeysClaim(body.into()),
            RequestBody::DevicesList => Ask::DevicesList(pb::DevicesList {}),
            RequestBody::DeviceRemove(device) => Ask::DeviceRemove(pb::DeviceRemove { device: device.get() }),
            RequestBody::ConsentGet => Ask::ConsentGet(pb::ConsentGet {}),
            RequestBody::ConsentSet(settings) => Ask::ConsentSet(pb::ConsentSet { settings: Some(settings.into()) }),
            RequestBody::Contact(body) => Ask::Contact(body.into()),
            RequestBody::Discover(address) => Ask::Discover(pb::Discover { address: address.to_string() }),
            RequestBody::Report(body) => Ask::Report(body.into()),
            RequestBody::MediaUpload(body) => Ask::MediaUpload(body.into()),
            RequestBody::MediaDownload(body) => Ask::MediaDownload(body.into()),
            RequestBody::Push(token) => {
                Ask::Push(pb::Push { token: token.map(PushToken::into_bytes).unwrap_or_default() })
            }
            RequestBody::TokenRefresh(token) => Ask::TokenRefresh(pb::TokenRefresh { token: token.into() }),
            RequestBody::Withdraw => Ask::Withdraw(pb::Withdraw {}),
        };
        Self { id: request.id.get(), request: Some(ask) }
    }
}

impl TryFrom<pb::IqResponse> for Response {
    type Error = StanzaError;

    fn try_from(response: pb::IqResponse) -> Result<Self, StanzaError> {
        let body = match required("response", response.response)? {
            Answer::Done(pb::Done {}) => ResponseBody::Done,
            Answer::Error(body) => ResponseBody::Error(body.try_into().at("error")?),
            Answer::Enlisted(body) => ResponseBody::Enlisted(body.try_into().at("enlisted")?),
            Answer::KeyCounts(body) => ResponseBody::KeyCounts(body.into()),
            Answer::KeyBundles(body) => ResponseBody::KeyBundles(body.try_into().at("key_bundles")?),
            Answer::Devices(body) => ResponseBody::Devices(read_device_list(body).at("devices")?),
            Answer::Consent(body) => ResponseBody::Consent(body.try_into().at("consent")?),
            Answer::MediaTicket(body) => ResponseBody::MediaTicket(body.try_into().at("media_ticket")?),
            Answer::Contacts(body) => ResponseBody::Contacts(body.try_into().at("contacts")?),
        };
        Ok(Self { id: iq_id(response.id)?, body })
    }
}

impl From<Response> for pb::IqResponse {
    fn from(response: Response) -> Self {
        let answer = match response.body {
            ResponseBody::Done => Answer::Done(pb::Done {}),
            ResponseBody::Error(body) => Answer::Error(body.into()),
            ResponseBody::Enlisted(body) => Answer::Enlisted(body.into()),
            ResponseBody::KeyCounts(body) => Answer::KeyCounts(body.into()),
            ResponseBody::KeyBundles(body) => Answer::KeyBundles(body.into()),
            ResponseBody::Devices(body) => Answer::Devices(pb::Devices { devices: body.write(pb::Device::from) }),
            ResponseBody::Consent(body) => Answer::Consent(body.into()),
            ResponseBody::MediaTicket(body) => Answer::MediaTicket(body.into()),
            ResponseBody::Contacts(body) => Answer::Contacts(body.into()),
        };
        Self { id: response.id.get(), response: Some(answer) }
    }
}

impl TryFrom<pb::IqError> for IqError {
    type Error = StanzaError;

    fn try_from(error: pb::IqError) -> Result<Self, StanzaError> {
        Ok(Self {
            code: ErrorCode::try_from(error.code).at("code")?,
            retry_after_ms: error.retry_after_ms,
            detail: Text::try_from(error.detail).at("detail")?,
        })
    }
}

impl From<IqError> for pb::IqError {
    fn from(error: IqError) -> Self {
        Self { code: error.code.into(), retry_after_ms: error.retry_after_ms, detail: error.detail.into() }
    }
}

fn iq_id(id: u64) -> Result<NonZeroU64, StanzaError> {
    NonZeroU64::new(id).ok_or(Problem::Range).at("id")
}
