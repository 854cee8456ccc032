//! The end of a connection, whatever its reason: detached from routing, counted, last words written, closed.

use std::sync::Arc;
use std::time::Duration;

use causeway_stanza::EndReason;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Left, Shared};
use crate::metrics::Dropped;
use crate::session::Why;

/// The last words must leave within this time.
const LAST_WRITE: Duration = Duration::from_secs(5);
/// A client has so long to close its side.
const LINGER: Duration = Duration::from_millis(500);

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection<T> {
    pub(super) async fn finish(mut self: Box<Self>, left: Left) {
        self.count(left);
        self.effects.leave();
        let socket = &mut self.socket;
        let session = &mut self.session;
        match left {
            Left::Session(Why::Refused(_) | Why::Failed(_) | Why::Ended(_) | Why::Bye) => {}
            Left::Session(Why::Silent | Why::Broken) | Left::Gone | Left::Stalled => return,
        }
        if let Some(session) = session {
            session.seal_into(socket.wire(tokio::time::Instant::now()));
        }
        if let Ok(Ok(())) = tokio::time::timeout(LAST_WRITE, socket.flush()).await {
            let _late = tokio::time::timeout(LINGER, socket.close()).await;
        }
    }

    fn count(&mut self, left: Left) {
        let shared = Arc::clone(&self.effects.shared);
        let Shared { metrics, report, .. } = &*shared;
        let whose = self.effects.whose;
        let end = match left {
            Left::Session(Why::Ended(reason)) => reason.as_str(),
            Left::Session(Why::Bye) => EndReason::Bye.as_str(),
            Left::Session(Why::Broken) => "broken",
            Left::Stalled => "stalled",
            Left::Gone | Left::Session(Why::Refused(_) | Why::Failed(_) | Why::Silent) => "gone",
        };
        self.effects.end = Some(end);
        if self.effects.is_logged_in() {
            report.session_ended(self.effects.id, end, whose, self.effects.fault.as_ref());
            return;
        }
        match left {
            Left::Session(Why::Refused(alert)) => {
                metrics.alert_sent(alert.encode()[2]);
                report.alert_sent(alert);
            }
            Left::Session(Why::Failed(reason)) => {
                metrics.login_failed(reason.as_str());
                report.login_failed(reason, whose);
            }
            Left::Session(Why::Silent) | Left::Stalled => metrics.dropped(Dropped::Deadline),
            Left::Session(Why::Ended(_) | Why::Bye | Why::Broken) | Left::Gone => metrics.dropped(Dropped::Gone),
        }
    }
}
