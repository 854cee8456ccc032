//! Who may open a session. Runs only for a client that has proven its Noise key in this connection, so nothing here is
//! spent, counted or looked up for a replayed handshake.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use causeway_identity::token::{self, Expected};
use causeway_identity::{AccountId, Address, DeviceId, NoiseKey, ProviderId};
use causeway_noise::Proved;
use causeway_proto::directory::v1::accounts_client::AccountsClient;
use causeway_proto::directory::v1::{LoginRequest, login_response};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::grpc;
use causeway_runtime::grpc::Channel;
use causeway_stanza::{ClientHello, FailureReason};
use tokio_util::sync::CancellationToken;

use crate::config::EdgeConfig;
use crate::pacing::Pacing;
use crate::providers::{Issuer, Provider, Providers};
use crate::replay::{SpendError, Spending, SpentTokens};

/// Who a session belongs to. Made by [`Login`] only.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) address: Address,
    pub(crate) provider: Arc<Provider>,
    pub(crate) noise_key: NoiseKey,
}

/// The token that a session lives by.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) jti: String,
    /// Unix milliseconds.
    pub(crate) expires_ms: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_ms", &self.expires_ms).finish_non_exhaustive()
    }
}

/// A device that is enlisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) account: AccountId,
    pub(crate) id: DeviceId,
    pub(crate) registration_id: u32,
}

/// A client that may open a session.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) user: Arc<User>,
    pub(crate) token: Token,
    /// `None`: it may only enlist.
    pub(crate) device: Option<Device>,
    pub(crate) device_count: u32,
    pub(crate) prekeys_low: bool,
    /// Cancelled when the provider is suspended.
    pub(crate) suspended: CancellationToken,
}

/// Why a login failed, and whose user's it was if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: FailureReason,
    pub(crate) provider: Option<ProviderId>,
}

impl Refusal {
    fn by(provider: &Provider, reason: FailureReason) -> Self {
        Self { reason, provider: Some(provider.id) }
    }
}

impl From<FailureReason> for Refusal {
    fn from(reason: FailureReason) -> Self {
        Self { reason, provider: None }
    }
}

/// Decides about logins and fresh tokens.
pub(crate) struct Login {
    providers: Providers,
    spent: Arc<dyn SpentTokens>,
    accounts: AccountsClient<Channel>,
    audience: String,
    pacing: Pacing,
    clock: SharedClock,
}

impl Login {
    pub(crate) fn new(
        config: &EdgeConfig,
        spent: Arc<dyn SpentTokens>,
        providers: Providers,
        directory: Channel,
        pacing: Pacing,
        clock: SharedClock,
    ) -> Self {
        let accounts = AccountsClient::new(directory);
        Self { providers, spent, accounts, audience: config.deployment.clone(), pacing, clock }
    }

    /// For what else of a login is costly.
    pub(crate) const fn pacing(&self) -> &Pacing {
        &self.pacing
    }

    /// Resolves once providers are known.
    pub(crate) async fn wait_until_ready(&self) {
        self.providers.wait_until_filled().await;
    }

    /// Checks token, provider and device, in this order, and then spends the token.
    /// `_live` is the handshake's proof that the client is no recording.
    pub(crate) async fn admit(
        &self,
        hello: &ClientHello,
        noise_key: NoiseKey,
        _live: Proved,
    ) -> Result<Admitted, Refusal> {
        let (user, token) = self.verify(hello.token.as_str(), noise_key).await?;
        let provider = Arc::clone(&user.provider);
        self.let_in(hello, user, token).await.map_err(|reason| Refusal::by(&provider, reason))
    }

    async fn let_in(&self, hello: &ClientHello, user: User, token: Token) -> Result<Admitted, FailureReason> {
        let spending = self.spending(&user, &token, hello.device);
        self.spent.check(&spending, self.now_s()).await?;
        let suspended = user.provider.suspended.clone();
        let mut admitted =
            Admitted { user: Arc::new(user), token, device: None, device_count: 0, prekeys_low: false, suspended };
        if let Some(device) = hello.device {
            self.look_up(&mut admitted, device).await?;
        }
        let spending = self.spending(&admitted.user, &admitted.token, hello.device);
        self.spent.spend(&spending, self.now_s()).await?;
        if admitted.suspended.is_cancelled() {
            return Err(FailureReason::ProviderSuspended);
        }
        Ok(admitted)
    }

    /// Checks and spends a fresh token for a session that is open: the same account, issuer and key, and a later expiry.
    pub(crate) async fn refresh(
        &self,
        fresh: &str,
        user: &User,
        expires_ms: u64,
        device: Option<DeviceId>,
    ) -> Result<Token, FailureReason> {
        let (fresh_user, token) = self.verify(fresh, user.noise_key).await.map_err(|refusal| refusal.reason)?;
        if fresh_user.provider.id != user.provider.id {
            return Err(FailureReason::TokenIssuer);
        }
        if fresh_user.address != user.address {
            // The token binds another account than the session's.
            return Err(FailureReason::TokenBinding);
        }
        if token.expires_ms <= expires_ms {
            return Err(FailureReason::TokenExpired);
        }
        self.spent.spend(&self.spending(user, &token, device), self.now_s()).await?;
        Ok(token)
    }

    /// The device was removed or its account withdrawn: its token opens nothing any more.
    pub(crate) fn burn(&self, user: &User, token: &Token) {
        self.spent.burn(user.provider.id, &token.jti, token.expires_ms / 1_000, self.now_s());
    }

    async fn verify(&self, text: &str, noise_key: NoiseKey) -> Result<(User, Token), Refusal> {
        let head = token::peek(text).map_err(reason)?;
        let provider = match self.providers.by_issuer(&head.issuer) {
            Issuer::Known(provider) => provider,
            Issuer::Unknown => return Err(FailureReason::ProviderUnknown.into()),
            Issuer::Resembles => return Err(FailureReason::TokenIssuer.into()),
            Issuer::NotReady => return Err(FailureReason::Overloaded.into()),
        };
        let signed = self.verify_signed(text, &head.kid, Arc::clone(&provider), noise_key).await;
        signed.map_err(|reason| Refusal::by(&provider, reason))
    }

    async fn verify_signed(
        &self,
        text: &str,
        kid: &str,
        mut provider: Arc<Provider>,
        noise_key: NoiseKey,
    ) -> Result<(User, Token), FailureReason> {
        if !provider.live {
            return Err(FailureReason::ProviderSuspended);
        }
        let now_ms = self.clock.now_ms();
        if provider.keys_with(kid, now_ms).is_none() {
            let fetched = self.providers.refetch(&provider, kid, now_ms).await;
            provider = fetched.ok_or(FailureReason::TokenSignature)?;
            if !provider.live {
                return Err(FailureReason::ProviderSuspended);
            }
        }
        let keys = provider.keys_with(kid, now_ms).ok_or(FailureReason::TokenSignature)?;
        let expected = Expected {
            issuer: &provider.issuer,
            provider: &provider.domain,
            audience: &self.audience,
            noise_key,
            now: self.clock.now(),
        };
        let slot = self.pacing.slot().await;
        let verified = token::verify(text, keys, &expected).map_err(reason);
        if let Some(slot) = slot {
            slot.used();
        }
        let verified = verified?;
        let expires = verified.expires_at().duration_since(UNIX_EPOCH).unwrap_or_default();
        let token = Token {
            jti: verified.jti().to_owned(),
            expires_ms: u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
        };
        Ok((User { address: verified.address().clone(), provider, noise_key }, token))
    }

    async fn look_up(&self, admitted: &mut Admitted, device: DeviceId) -> Result<(), FailureReason> {
        let request = LoginRequest {
            address: admitted.user.address.as_str().to_owned(),
            device_id: device.get(),
            noise_key: admitted.user.noise_key.as_bytes().to_vec().into(),
        };
        let answer = self.accounts.clone().login(grpc::call(request)).await.map_err(|status| {
            tracing::debug!(code = ?status.code(), "the directory did not answer a login");
            FailureReason::Overloaded
        })?;
        match answer.into_inner().outcome {
            Some(login_response::Outcome::LoggedIn(found)) => {
                let account = AccountId::try_from(&found.account_id[..]).map_err(|_| FailureReason::Overloaded)?;
                admitted.device = Some(Device { account, id: device, registration_id: found.registration_id });
                admitted.device_count = found.device_count;
                admitted.prekeys_low = found.prekeys_low;
                Ok(())
            }
            Some(login_response::Outcome::Refused(number)) => {
                Err(FailureReason::try_from(number).unwrap_or(FailureReason::DeviceUnknown))
            }
            None => Err(FailureReason::Overloaded),
        }
    }

    fn spending<'a>(&self, user: &User, token: &'a Token, device: Option<DeviceId>) -> Spending<'a> {
        Spending {
            provider: user.provider.id,
            jti: &token.jti,
            expires_s: token.expires_ms / 1_000,
            key: user.noise_key,
            device,
        }
    }

    fn now_s(&self) -> u64 {
        self.clock.now_ms() / 1_000
    }
}

impl From<SpendError> for FailureReason {
    fn from(error: SpendError) -> Self {
        match error {
            SpendError::Replayed => Self::TokenReplayed,
            SpendError::Full | SpendError::Away => Self::Overloaded,
        }
    }
}

fn reason(error: token::TokenError) -> FailureReason {
    match error {
        token::TokenError::Malformed => FailureReason::TokenMalformed,
        token::TokenError::Signature => FailureReason::TokenSignature,
        token::TokenError::Expired => FailureReason::TokenExpired,
        token::TokenError::NotYetValid => FailureReason::TokenNotYetValid,
        token::TokenError::Audience => FailureReason::TokenAudience,
        token::TokenError::Issuer => FailureReason::TokenIssuer,
        token::TokenError::Binding => FailureReason::TokenBinding,
    }
}
