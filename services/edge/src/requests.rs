//! What clients ask for by `iq`. A request runs beside others of its session and is dropped with it.
//!
//! To add one: its file here with `carry_out`, an arm in [`Requests::carry_out`], and the stanza's own recipe.

mod claim;
mod consent;
mod devices;
mod discover;
mod enlist;
mod keys;
mod media;
mod push;
mod token_refresh;
mod withdraw;

use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use causeway_proto::directory::v1::accounts_client::AccountsClient;
use causeway_proto::directory::v1::consent_client::ConsentClient;
use causeway_proto::directory::v1::done_response::Outcome as DoneOutcome;
use causeway_proto::directory::v1::prekeys_client::PrekeysClient;
use causeway_proto::directory::v1::{AccountRef, DoneResponse, Refusal};
use causeway_proto::media::v1::tickets_client::TicketsClient;
use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::MAX_MESSAGE_BYTES;
use causeway_runtime::telemetry::trace::{Hop, Step};
use causeway_stanza::{ErrorCode, IqError, RequestBody, ResponseBody};
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Instrument as _;

use crate::config::EdgeConfig;
use crate::login::{Device, Login, User};
use crate::metrics::Metrics;
use crate::providers::Providers;
use crate::session::Answer;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) user: Arc<User>,
    /// `None`: not enlisted yet; the session lets such a one do nothing but enlist.
    pub(crate) device: Option<Device>,
    /// Unix milliseconds.
    pub(crate) token_expires_ms: u64,
}

impl Asker {
    fn device(&self) -> Result<&Device, IqError> {
        self.device.as_ref().ok_or_else(|| IqError::new(ErrorCode::NotEnlisted))
    }

    fn account(&self) -> Result<AccountRef, IqError> {
        let device = self.device()?;
        Ok(AccountRef { account_id: device.account_bytes(), device_id: device.id.get() })
    }
}

impl Device {
    fn account_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.account.as_bytes())
    }
}

/// Carries requests out.
pub(crate) struct Requests {
    accounts: AccountsClient<Channel>,
    prekeys: PrekeysClient<Channel>,
    consent: ConsentClient<Channel>,
    tickets: TicketsClient<Channel>,
    providers: Providers,
    login: Arc<Login>,
    metrics: Metrics,
    retry_ms: u64,
}

impl Requests {
    pub(crate) fn new(
        config: &EdgeConfig,
        directory: Channel,
        media: Channel,
        providers: Providers,
        login: Arc<Login>,
        metrics: Metrics,
    ) -> Self {
        Self {
            accounts: AccountsClient::new(directory.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            prekeys: PrekeysClient::new(directory.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            consent: ConsentClient::new(directory).max_decoding_message_size(MAX_MESSAGE_BYTES),
            tickets: TicketsClient::new(media),
            providers,
            login,
            metrics,
            retry_ms: config.overload_retry_ms,
        }
    }

    /// Carries one request out; every failure is an answer too.
    pub(crate) async fn carry_out(
        self: Arc<Self>,
        id: NonZeroU64,
        asker: Asker,
        body: RequestBody,
    ) -> (NonZeroU64, Answer) {
        let (name, since) = (body.name(), Instant::now());
        let step = Step::begin(Hop::request(name));
        let result = match &step {
            Some(step) => self.dispatch(&asker, body).instrument(step.span().clone()).await,
            None => self.dispatch(&asker, body).await,
        };
        let outcome = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "done");
        self.metrics.request_answered(name, outcome, since.elapsed());
        if let Some(step) = step {
            step.outcome(outcome);
        }
        (id, result.unwrap_or_else(|error| Answer::Reply(ResponseBody::Error(error))))
    }

    async fn dispatch(&self, asker: &Asker, body: RequestBody) -> Result<Answer, IqError> {
        let reply = match body {
            RequestBody::Enlist(enlist) => return enlist::carry_out(self, asker, enlist).await,
            RequestBody::TokenRefresh(token) => return token_refresh::carry_out(self, asker, &token).await,
            RequestBody::KeysPublish(publish) => keys::publish(self, asker, publish).await,
            RequestBody::KeysCount => keys::count(self, asker).await,
            RequestBody::KeysClaim(claim) => claim::carry_out(self, asker, claim).await,
            RequestBody::DevicesList => devices::list(self, asker).await,
            RequestBody::DeviceRemove(device) => devices::remove(self, asker, device).await,
            RequestBody::ConsentGet => consent::get(self, asker).await,
            RequestBody::ConsentSet(settings) => consent::set(self, asker, settings).await,
            RequestBody::Discover(address) => discover::carry_out(self, asker, &address).await,
            RequestBody::MediaUpload(upload) => media::upload(self, asker, &upload).await,
            RequestBody::MediaDownload(download) => media::download(self, asker, &download).await,
            RequestBody::Push(token) => push::carry_out(self, asker, token).await,
            RequestBody::Withdraw => withdraw::carry_out(self, asker).await,
            RequestBody::Contact(_) | RequestBody::Report(_) => Err(IqError::new(ErrorCode::Unsupported)),
        };
        reply.map(Answer::Reply)
    }

    fn done(&self, response: DoneResponse) -> Result<ResponseBody, IqError> {
        match response.outcome {
            Some(DoneOutcome::Done(_)) => Ok(ResponseBody::Done),
            Some(DoneOutcome::Refused(refusal)) => Err(self.refused(&refusal)),
            None => Err(self.nonsense()),
        }
    }

    fn refused(&self, refusal: &Refusal) -> IqError {
        match ErrorCode::try_from(refusal.code) {
            Ok(code) => IqError::new(code).with_detail(&refusal.detail).retry_after_ms(refusal.retry_after_ms),
            Err(_) => self.nonsense(),
        }
    }

    /// A call failed. What the callee says of the request itself is handed on; all else is our trouble.
    fn failed(&self, status: &Status) -> IqError {
        match status.code() {
            Code::InvalidArgument => IqError::new(ErrorCode::BadRequest).with_detail(status.message()),
            Code::OutOfRange => IqError::new(ErrorCode::TooLarge),
            Code::ResourceExhausted => {
                let wait = status.metadata().get("retry-after-ms").and_then(|value| value.to_str().ok()?.parse().ok());
                IqError::new(ErrorCode::RateLimited).retry_after_ms(wait.unwrap_or(self.retry_ms))
            }
            code => {
                tracing::debug!(?code, "a request could not be carried out");
                IqError::new(ErrorCode::Unavailable).retry_after_ms(self.retry_ms)
            }
        }
    }

    /// A service answered in a form that is none of the contract's.
    fn nonsense(&self) -> IqError {
        tracing::error!("a service answered a request with nonsense");
        IqError::new(ErrorCode::Unavailable).retry_after_ms(self.retry_ms)
    }
}
