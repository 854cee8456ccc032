//! `token-refresh`: the session goes on with a fresh token of the same user.

use causeway_stanza::{ErrorCode, FailureReason, IqError, Token};

use super::{Asker, Requests};
use crate::session::Answer;

pub(super) async fn carry_out(requests: &Requests, asker: &Asker, token: &Token) -> Result<Answer, IqError> {
    let device = asker.device()?.id;
    let refreshed = requests.login.refresh(token.as_str(), &asker.user, asker.token_expires_ms, Some(device)).await;
    refreshed.map(Answer::Refreshed).map_err(|reason| match reason {
        FailureReason::Overloaded => IqError::new(ErrorCode::Unavailable).retry_after_ms(requests.retry_ms),
        reason => IqError::new(ErrorCode::TokenRefused).with_detail(reason.as_str()),
    })
}
