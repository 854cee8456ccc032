//! `media-upload` and `media-download`: tickets of the operator's media-relay.

use causeway_proto::media::v1::{DownloadRequest, Ticket, UploadRequest};
use causeway_runtime::grpc;
use causeway_stanza::{ErrorCode, IqError, MediaDownload, MediaTicket, MediaUpload, ResponseBody};
use url::Url;

use super::{Asker, Requests};

/// For users of the home provider; the others have a media host of their own provider.
pub(super) async fn upload(requests: &Requests, asker: &Asker, upload: &MediaUpload) -> Result<ResponseBody, IqError> {
    if !asker.user.provider.home {
        return Err(IqError::new(ErrorCode::NotAvailable));
    }
    let request =
        UploadRequest { account_id: asker.device()?.account_bytes(), size: upload.size, sha256: upload.sha256.into() };
    let answer = requests.tickets.clone().upload(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    ticket(requests, answer.into_inner())
}

/// For ciphertexts on a media host of a registered provider, and nowhere else.
pub(super) async fn download(
    requests: &Requests,
    asker: &Asker,
    download: &MediaDownload,
) -> Result<ResponseBody, IqError> {
    let url = canonical(download.url.as_str()).filter(|url| requests.providers.serve_media(url));
    let Some(url) = url else { return Err(IqError::new(ErrorCode::NotAvailable)) };
    let request = DownloadRequest {
        account_id: asker.device()?.account_bytes(),
        url: url.into(),
        size: download.size,
        sha256: download.sha256.into(),
    };
    let answer = requests.tickets.clone().download(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    ticket(requests, answer.into_inner())
}

/// The URL, if it is written as a URL parser would write it, without user, password and fragment, and without escapes
/// that another reader of it could take for a path separator or a step upwards.
fn canonical(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let lower = url.path().to_ascii_lowercase();
    let plain = url.as_str() == text
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
        && !["%2e", "%2f", "%5c", "%00", "%25"].iter().any(|escape| lower.contains(escape))
        && !url.path().contains('\\')
        && !url.path().contains("//");
    plain.then_some(url)
}

fn ticket(requests: &Requests, ticket: Ticket) -> Result<ResponseBody, IqError> {
    let wire = causeway_proto::wire::v1::MediaTicket {
        url: ticket.url,
        ticket: ticket.ticket,
        expires_ms: ticket.expires_ms,
        public_url: ticket.public_url,
    };
    MediaTicket::try_from(wire).map(ResponseBody::MediaTicket).map_err(|_| requests.nonsense())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_spelling() {
        assert!(canonical("https://media.birdy.example/v1/blobs/abc?x=1").is_some());
        for other in [
            "https://media.birdy.example/v1/blobs/../abc",
            "https://media.birdy.example/v1/blobs/%2e%2e/abc",
            "https://media.birdy.example/v1/blobs/%2E%2e%2fabc",
            "https://media.birdy.example/v1/blobs/%252e%252e/abc",
            "https://media.birdy.example/v1/blobs//abc",
            "https://media.birdy.example\\v1\\blobs\\abc",
            "https://MEDIA.birdy.example/v1/blobs/abc",
            "https://media.birdy.example:443/v1/blobs/abc",
            "https://a@media.birdy.example/v1/blobs/abc",
            "https://media.birdy.example/v1/blobs/abc#x",
            " https://media.birdy.example/v1/blobs/abc",
            "https://media.birdy.example/v1/blobs/a\nb",
            "media.birdy.example/v1/blobs/abc",
        ] {
            assert!(canonical(other).is_none(), "{other}");
        }
    }
}
