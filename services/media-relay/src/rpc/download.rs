//! `Download`: the right to fetch one ciphertext through this relay.

use causeway_proto::media::v1::{DownloadRequest, Ticket};

use super::{account, sha256};
use crate::error::RequestError;
use crate::relay::Relay;

#[expect(clippy::needless_pass_by_value, reason = "a call takes its message")]
pub(super) fn download(relay: &Relay, request: DownloadRequest) -> Result<Ticket, RequestError> {
    let digest = sha256(&request.sha256)?;
    let sealed = relay.download_ticket(account(&request.account_id)?, &request.url, request.size, digest)?;
    Ok(Ticket {
        url: relay.url().to_owned(),
        ticket: sealed.ticket,
        expires_ms: sealed.expires_ms,
        public_url: String::new(),
    })
}
