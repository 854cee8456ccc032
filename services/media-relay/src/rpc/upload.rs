//! `Upload`: a place for one ciphertext on this host.

use causeway_proto::media::v1::{Ticket, UploadRequest};

use super::{account, sha256};
use crate::error::RequestError;
use crate::host::Host;

#[expect(clippy::needless_pass_by_value, reason = "a call takes its message")]
pub(super) fn upload(host: &Host, request: UploadRequest) -> Result<Ticket, RequestError> {
    let ticket = host.upload_ticket(account(&request.account_id)?, request.size, sha256(&request.sha256)?)?;
    Ok(Ticket { url: ticket.url, ticket: ticket.ticket, expires_ms: ticket.expires_ms, public_url: ticket.public_url })
}
