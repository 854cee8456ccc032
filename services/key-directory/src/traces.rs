//! `Traces.Find`: delivery traces, for the operator and for providers. All replicas of routing are asked; of a message that
//! several have handled, the parts are put together by its place.
//!
//! Who may see what is decided here: the operator token shows everything; a trace token, signed with a provider's own key
//! (`causeway_identity::token::traces`), shows that provider's side of its own users' messages, which routing sees to. Whatever
//! is wrong with a token, the answer is the same (too many that nobody has seen before are told to come later, good or not),
//! and so it is whether a trace is somebody else's or nobody's.

mod callers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, Domain, MessageId};
use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::find_traces::Wanted;
use causeway_proto::routing::v1 as routing;
use causeway_proto::routing::v1::find_traces_request::Wanted as Asked;
use causeway_proto::routing::v1::traces_client::TracesClient;
use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::{self, Endpoints};
use futures::future::join_all;
use tonic::{Request, Response, Status, async_trait};

use self::callers::{Callers, NotLetIn};
use crate::directory::Directory;
use crate::operator::OperatorGuard;

/// A replica that takes longer counts as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;
/// So many times more are asked of a replica: the parts of one message may be among others' newer ones.
const ASKED_TIMES: u32 = 5;

/// The service.
pub(crate) struct Traces {
    directory: Arc<Directory>,
    operator: OperatorGuard,
    callers: Callers,
    routings: Endpoints,
}

/// For whom it is.
enum Scope {
    Everything,
    Own(Domain),
}

impl Traces {
    pub(crate) fn new(directory: Arc<Directory>, operator: OperatorGuard, routings: Endpoints) -> Self {
        Self { directory, operator, callers: Callers::new(), routings }
    }

    fn scope(&self, header: Option<&str>) -> Result<Scope, Status> {
        let header = header.ok_or_else(refused)?;
        if self.operator.allows(header) {
            return Ok(Scope::Everything);
        }
        let (scheme, token) = header.split_once(' ').ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        match self.callers.let_in(&self.directory, token) {
            Ok(provider) => Ok(Scope::Own(provider)),
            Err(NotLetIn::Refused) => Err(refused()),
            Err(NotLetIn::TooFast(too_fast)) => {
                let seconds = too_fast.retry_after.as_secs() + 1;
                Err(Status::resource_exhausted(format!("too many questions about traces: ask again in {seconds} s")))
            }
        }
    }

    /// Asks all replicas; those that answer, and what they know.
    async fn ask(&self, replicas: &BTreeMap<String, Channel>, request: &routing::FindTracesRequest) -> Answers {
        let calls = replicas.values().map(|channel| {
            let mut client = TracesClient::new(channel.clone()).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES);
            async move { tokio::time::timeout(PATIENCE, client.find(grpc::call(request.clone()))).await }
        });
        let mut answers = Answers::default();
        for answer in join_all(calls).await {
            match answer {
                Ok(Ok(found)) => {
                    let found = found.into_inner();
                    answers.answered += 1;
                    answers.more |= found.more;
                    answers.traces.extend(found.traces);
                }
                Ok(Err(status)) => tracing::debug!(code = ?status.code(), "a routing did not tell its traces"),
                Err(_elapsed) => tracing::debug!("a routing did not tell its traces in time"),
            }
        }
        answers
    }
}

#[derive(Default)]
struct Answers {
    traces: Vec<routing::Trace>,
    more: bool,
    answered: u32,
}

#[async_trait]
impl pb::traces_server::Traces for Traces {
    async fn find(&self, request: Request<pb::FindTraces>) -> Result<Response<pb::TraceList>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let scope = self.scope(header)?;
        let pb::FindTraces { wanted, minutes, limit } = request.into_inner();
        let wanted = check(wanted).map_err(Status::invalid_argument)?;
        let limit = match limit {
            0 => DEFAULT_LIMIT,
            limit => limit.min(MAX_LIMIT),
        };
        let ago_ms = u64::from(minutes) * 60_000;
        let since_ms = if minutes == 0 { 0 } else { self.directory.clock.now_ms().saturating_sub(ago_ms) };
        let provider_domain = match scope {
            Scope::Everything => String::new(),
            Scope::Own(domain) => domain.as_str().to_owned(),
        };
        let replicas = self.routings.current();
        let mut asked =
            routing::FindTracesRequest { wanted: Some(wanted), since_ms, provider_domain, limit: limit * ASKED_TIMES };
        let mut answers = self.ask(&replicas, &asked).await;
        let places = places(&answers.traces);
        if replicas.len() > 1 && !places.is_empty() {
            // Those who only went on with a message know it by its place.
            asked.wanted = Some(Asked::Places(routing::TracePlaces { places }));
            let rest = self.ask(&replicas, &asked).await;
            answers.answered = answers.answered.min(rest.answered);
            answers.traces.extend(rest.traces);
        }
        let mut traces = put_together(answers.traces);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = answers.more || traces.len() > limit;
        traces.truncate(limit);
        let replicas = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
        Ok(Response::new(pb::TraceList { traces, more, replicas, answered: answers.answered }))
    }
}

/// The one answer to whoever is not let in.
fn refused() -> Status {
    Status::unauthenticated(
        "this call needs the operator token or a provider's trace token: authorization: Bearer <token>",
    )
}

fn check(wanted: Option<Wanted>) -> Result<Asked, &'static str> {
    match wanted.ok_or("give a trace id, a message id or an address")? {
        Wanted::TraceId(id) if id.len() == 16 => Ok(Asked::TraceId(id)),
        Wanted::TraceId(_) => Err("trace_id: must be 16 bytes"),
        Wanted::MessageId(id) => {
            MessageId::try_from(&id[..]).map_err(|_| "message_id: must be 16 bytes")?;
            Ok(Asked::MessageId(id))
        }
        Wanted::Address(address) => {
            let address: Address = address.parse().map_err(|_| "address: must be an address, local@domain")?;
            Ok(Asked::Address(address.as_str().to_owned()))
        }
    }
}

fn places(traces: &[routing::Trace]) -> Vec<routing::TracePlace> {
    let known: BTreeMap<(Bytes, u64), routing::TracePlace> =
        traces.iter().filter_map(|trace| Some((key(trace)?, trace.place.clone()?))).collect();
    known.into_values().take(1_000).collect()
}

fn key(trace: &routing::Trace) -> Option<(Bytes, u64)> {
    let place = trace.place.as_ref()?;
    AccountId::try_from(&place.account_id[..]).ok()?;
    Some((place.account_id.clone(), place.seq))
}

/// One trace for each message, the newest first.
fn put_together(parts: Vec<routing::Trace>) -> Vec<routing::Trace> {
    let mut messages: BTreeMap<(Bytes, u64), routing::Trace> = BTreeMap::new();
    let mut refused: BTreeMap<Bytes, routing::Trace> = BTreeMap::new();
    for part in parts {
        let Some(key) = key(&part) else {
            refused.insert(part.trace_id.clone(), part);
            continue;
        };
        match messages.get_mut(&key) {
            Some(whole) => join(whole, part),
            None => {
                messages.insert(key, part);
            }
        }
    }
    let mut all: Vec<_> = messages.into_values().chain(refused.into_values()).collect();
    for trace in &mut all {
        trace.checkpoints.sort_by_key(|checkpoint| checkpoint.time_ms);
        trace.place = None;
        trace.begun_here = false;
    }
    all.sort_by_key(|trace| std::cmp::Reverse(trace.began_ms));
    all
}

fn join(whole: &mut routing::Trace, part: routing::Trace) {
    for checkpoint in part.checkpoints {
        // The same replica may have been asked twice.
        if !whole.checkpoints.contains(&checkpoint) {
            whole.checkpoints.push(checkpoint);
        }
    }
    if part.begun_here && !whole.begun_here {
        whole.trace_id = part.trace_id;
        whole.begun_here = true;
    }
    whole.began_ms = whole.began_ms.min(part.began_ms);
    whole.left_out = whole.left_out.max(part.left_out);
    if whole.sender_account_id.is_empty() {
        whole.sender_account_id = part.sender_account_id;
        whole.sender_device_id = part.sender_device_id;
    }
    if whole.recipient_account_id.is_empty() {
        whole.recipient_account_id = part.recipient_account_id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u8, begun_here: bool, times: &[(u64, &str)]) -> routing::Trace {
        let place = routing::TracePlace { account_id: Bytes::from_static(&[9; 16]), seq: 7 };
        let checkpoint = |(time_ms, name): &(u64, &str)| routing::TraceCheckpoint {
            time_ms: *time_ms,
            name: (*name).to_owned(),
            ..routing::TraceCheckpoint::default()
        };
        routing::Trace {
            trace_id: Bytes::copy_from_slice(&[id; 16]),
            place: Some(place),
            begun_here,
            began_ms: times[0].0,
            checkpoints: times.iter().map(checkpoint).collect(),
            ..routing::Trace::default()
        }
    }

    #[test]
    fn the_parts_of_one_message_become_one_trace_under_the_id_that_it_got_first() {
        let later = part(2, false, &[(30, "handed"), (40, "acknowledged")]);
        let first = part(1, true, &[(10, "accepted"), (20, "queued"), (25, "elsewhere")]);
        let refused = routing::Trace { place: None, began_ms: 50, ..part(3, true, &[(50, "refused")]) };
        let all = put_together(vec![later.clone(), first.clone(), refused, first, later]);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].trace_id[0], all[1].trace_id[0], all[1].began_ms), (3, 1, 10));
        let names: Vec<_> = all[1].checkpoints.iter().map(|checkpoint| checkpoint.name.as_str()).collect();
        assert_eq!(names, ["accepted", "queued", "elsewhere", "handed", "acknowledged"]);
        assert!(all.iter().all(|trace| trace.place.is_none() && !trace.begun_here));
    }
}
