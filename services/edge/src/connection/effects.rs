//! What a session has set going, and what it counts for.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId, SessionId};
use causeway_proto::routing::v1::{Attach, LoginOrder};
use causeway_runtime::telemetry::trace::Step;
use causeway_stanza::{FailureReason, RequestBody};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::Shared;
use super::traced::Traced;
use crate::limits::{Charge, Newcomer, Permit};
use crate::login::{Admitted, Refusal};
use crate::report::{Fault, Whose};
use crate::requests::Asker;
use crate::routes::Routes;
use crate::session::{Answer, Output};

/// A login waits so long for services that are not there, before it fails.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the session has set going.
pub(super) struct Effects {
    pub(super) id: SessionId,
    /// Its place among its device's logins.
    pub(super) order: Option<LoginOrder>,
    pub(super) shared: Arc<Shared>,
    permit: Permit,
    /// While the session is not enlisted.
    newcomer: Option<Newcomer>,
    /// Once it is a device's.
    pub(super) routes: Option<Box<Routes>>,
    pub(super) login: Option<BoxFuture<'static, Result<Box<Admitted>, Refusal>>>,
    /// While there are any.
    requests: Option<Box<Running>>,
    /// Something runs that has not been asked yet.
    pub(super) began: bool,
    /// What is queued for the socket counts until it has left: first while it waits to be encrypted,
    pub(super) queued: Vec<[Charge; 2]>,
    /// then while it is being written.
    pub(super) written: Vec<[Charge; 2]>,
    /// For the log.
    pub(super) whose: Whose,
    pub(super) fault: Option<Fault>,
    /// When the connection came.
    since: Instant,
    logged_in: bool,
    /// What the metrics call its end.
    pub(super) end: Option<&'static str>,
    /// Of the delivery that is being taken in.
    pub(super) arriving: Option<Box<Step>>,
    pub(super) traced: Traced,
}

/// Requests under way.
#[derive(Default)]
struct Running {
    futures: FuturesUnordered<BoxFuture<'static, (NonZeroU64, Answer)>>,
    /// Those for which there is no room among them.
    waiting: VecDeque<(NonZeroU64, Asker, Box<RequestBody>)>,
}

/// Keeps the gauges right on every way out.
impl Drop for Effects {
    fn drop(&mut self) {
        if self.logged_in {
            self.shared.metrics.session_ended(self.end.unwrap_or("cut-off"));
        }
        self.shared.metrics.disconnected();
    }
}

impl Effects {
    pub(super) fn new(id: SessionId, shared: Arc<Shared>, permit: Permit, since: Instant) -> Self {
        shared.metrics.connected();
        Self {
            id,
            order: None,
            shared,
            permit,
            newcomer: None,
            routes: None,
            login: None,
            requests: None,
            began: false,
            queued: Vec::new(),
            written: Vec::new(),
            whose: Whose::default(),
            fault: None,
            since,
            logged_in: false,
            end: None,
            arriving: None,
            traced: Traced::default(),
        }
    }

    pub(super) fn perform(&mut self, output: Output, now: Instant) {
        match output {
            // Written by the connection, which has the socket.
            Output::Write(_) => {}
            Output::Verify(hello, key, proved) => {
                self.began = true;
                let (login, links) = (Arc::clone(&self.shared.login), self.shared.links.clone());
                self.login = Some(Box::pin(async move {
                    // What was restarted is back soon; clients that are told to wait come back by themselves.
                    let ready = async { tokio::join!(links.wait_until_up(), login.wait_until_ready()) };
                    tokio::time::timeout(PATIENCE, ready)
                        .await
                        .map_err(|_| Refusal::from(FailureReason::Overloaded))?;
                    login.admit(&hello, key, proved).await.map(Box::new)
                }));
            }
            Output::Enlisted => self.newcomer = None,
            Output::LoggedIn => {
                self.permit.logged_in();
                self.logged_in = true;
                self.shared.metrics.logged_in(now.saturating_duration_since(self.since));
            }
            Output::Attach(attach) => {
                self.whose.account = AccountId::try_from(&attach.account_id[..]).ok();
                self.whose.device = DeviceId::new(attach.device_id).ok();
                self.began = true;
                let routes = self.routes.insert(Box::new(self.shared.links.join(self.id)));
                routes.attach(Attach { login: self.order, ..*attach }, now);
            }
            Output::Submit(message) => {
                if let Some(routes) = &mut self.routes {
                    routes.submit(*message, now);
                }
            }
            Output::Processed(tag) => {
                self.traced.acknowledged(tag);
                if let Some(routes) = &mut self.routes {
                    routes.processed(tag);
                }
            }
            Output::Ponged(number) => {
                if let Some(routes) = &mut self.routes {
                    routes.ponged(number, now);
                }
            }
            Output::Request(id, asker, body) => {
                self.requests.get_or_insert_default().waiting.push_back((id, asker, body));
                self.start_requests();
            }
            Output::BurnToken(user, token) => self.shared.login.burn(&user, &token),
            Output::Fault(fault) => self.fault = Some(fault),
        }
    }

    /// A message is about to be handed to the client.
    pub(super) fn delivering(&mut self, tag: u64) {
        self.shared.metrics.delivered();
        if let Some(step) = self.arriving.take() {
            self.traced.delivering(tag, *step);
        }
    }

    /// The client has more under way than may be kept for it.
    pub(super) fn is_full(&self) -> bool {
        self.routes.as_ref().is_some_and(|routes| routes.is_full())
    }

    /// Nothing is under way that the client waits for.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_none() && self.routes.as_ref().is_none_or(|routes| routes.is_idle())
    }

    pub(super) fn judged(&mut self, verdict: Result<Box<Admitted>, Refusal>) -> Result<Box<Admitted>, FailureReason> {
        let verdict = verdict.map_err(|refusal| {
            self.whose.provider = refusal.provider;
            refusal.reason
        });
        verdict.and_then(|admitted| self.let_in(admitted))
    }

    fn let_in(&mut self, admitted: Box<Admitted>) -> Result<Box<Admitted>, FailureReason> {
        self.whose.provider = Some(admitted.user.provider.id);
        if admitted.device.is_none() {
            let newcomer = self.shared.admission.newcomer(&admitted.user.address, admitted.user.provider.id);
            self.newcomer = Some(newcomer.ok_or(FailureReason::Overloaded)?);
        }
        Ok(admitted)
    }

    pub(super) fn start_requests(&mut self) {
        let Some(running) = &mut self.requests else { return };
        while running.futures.len() < self.shared.rules.config.concurrent_requests {
            let Some((id, asker, body)) = running.waiting.pop_front() else { break };
            let requests = Arc::clone(&self.shared.requests);
            running.futures.push(Box::pin(requests.carry_out(id, asker, *body)));
            self.began = true;
        }
        if running.futures.is_empty() && running.waiting.is_empty() {
            self.requests = None;
        }
    }

    /// The next answer; nothing while there are no requests.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<(NonZeroU64, Answer)> {
        let Some(running) = &mut self.requests else { return Poll::Pending };
        match running.futures.poll_next_unpin(cx) {
            Poll::Ready(Some(answered)) => Poll::Ready(answered),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// Gives up requests that are under way, and detaches from routing.
    pub(super) fn leave(&mut self) {
        self.requests = None;
        self.login = None;
        // From here on routing knows the session no more, however long the client takes.
        self.routes = None;
    }

    /// Lets go of the room that a burst needed.
    pub(super) fn rest(&mut self) {
        self.queued.shrink_to_fit();
        self.written.shrink_to_fit();
        if let Some(routes) = &mut self.routes {
            routes.rest();
        }
    }
}
