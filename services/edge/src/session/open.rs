//! An open session: stanzas in both directions.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_noise::{ReceiveError, Received, RecordError, Sender};
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{
    End, EndReason, Enlisted, ErrorCode, Fate, FromClient, FromServer, IqError, Notification, Outcome, Rejected,
    Request, RequestBody, Response, ResponseBody, ServerRecord, StanzaError, Submit, decode_client_shared,
};
use tokio::time::Instant;

use super::pace::Pace;
use super::transport::Transport;
use super::{Answer, Input, Now, Output, Session};
use crate::login::{Admitted, Device};
use crate::report::Fault;
use crate::requests::Asker;

/// The wall clock may be set while a session waits for its token to expire, so it is looked at this often.
const LOOK_AT_THE_CLOCK: Duration = Duration::from_secs(5);

/// A client that has logged in.
pub(crate) struct Open {
    transport: Transport,
    admitted: Admitted,
    stanzas: Pace,
    bytes: Pace,
    /// Everything that was fed has been looked at.
    caught_up: bool,
    last_heard: Instant,
    /// Since then there was a time in which nothing was read.
    unread: bool,
    pinged: bool,
    /// When the record that is under way began.
    record_since: Option<Instant>,
    last_tag_sent: u64,
    last_tag_acked: u64,
    /// Requests that are not answered yet, and their size.
    open_requests: BTreeMap<NonZeroU64, usize>,
    open_request_bytes: usize,
    /// A request to enlist that is not answered yet.
    enlisting: Option<NonZeroU64>,
    /// When a session that is not enlisted ends.
    enlist_by: Instant,
}

/// Whether the session goes on.
type Step = Result<(), Stop>;

#[derive(Clone, Copy)]
enum Stop {
    End(EndReason, u64),
    Bye,
    Broken,
}

impl From<EndReason> for Stop {
    fn from(reason: EndReason) -> Self {
        Self::End(reason, 0)
    }
}

impl Open {
    /// Starts with `success` queued. `first` is a stanza that came as the proof after IK; more may be buffered.
    pub(super) fn start(
        transport: Transport,
        admitted: Admitted,
        first: Option<Bytes>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Session {
        let config = &transport.rules.config;
        let enlist_by = now.at + Duration::from_millis(config.enlist_timeout_ms);
        let mut open = Box::new(Self {
            stanzas: Pace::new(config.stanzas_per_s, config.stanza_burst, now.at),
            bytes: Pace::new(config.bytes_per_s, config.bytes_burst, now.at),
            transport,
            admitted,
            caught_up: false,
            last_heard: now.at,
            unread: false,
            pinged: false,
            record_since: None,
            last_tag_sent: 0,
            last_tag_acked: 0,
            open_requests: BTreeMap::new(),
            open_request_bytes: 0,
            enlisting: None,
            enlist_by,
        });
        if open.admitted.device.is_some() {
            out.push(Output::Enlisted);
        }
        let mut step = Ok(());
        if let Some(record) = first {
            step = open.record(record, now, out);
        }
        let step = step.and_then(|()| open.pull(now, out));
        open.finish(step, out)
    }

    pub(super) fn handle(mut self: Box<Self>, input: Input<'_>, now: Now, out: &mut Vec<Output>) -> Session {
        let step = match input {
            Input::Bytes(bytes) => self.fed(bytes, now, out),
            Input::Deliver(delivery) => self.deliver(delivery),
            Input::Outcome(outcome) => self.outcome(outcome),
            Input::Notify(notification) => self.notify(notification),
            Input::Ping(number) => self.say(FromServer::Ping(number)),
            Input::Answer(id, answer) => self.answer(id, answer, out),
            Input::RoutingEnd(end) => Err(routing_end(end)),
            Input::RoutingLost => Err(self.overloaded()),
            Input::Suspended => Err(EndReason::ProviderSuspended.into()),
            Input::Drain => {
                let wait_ms = self.transport.rules.drain_retry_ms(self.transport.id);
                Err(Stop::End(EndReason::Draining, wait_ms))
            }
            Input::Tick => self.tick(now, out),
            // The count of waiting messages was for `success`; nothing else is due.
            Input::Attached(_) | Input::Verdict(_) => Ok(()),
        };
        self.finish(step, out)
    }

    fn finish(self: Box<Self>, step: Step, out: &mut Vec<Output>) -> Session {
        let (reason, retry_after_ms) = match step {
            Ok(()) => return Session::Open(self),
            Err(Stop::Bye) => return self.transport.leave(),
            Err(Stop::Broken) => return Session::over(super::Why::Broken),
            Err(Stop::End(reason, retry_after_ms)) => (reason, retry_after_ms),
        };
        if matches!(reason, EndReason::DeviceRemoved | EndReason::Withdrawn) {
            out.push(Output::BurnToken(Arc::clone(&self.admitted.user), self.admitted.token));
        }
        self.transport.end(End { reason, retry_after_ms })
    }

    pub(super) fn wants_bytes(&self, now: Now) -> bool {
        self.caught_up && self.pause_until() <= now.at
    }

    pub(super) fn not_reading(&mut self, took: Option<Instant>) {
        self.unread = true;
        // Whoever reads is there.
        self.last_heard = took.map_or(self.last_heard, |took| took.max(self.last_heard));
        self.record_since = None;
    }

    pub(super) fn next_tick(&self, now: Now) -> Instant {
        let config = &self.transport.rules.config;
        let ping = Duration::from_millis(config.ping_interval_ms);
        let silence = if self.pinged { self.silent_until() } else { self.last_heard + ping };
        let record = self.record_since.map(|since| since + Duration::from_millis(config.record_timeout_ms));
        let token = Duration::from_millis(self.token_end_ms().saturating_sub(now.unix_ms)).min(LOOK_AT_THE_CLOCK);
        let pause = Some(self.pause_until()).filter(|until| *until > now.at);
        let enlist = self.must_enlist().then_some(self.enlist_by);
        [record, pause, enlist].into_iter().flatten().fold(silence.min(now.at + token), Instant::min)
    }

    pub(super) fn queued(&self) -> usize {
        self.transport.sender.queued()
    }

    pub(super) fn sender(&mut self) -> &mut Sender {
        &mut self.transport.sender
    }

    pub(super) fn rest(&mut self) {
        self.transport.sender.rest();
        self.transport.receiver.rest();
    }

    fn fed(&mut self, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Step {
        self.bytes.take(u32::try_from(bytes.len()).unwrap_or(u32::MAX), now.at);
        self.transport.receiver.feed(bytes);
        self.caught_up = false;
        self.pull(now, out)
    }

    /// Acts on what has arrived, one record at a time and not faster than the session's pace.
    fn pull(&mut self, now: Now, out: &mut Vec<Output>) -> Step {
        loop {
            if self.pause_until() > now.at {
                return Ok(());
            }
            match self.transport.receiver.next() {
                Ok(Some(Received::Record(record))) => self.record(record, now, out)?,
                Ok(Some(Received::KeepAlive)) => {
                    self.stanzas.take(1, now.at);
                    self.heard(now);
                }
                Ok(None) => break,
                Err(ReceiveError::Record(error)) => {
                    let problem = match error {
                        RecordError::TooLarge { .. } => "record-too-large",
                        RecordError::NotMinimal => "record-length",
                    };
                    return Err(fault(problem, EndReason::BadStanza, out));
                }
                Err(ReceiveError::Decrypt | ReceiveError::Alert(_) | ReceiveError::Exhausted) => {
                    return Err(Stop::Broken);
                }
            }
        }
        self.caught_up = true;
        if !self.transport.receiver.is_partial() {
            self.record_since = None;
        } else if self.record_since.is_none() {
            self.record_since = Some(now.at);
        }
        Ok(())
    }

    fn pause_until(&self) -> Instant {
        self.stanzas.ready_at().max(self.bytes.ready_at())
    }

    fn heard(&mut self, now: Now) {
        self.last_heard = now.at;
        self.unread = false;
        self.pinged = false;
        self.record_since = None;
    }

    fn record(&mut self, record: Bytes, now: Now, out: &mut Vec<Output>) -> Step {
        self.stanzas.take(1, now.at);
        self.heard(now);
        let size = record.len();
        let stanza = decode_client_shared(self.transport.encoding, record);
        match stanza.map_err(|error| fault(error, EndReason::BadStanza, out))? {
            FromClient::Message(submit) => self.submit(submit, out),
            FromClient::Ack(tag) => self.acked(tag, out),
            FromClient::Iq(request) => self.request(request, size, out),
            FromClient::Ping(n) => self.say(FromServer::Pong(n)),
            FromClient::Pong(n) => {
                out.push(Output::Ponged(n));
                Ok(())
            }
            FromClient::UnsolicitedIq => Ok(()),
            FromClient::End(_) => Err(Stop::Bye),
        }
    }

    fn submit(&mut self, submit: Submit, out: &mut Vec<Output>) -> Step {
        if self.admitted.device.is_none() {
            let fate = Fate::Rejected(Rejected::NotAvailable);
            return self.say(FromServer::Ack(Outcome { id: submit.id, to: submit.to, fate }));
        }
        out.push(Output::Submit(Box::new(submit.into())));
        Ok(())
    }

    fn acked(&mut self, tag: u64, out: &mut Vec<Output>) -> Step {
        if tag > self.last_tag_sent && !crate::planted::is("wrong-ack-accepted") {
            return Err(EndReason::BadAck.into());
        }
        if tag > self.last_tag_acked {
            self.last_tag_acked = tag;
            out.push(Output::Processed(tag));
        }
        Ok(())
    }

    fn request(&mut self, request: Request, size: usize, out: &mut Vec<Output>) -> Step {
        let config = &self.transport.rules.config;
        let Request { id, body } = request;
        if self.open_requests.contains_key(&id) {
            return Err(fault("request-id-in-use", EndReason::BadStanza, out));
        }
        if self.open_requests.len() >= config.open_requests {
            return Err(fault("open-requests", EndReason::BadStanza, out));
        }
        if self.open_request_bytes + size > config.open_request_bytes {
            return Err(fault("open-request-bytes", EndReason::RateLimited, out));
        }
        if let Some(code) = self.untimely(&body) {
            return self.say(FromServer::Iq(Response { id, body: ResponseBody::Error(IqError::new(code)) }));
        }
        if matches!(body, RequestBody::Enlist(_)) {
            self.enlisting = Some(id);
        }
        self.open_requests.insert(id, size);
        self.open_request_bytes += size;
        let asker = Asker {
            user: Arc::clone(&self.admitted.user),
            device: self.admitted.device,
            token_expires_ms: self.admitted.token.expires_ms,
        };
        out.push(Output::Request(id, asker, Box::new(body)));
        Ok(())
    }

    /// A session that is not enlisted may only enlist, once at a time; one that is may do everything else.
    fn untimely(&self, body: &RequestBody) -> Option<ErrorCode> {
        let enlisted = self.admitted.device.is_some() || self.enlisting.is_some();
        match body {
            RequestBody::Enlist(_) if enlisted => Some(ErrorCode::AlreadyEnlisted),
            RequestBody::Enlist(_) => None,
            _ if self.admitted.device.is_none() => Some(ErrorCode::NotEnlisted),
            _ => None,
        }
    }

    fn answer(&mut self, id: NonZeroU64, answer: Answer, out: &mut Vec<Output>) -> Step {
        let Some(size) = self.open_requests.remove(&id) else { return Ok(()) };
        self.open_request_bytes -= size;
        if self.enlisting == Some(id) {
            self.enlisting = None;
        }
        let body = match answer {
            Answer::Reply(body) => body,
            Answer::Enlisted(device) => {
                self.enlist(device, out);
                ResponseBody::Enlisted(Enlisted { account: device.account, device: device.id })
            }
            Answer::Refreshed(token) => {
                // Of two that were under way, the one that lasts longer.
                if token.expires_ms > self.admitted.token.expires_ms {
                    self.admitted.token = token;
                }
                ResponseBody::Done
            }
        };
        self.say(FromServer::Iq(Response { id, body }))
    }

    fn enlist(&mut self, device: Device, out: &mut Vec<Output>) {
        out.push(Output::Attach(Box::new(super::entry::attach(&self.admitted, &device))));
        out.push(Output::Enlisted);
        self.admitted.device = Some(device);
    }

    fn deliver(&mut self, delivery: pb::Delivery) -> Step {
        let tag = delivery.tag;
        let record = ServerRecord::delivery(self.transport.encoding, delivery);
        if tag != self.last_tag_sent + 1 {
            return Err(self.nonsense(&format_args!("tag {tag} came after {}", self.last_tag_sent)));
        }
        self.hand_on(record)?;
        self.last_tag_sent = tag;
        Ok(())
    }

    fn outcome(&mut self, outcome: pb::Outcome) -> Step {
        self.hand_on(ServerRecord::outcome(self.transport.encoding, outcome))
    }

    fn hand_on(&mut self, record: Result<ServerRecord, StanzaError>) -> Step {
        let record = record.map_err(|error| self.nonsense(&error))?;
        if self.transport.queue(&record) { Ok(()) } else { Err(self.overloaded()) }
    }

    fn notify(&mut self, notification: pb::Notification) -> Step {
        let notification = Notification::try_from(notification).map_err(|error| self.nonsense(&error))?;
        self.say(FromServer::Notification(notification))
    }

    /// What routing sent is none of the protocol's forms, or a tag is missing before it. To leave it out would be to lose
    /// it silently; ended, the session gets it again from a routing that is mended.
    fn nonsense(&self, problem: &dyn std::fmt::Display) -> Stop {
        tracing::error!(session = %self.transport.id, %problem, "routing sent what is no stanza");
        self.overloaded()
    }

    fn overloaded(&self) -> Stop {
        Stop::End(EndReason::Overloaded, self.transport.rules.overload_retry_ms(self.transport.id))
    }

    fn say(&mut self, stanza: FromServer) -> Step {
        if self.transport.send(stanza) { Ok(()) } else { Err(self.overloaded()) }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) -> Step {
        let config = &self.transport.rules.config;
        let ping = Duration::from_millis(config.ping_interval_ms);
        let record_timeout = Duration::from_millis(config.record_timeout_ms);
        if now.unix_ms >= self.token_end_ms() {
            return Err(EndReason::TokenExpired.into());
        }
        if self.record_since.is_some_and(|since| now.at >= since + record_timeout) {
            return Err(fault("record-unfinished", EndReason::Timeout, out));
        }
        if self.must_enlist() && now.at >= self.enlist_by {
            return Err(fault("not-enlisted", EndReason::Timeout, out));
        }
        if now.at >= self.silent_until() {
            return Err(fault("silence", EndReason::Timeout, out));
        }
        if !self.pinged && now.at >= self.last_heard + ping {
            self.pinged = true;
            self.say(FromServer::Ping(now.unix_ms))?;
        }
        if self.caught_up { Ok(()) } else { self.pull(now, out) }
    }

    /// When a client of which nothing is heard is given up.
    fn silent_until(&self) -> Instant {
        let config = &self.transport.rules.config;
        let unread = if self.unread { config.write_timeout() } else { Duration::ZERO };
        self.last_heard + Duration::from_millis(config.ping_interval_ms) * 2 + unread
    }

    fn must_enlist(&self) -> bool {
        self.admitted.device.is_none() && self.enlisting.is_none()
    }

    fn token_end_ms(&self) -> u64 {
        self.admitted.token.expires_ms.saturating_add(self.transport.rules.config.token_grace_ms)
    }
}

/// The same end, and what the log gets to know of its reason.
fn fault(what: impl Into<Fault>, reason: EndReason, out: &mut Vec<Output>) -> Stop {
    out.push(Output::Fault(what.into()));
    reason.into()
}

fn routing_end(end: pb::End) -> Stop {
    Stop::End(EndReason::try_from(end.reason).unwrap_or(EndReason::Overloaded), end.retry_after_ms)
}
