//! `Traces.Find`: what this replica knows of messages' ways.

use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, Domain, MessageId};
use causeway_proto::routing::v1::find_traces_request::Wanted as WantedProto;
use causeway_proto::routing::v1::traces_server::Traces as TracesRpc;
use causeway_proto::routing::v1::{FindTracesRequest, FoundTraces, Trace, TraceCheckpoint, TracePlace};
use tonic::{Request, Response, Status};

use crate::message::Seq;
use crate::trails::{Found, Query, TraceId, Trails, Wanted};

/// Serves key-directory; cheap to clone.
#[derive(Clone)]
pub(crate) struct TracesService {
    pub(crate) trails: Arc<Trails>,
}

const MAX_LIMIT: usize = 1_000;
const MAX_PLACES: usize = 1_000;

#[tonic::async_trait]
impl TracesRpc for TracesService {
    async fn find(&self, request: Request<FindTracesRequest>) -> Result<Response<FoundTraces>, Status> {
        let query = query(request.into_inner()).map_err(Status::invalid_argument)?;
        let (found, more) = self.trails.find(&query).await;
        Ok(Response::new(FoundTraces { traces: found.into_iter().map(encode).collect(), more }))
    }
}

fn query(request: FindTracesRequest) -> Result<Query, &'static str> {
    let wanted = match request.wanted.ok_or("nothing is wanted")? {
        WantedProto::TraceId(id) => {
            Wanted::Trace(TraceId::from_bytes(id[..].try_into().map_err(|_| "trace_id is no trace id")?))
        }
        WantedProto::MessageId(id) => {
            Wanted::Message(MessageId::try_from(&id[..]).map_err(|_| "message_id is no message id")?)
        }
        WantedProto::Address(address) => {
            Wanted::Address(address.parse::<Address>().map_err(|_| "address is no address")?)
        }
        WantedProto::Places(places) if places.places.len() > MAX_PLACES => return Err("too many places"),
        WantedProto::Places(places) => {
            let place = |place: &TracePlace| Ok((AccountId::try_from(&place.account_id[..])?, Seq(place.seq)));
            let places: Result<_, causeway_identity::IdError> = places.places.iter().map(place).collect();
            Wanted::Places(places.map_err(|_| "account_id is no account id")?)
        }
    };
    let provider = match request.provider_domain.as_str() {
        "" => None,
        domain => Some(domain.parse::<Domain>().map_err(|_| "provider_domain is no domain")?),
    };
    let limit = usize::try_from(request.limit).unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT);
    Ok(Query { wanted, since_ms: request.since_ms, provider, limit })
}

fn encode(found: Found) -> Trace {
    let account = |id: AccountId| Bytes::copy_from_slice(id.as_bytes());
    let (sender, device) = found.from.map_or((Bytes::new(), 0), |(id, device)| (account(id), device));
    Trace {
        trace_id: Bytes::copy_from_slice(found.id.as_bytes()),
        place: found.place.map(|(id, seq)| TracePlace { account_id: account(id), seq: seq.0 }),
        begun_here: found.begun_here,
        class: found.class.map_or("", |class| class.name()).to_owned(),
        began_ms: found.began_ms,
        sender_account_id: sender,
        sender_device_id: device,
        recipient_account_id: found.to.map(account).unwrap_or_default(),
        checkpoints: found
            .checkpoints
            .into_iter()
            .map(|part| TraceCheckpoint {
                time_ms: part.at_ms,
                name: part.name.to_owned(),
                device_id: part.device,
                detail: part.word,
            })
            .collect(),
        left_out: found.left_out,
    }
}
