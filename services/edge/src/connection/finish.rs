//! The end of a connection, whatever its reason: detached from routing, counted, last words written, closed.

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
    pub(super) async fn finish(mut self, left: Left) {
        self.count(left);
        // Requests that are under way are given up with the session.
        self.effects.requests.clear();
        self.effects.waiting.clear();
        self.effects.login = None;
        // From here on routing knows the session no more, however long the client takes.
        self.effects.routes = None;
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
        let Shared { metrics, report, .. } = &*self.effects.shared;
        let (counted, whose) = (&mut self.effects.counted, self.effects.whose);
        let end = match left {
            Left::Session(Why::Ended(reason)) => reason.as_str(),
            Left::Session(Why::Bye) => EndReason::Bye.as_str(),
            Left::Session(Why::Broken) => "broken",
            Left::Stalled => "stalled",
            Left::Gone | Left::Session(Why::Refused(_) | Why::Failed(_) | Why::Silent) => "gone",
        };
        counted.end = Some(end);
        if counted.logged_in {
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
