//! The gRPC services, a file per call. Here: which call is where, and what all calls have in common: a deadline, counts,
//! the way from outcomes to answers.
//!
//! A client's mistake is a refusal in the answer; a status is for callers that break the contract, and for failures.

mod claim;
mod complaints;
mod consent;
mod count;
mod devices;
mod discover;
mod enlist;
mod follow;
mod login;
mod providers;
mod publish;
mod record;
mod refetch;
mod refusal;
mod remove_device;
mod set_push;
mod settings;
#[cfg(test)]
mod tests;
mod watch;
mod webhook;
mod withdraw;

use std::future::Future;
use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};
use causeway_proto::directory::v1 as pb;
use causeway_runtime::grpc::CALL_TIMEOUT;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

pub(crate) use complaints::Complaints;
pub(crate) use refusal::{Outcome, Refused};

use crate::directory::Directory;
use crate::error::{BadField, CallError};
use crate::metrics::Ended;

/// All services over one directory; cloning gives another handle.
#[derive(Clone)]
pub(crate) struct Rpc(pub(crate) Arc<Directory>);

impl Rpc {
    /// Answers with what the call gives.
    async fn answer<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Response<T>, Status> {
        let outcome = tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(CallError::Overdue));
        let ended = if outcome.is_ok() { Ended::Answered } else { Ended::Failed };
        self.finish(method, ended, outcome)
    }

    /// Answers with what the call gives, or with its refusal.
    async fn answer_or_refuse<A, R: Outcome<A>>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<Result<A, Refused>, CallError>>,
    ) -> Result<Response<R>, Status> {
        let outcome = tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(CallError::Overdue));
        let ended = match &outcome {
            Ok(Ok(_)) => Ended::Answered,
            Ok(Err(refused)) => {
                if refused.retry_after.is_some() {
                    self.0.metrics.rate_limited(method);
                }
                Ended::Refused
            }
            Err(_) => Ended::Failed,
        };
        self.finish(method, ended, outcome.map(R::of))
    }

    fn finish<T>(
        &self,
        method: &'static str,
        ended: Ended,
        outcome: Result<T, CallError>,
    ) -> Result<Response<T>, Status> {
        self.0.metrics.call_ended(method, ended);
        outcome.map(Response::new).map_err(|error| {
            // The texts of our own failures name no user; those of callers' mistakes are for the callers.
            if error.is_ours() {
                if let Some(unsaid) = self.0.complaints.next() {
                    tracing::warn!(method, reason = error.reason(), %error, unsaid, "a call failed");
                }
            } else {
                tracing::debug!(method, reason = error.reason(), "a call broke its contract");
            }
            error.into()
        })
    }
}

#[async_trait]
impl pb::accounts_server::Accounts for Rpc {
    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        self.answer("Login", login::run(&self.0, request.into_inner())).await
    }

    async fn enlist(&self, request: Request<pb::EnlistRequest>) -> Result<Response<pb::EnlistResponse>, Status> {
        self.answer_or_refuse("Enlist", enlist::run(&self.0, request.into_inner())).await
    }

    async fn devices(&self, request: Request<pb::AccountRef>) -> Result<Response<pb::DevicesResponse>, Status> {
        self.answer_or_refuse("Devices", devices::run(&self.0, request.into_inner())).await
    }

    async fn remove_device(
        &self,
        request: Request<pb::RemoveDeviceRequest>,
    ) -> Result<Response<pb::DoneResponse>, Status> {
        self.answer_or_refuse("RemoveDevice", remove_device::run(&self.0, request.into_inner())).await
    }

    async fn withdraw(&self, request: Request<pb::AccountRef>) -> Result<Response<pb::DoneResponse>, Status> {
        self.answer_or_refuse("Withdraw", withdraw::run(&self.0, request.into_inner())).await
    }

    async fn discover(&self, request: Request<pb::DiscoverRequest>) -> Result<Response<pb::DoneResponse>, Status> {
        self.answer_or_refuse("Discover", discover::run(&self.0, request.into_inner())).await
    }

    async fn set_push(&self, request: Request<pb::SetPushRequest>) -> Result<Response<pb::DoneResponse>, Status> {
        self.answer_or_refuse("SetPush", set_push::run(&self.0, request.into_inner())).await
    }
}

#[async_trait]
impl pb::prekeys_server::Prekeys for Rpc {
    async fn publish(&self, request: Request<pb::PublishRequest>) -> Result<Response<pb::KeyCountsResponse>, Status> {
        self.answer_or_refuse("Publish", publish::run(&self.0, request.into_inner())).await
    }

    async fn count(&self, request: Request<pb::DeviceRef>) -> Result<Response<pb::KeyCountsResponse>, Status> {
        self.answer_or_refuse("Count", count::run(&self.0, request.into_inner())).await
    }

    async fn claim(&self, request: Request<pb::ClaimRequest>) -> Result<Response<pb::ClaimResponse>, Status> {
        self.answer_or_refuse("Claim", claim::run(&self.0, request.into_inner())).await
    }
}

#[async_trait]
impl pb::consent_server::Consent for Rpc {
    async fn get(&self, request: Request<pb::AccountRef>) -> Result<Response<pb::ConsentResponse>, Status> {
        self.answer_or_refuse("GetConsent", consent::get(&self.0, request.into_inner())).await
    }

    async fn set(&self, request: Request<pb::SetConsentRequest>) -> Result<Response<pb::ConsentResponse>, Status> {
        self.answer_or_refuse("SetConsent", consent::set(&self.0, request.into_inner())).await
    }
}

#[async_trait]
impl pb::records_server::Records for Rpc {
    type FollowStream = BoxStream<'static, Result<pb::FollowedMessage, Status>>;

    async fn get(&self, request: Request<pb::GetRecord>) -> Result<Response<pb::RecordResponse>, Status> {
        self.answer("GetRecord", record::run(&self.0, request.into_inner())).await
    }

    async fn follow(
        &self,
        request: Request<Streaming<pb::FollowerMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        follow::run(&self.0, request.into_inner()).map(Response::new)
    }

    async fn webhook(&self, request: Request<pb::GetWebhook>) -> Result<Response<pb::WebhookResponse>, Status> {
        self.answer("Webhook", webhook::run(&self.0, request.into_inner())).await
    }
}

#[async_trait]
impl pb::token_keys_server::TokenKeys for Rpc {
    type WatchStream = BoxStream<'static, Result<pb::TokenKeysUpdate, Status>>;

    async fn watch(&self, _request: Request<pb::WatchTokenKeys>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(watch::run(&self.0)))
    }

    async fn refetch(&self, request: Request<pb::RefetchTokenKeys>) -> Result<Response<pb::ProviderKeys>, Status> {
        self.answer("Refetch", refetch::run(&self.0, request.into_inner())).await
    }
}

#[async_trait]
impl pb::providers_server::Providers for Rpc {
    async fn register(&self, request: Request<pb::RegisterProvider>) -> Result<Response<pb::Provider>, Status> {
        self.answer("RegisterProvider", providers::register::run(&self.0, request.into_inner())).await
    }

    async fn update(&self, request: Request<pb::UpdateProvider>) -> Result<Response<pb::Provider>, Status> {
        self.answer("UpdateProvider", providers::update::run(&self.0, request.into_inner())).await
    }

    async fn list(&self, request: Request<pb::ListProviders>) -> Result<Response<pb::ProviderList>, Status> {
        self.answer("ListProviders", providers::list::run(&self.0, request.into_inner())).await
    }

    async fn set_status(&self, request: Request<pb::SetProviderStatus>) -> Result<Response<pb::Provider>, Status> {
        self.answer("SetProviderStatus", providers::set_status::run(&self.0, request.into_inner())).await
    }
}

/// The caller's account, which an edge has authenticated.
fn account_id(bytes: &[u8]) -> Result<AccountId, BadField> {
    AccountId::try_from(bytes).map_err(|error| BadField::new("account_id", &error))
}

/// The caller's device, which an edge has authenticated.
fn device_id(number: u32) -> Result<DeviceId, BadField> {
    DeviceId::new(number).map_err(|error| BadField::new("device_id", &error))
}
