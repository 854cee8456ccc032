//! Both directions of a session after its handshake, and its last words.

use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::SessionId;
use causeway_noise::{Receiver, Sender};
use causeway_stanza::{Encoding, End, Enlisted, FailureReason, FromServer, ServerRecord, Success};

use super::open::Open;
use super::{Ended, Now, Output, Rules, Session, Why};
use crate::login::Admitted;

/// Both directions after the handshake, and how stanzas are written.
pub(super) struct Transport {
    pub(super) rules: Arc<Rules>,
    pub(super) id: SessionId,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) encoding: Encoding,
}

impl Transport {
    pub(super) fn fail(mut self, reason: FailureReason) -> Session {
        let _fits = self.send(FromServer::Failure(reason));
        Session::Ended(Box::new(Ended { why: Why::Failed(reason), sender: Some(self.sender) }))
    }

    pub(super) fn end(mut self, end: End) -> Session {
        let _fits = self.send(FromServer::End(end));
        Session::Ended(Box::new(Ended { why: Why::Ended(end.reason), sender: Some(self.sender) }))
    }

    pub(super) fn leave(self) -> Session {
        Session::Ended(Box::new(Ended { why: Why::Bye, sender: Some(self.sender) }))
    }

    pub(super) fn succeed(
        mut self,
        admitted: Admitted,
        waiting: u64,
        first: Option<Bytes>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Session {
        let enlisted = admitted.device.map(|device| Enlisted { account: device.account, device: device.id });
        let success = Success {
            session: self.id,
            address: admitted.user.address.clone(),
            enlisted,
            device_count: admitted.device_count,
            prekeys_low: admitted.prekeys_low,
            waiting,
        };
        let _fits = self.send(FromServer::Success(success));
        out.push(Output::LoggedIn);
        Open::start(self, admitted, first, now, out)
    }

    /// Queues a stanza; false if it does not fit, which ends a session.
    pub(super) fn send(&mut self, stanza: FromServer) -> bool {
        self.queue(&ServerRecord::new(self.encoding, stanza))
    }

    /// As [`Transport::send`].
    pub(super) fn queue(&mut self, record: &ServerRecord) -> bool {
        self.sender.queue_with(record.len(), |room| record.write(room)).is_ok()
    }
}
