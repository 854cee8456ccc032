//! Get of records: everything that routing needs to know of an address.

use causeway_identity::Address;
use causeway_proto::directory::v1 as pb;

use super::providers::{kind_to_proto, status_to_proto};
use crate::accounts::{Device, Record};
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

pub(super) async fn run(directory: &Directory, request: pb::GetRecord) -> Result<pb::RecordResponse, CallError> {
    // What is no address is nobody's.
    let Ok(address) = request.address.parse::<Address>() else { return Ok(pb::RecordResponse { record: None }) };
    let record = directory.store.record(&Who::Address(address)).await?;
    Ok(pb::RecordResponse { record: record.map(to_proto) })
}

fn to_proto(record: Record) -> pb::Record {
    let device = |device: Device| pb::RecordDevice {
        id: device.id.get(),
        registration_id: device.registration_id.get(),
        push_token: device.push_token.map(|token| token.as_bytes().clone()).unwrap_or_default(),
    };
    pb::Record {
        account_id: record.account.as_bytes().to_vec().into(),
        address: record.address.to_string(),
        provider_domain: record.provider.domain.to_string(),
        provider_kind: kind_to_proto(record.provider.kind).into(),
        provider_status: status_to_proto(record.provider.status).into(),
        consent: Some(record.consent.to_proto()),
        devices: record.devices.into_iter().map(device).collect(),
    }
}
