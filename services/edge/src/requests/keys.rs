//! `keys-publish` and `keys-count`: the device's own prekeys.

use causeway_proto::directory::v1::{DeviceRef, KeyCountsResponse, PublishRequest, key_counts_response};
use causeway_runtime::grpc;
use causeway_stanza::{IqError, KeysPublish, ResponseBody};

use super::{Asker, Requests};

pub(super) async fn publish(requests: &Requests, asker: &Asker, keys: KeysPublish) -> Result<ResponseBody, IqError> {
    let device = asker.device()?;
    let request =
        PublishRequest { account_id: device.account_bytes(), device_id: device.id.get(), keys: Some(keys.into()) };
    let answer = requests.prekeys.clone().publish(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    counts(requests, answer.into_inner())
}

pub(super) async fn count(requests: &Requests, asker: &Asker) -> Result<ResponseBody, IqError> {
    let device = asker.device()?;
    let request = DeviceRef { account_id: device.account_bytes(), device_id: device.id.get() };
    let answer = requests.prekeys.clone().count(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    counts(requests, answer.into_inner())
}

fn counts(requests: &Requests, answer: KeyCountsResponse) -> Result<ResponseBody, IqError> {
    match answer.outcome {
        Some(key_counts_response::Outcome::Counts(counts)) => Ok(ResponseBody::KeyCounts(counts.into())),
        Some(key_counts_response::Outcome::Refused(refusal)) => Err(requests.refused(&refusal)),
        None => Err(requests.nonsense()),
    }
}
