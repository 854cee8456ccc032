//! Requests that wait for the server's answer.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use causeway_identity::{Address, DeviceId};
use causeway_stanza::{ErrorCode, FromClient, IqError, Request, RequestBody, Response, ResponseBody, Token};
use tokio::time::Instant;

use super::{Engine, Reply};
use crate::error::ClientError;
use crate::event::Ended;
use crate::signal::{Published, SignalError};

/// Requests that may be open at a time; the server's bound is not lower.
const MAX_OPEN: usize = 64;

/// What to do with the answer.
pub(super) enum Then {
    /// The application gets it.
    Reply(Reply<ResponseBody>),
    Enlist(Vec<Reply<DeviceId>>, Published),
    Withdraw(Reply<()>),
    Claim(Address, Vec<DeviceId>),
    Publish(Published),
    Count,
    OwnDevices,
    TokenRefresh,
}

/// All open requests.
#[derive(Default)]
pub(super) struct Requests {
    last: u64,
    open: BTreeMap<NonZeroU64, Open>,
}

struct Open {
    body: RequestBody,
    /// `None`: nobody waits for the answer any more.
    deadline: Option<Instant>,
    then: Then,
}

impl Requests {
    /// When the next one is overdue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.values().filter_map(|open| open.deadline).min()
    }

    /// Whether one of a kind is under way.
    pub(super) fn has(&self, kind: impl Fn(&Then) -> bool) -> bool {
        self.open.values().any(|open| kind(&open.then))
    }

    fn next_id(&mut self) -> NonZeroU64 {
        self.last = self.last.wrapping_add(1).max(1);
        NonZeroU64::new(self.last).unwrap_or(NonZeroU64::MIN)
    }
}

impl Engine {
    /// A request of the application.
    pub(super) fn request(&mut self, body: RequestBody, reply: Reply<ResponseBody>) {
        if self.device.enlisted.is_none() {
            self.turn.reply(|| drop(reply.send(Err(ClientError::NotEnlisted))));
        } else if self.requests.open.len() >= MAX_OPEN {
            self.turn.reply(|| drop(reply.send(Err(ClientError::TooManyRequests))));
        } else {
            self.ask(body, Then::Reply(reply));
        }
    }

    /// The application leaves the network.
    pub(super) fn withdraw(&mut self, reply: Reply<()>) {
        if self.device.enlisted.is_none() {
            self.turn.reply(|| drop(reply.send(Err(ClientError::NotEnlisted))));
        } else {
            self.ask(RequestBody::Withdraw, Then::Withdraw(reply));
        }
    }

    /// Opens a request. Without a connection it waits for one, up to its deadline.
    pub(super) fn ask(&mut self, body: RequestBody, then: Then) {
        let id = self.requests.next_id();
        if self.session.is_some() {
            self.turn.sends.push(FromClient::Iq(Request { id, body: body.clone() }));
        }
        let deadline = Some(self.patience());
        self.requests.open.insert(id, Open { body, deadline, then });
    }

    /// Until when a request that is made now may take.
    fn patience(&self) -> Instant {
        Instant::now() + self.config.timing.request_timeout
    }

    /// Another caller for an enlistment that is under way.
    pub(super) fn join_enlistment(&mut self, reply: Reply<DeviceId>) -> Result<(), Reply<DeviceId>> {
        let patience = self.patience();
        for open in self.requests.open.values_mut() {
            if let Then::Enlist(replies, _) = &mut open.then {
                replies.push(reply);
                open.deadline.get_or_insert(patience);
                return Ok(());
            }
        }
        Err(reply)
    }

    /// The connection is back: what the application asked for is asked again.
    pub(super) fn ask_again(&mut self) {
        for (id, open) in &self.requests.open {
            self.turn.sends.push(FromClient::Iq(Request { id: *id, body: open.body.clone() }));
        }
    }

    /// The connection is gone: what only concerns it, or nobody waits for any more, is forgotten.
    pub(super) fn drop_own_requests(&mut self) {
        self.requests.open.retain(|_, open| match open.then {
            Then::Reply(_) | Then::Withdraw(_) => true,
            Then::Enlist(..) => open.deadline.is_some(),
            Then::Claim(..) | Then::Publish(_) | Then::Count | Then::OwnDevices | Then::TokenRefresh => false,
        });
    }

    /// Requests without an answer fail.
    pub(super) async fn fail_overdue(&mut self, now: Instant) -> Result<(), SignalError> {
        let overdue = |open: &Open| open.deadline.is_some_and(|deadline| deadline <= now);
        let overdue: Vec<_> = self.requests.open.iter().filter(|(_, open)| overdue(open)).map(|(id, _)| *id).collect();
        for id in overdue {
            if self.session.is_some() && self.await_enlistment(id) {
                continue;
            }
            if let Some(open) = self.requests.open.remove(&id) {
                self.answered(open.then, Err(ClientError::Timeout)).await?;
            }
        }
        Ok(())
    }

    /// The callers of an enlistment that this session has asked for wait no longer; its answer is waited for all the same:
    /// from then on the session is that of the device that it names. False: it is another request.
    fn await_enlistment(&mut self, id: NonZeroU64) -> bool {
        let Some(Open { deadline, then: Then::Enlist(replies, _), .. }) = self.requests.open.get_mut(&id) else {
            return false;
        };
        *deadline = None;
        for reply in std::mem::take(replies) {
            self.turn.reply(|| drop(reply.send(Err(ClientError::Timeout))));
        }
        true
    }

    /// The server answered. What nobody asked for is dropped.
    pub(super) async fn response(&mut self, response: Response) -> Result<Option<Ended>, SignalError> {
        let Some(open) = self.requests.open.remove(&response.id) else { return Ok(None) };
        let withdrawn = matches!(open.then, Then::Withdraw(_)) && response.body == ResponseBody::Done;
        let answer = match response.body {
            ResponseBody::Error(error) => Err(refused(&error)),
            body => Ok(body),
        };
        self.answered(open.then, answer).await?;
        Ok(withdrawn.then_some(Ended::Withdrawn))
    }

    /// The account is gone, which is what a withdrawal that is under way asked for.
    pub(super) fn withdrawn(&mut self) {
        for (_, open) in std::mem::take(&mut self.requests.open) {
            if let Then::Withdraw(reply) = open.then {
                self.turn.reply(|| drop(reply.send(Ok(()))));
            }
        }
    }

    async fn answered(&mut self, then: Then, answer: Result<ResponseBody, ClientError>) -> Result<(), SignalError> {
        match then {
            Then::Reply(reply) => self.turn.reply(|| drop(reply.send(answer))),
            Then::Withdraw(reply) => {
                let answer = match answer {
                    Ok(ResponseBody::Done) => Ok(()),
                    Ok(_) => Err(ClientError::Protocol),
                    Err(error) => Err(error),
                };
                self.turn.reply(|| drop(reply.send(answer)));
            }
            Then::Enlist(replies, published) => self.enlisted(replies, published, answer),
            Then::Claim(address, devices) => self.claimed(&address, &devices, answer).await?,
            Then::Publish(published) => self.published(published, &answer),
            Then::Count => {
                if let Ok(ResponseBody::KeyCounts(counts)) = answer {
                    self.top_up(counts)?;
                }
            }
            Then::OwnDevices => {
                if let Ok(ResponseBody::Devices(devices)) = answer {
                    self.own_devices(&devices).await?;
                }
            }
            // Refused or not: when the token is over, the session ends, and the next one has the new token.
            Then::TokenRefresh => {}
        }
        Ok(())
    }

    /// Presents a fresh token.
    pub(super) fn refresh_token(&mut self, token: String) {
        if let Ok(token) = Token::try_from(token) {
            self.ask(RequestBody::TokenRefresh(token), Then::TokenRefresh);
        }
    }
}

fn refused(error: &IqError) -> ClientError {
    let waits = error.retry_after_ms > 0 || matches!(error.code, ErrorCode::RateLimited | ErrorCode::Unavailable);
    let detail = error.detail.as_str();
    ClientError::Refused {
        code: error.code,
        retry_after: waits.then(|| Duration::from_millis(error.retry_after_ms)),
        detail: (!detail.is_empty()).then(|| detail.to_owned()),
    }
}
