//! `consent`: who may reach the user, and how it is shown.

use causeway_proto::directory::v1::{ConsentResponse, SetConsentRequest, consent_response};
use causeway_runtime::grpc;
use causeway_stanza::{ConsentSettings, ErrorCode, IqError, Reach, ResponseBody};

use super::{Asker, Requests};

pub(super) async fn get(requests: &Requests, asker: &Asker) -> Result<ResponseBody, IqError> {
    let answer = requests.consent.clone().get(grpc::call(asker.account()?)).await.map_err(|s| requests.failed(&s))?;
    settings(requests, answer.into_inner())
}

pub(super) async fn set(requests: &Requests, asker: &Asker, wanted: ConsentSettings) -> Result<ResponseBody, IqError> {
    if wanted.reach == Reach::Contacts {
        // There are no contacts yet; to take the setting for another one would be to widen or narrow it silently.
        return Err(IqError::new(ErrorCode::BadRequest).with_detail("reach: contacts is not served yet"));
    }
    let from = asker.device()?;
    let request = SetConsentRequest {
        account_id: from.account_bytes(),
        settings: Some(wanted.into()),
        from_device_id: from.id.get(),
    };
    let answer = requests.consent.clone().set(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    settings(requests, answer.into_inner())
}

fn settings(requests: &Requests, answer: ConsentResponse) -> Result<ResponseBody, IqError> {
    match answer.outcome {
        Some(consent_response::Outcome::Settings(settings)) => {
            settings.try_into().map(ResponseBody::Consent).map_err(|_| requests.nonsense())
        }
        Some(consent_response::Outcome::Refused(refusal)) => Err(requests.refused(&refusal)),
        None => Err(requests.nonsense()),
    }
}
