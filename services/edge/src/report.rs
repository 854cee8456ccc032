//! What the log says about clients that are refused or cut off: internal ids and reasons, never who they are or where they
//! come from. All of it passes a gate, so that a flood of clients does not fill a disk; the metrics count everything.

use causeway_identity::{AccountId, DeviceId, ProviderId, SessionId};
use causeway_noise::Alert;
use causeway_stanza::{EndReason, FailureReason, StanzaError};
use tokio_util::sync::CancellationToken;

use crate::log_gate::LogGate;

/// Writes the lines.
#[derive(Debug, Default)]
pub(crate) struct Report {
    gate: LogGate,
}

/// Whose connection it is, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Whose {
    pub(crate) provider: Option<ProviderId>,
    pub(crate) account: Option<AccountId>,
    pub(crate) device: Option<DeviceId>,
}

/// What was wrong, in names of the protocol only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    problem: &'static str,
    /// Of what was sent, where; empty for all of it.
    path: String,
}

impl From<&'static str> for Fault {
    fn from(problem: &'static str) -> Self {
        Self { problem, path: String::new() }
    }
}

impl From<StanzaError> for Fault {
    fn from(error: StanzaError) -> Self {
        Self { problem: error.problem().as_str(), path: error.path().to_owned() }
    }
}

impl Report {
    /// Writes how many lines were left out, until `stop`.
    pub(crate) async fn count(&self, stop: CancellationToken) {
        let tell = |left_out| tracing::info!(left_out, "too many lines about clients in a second; some are left out");
        self.gate.count(stop, tell).await;
    }

    /// A connection was refused before anything was known about it.
    pub(crate) fn alert_sent(&self, alert: Alert) {
        if self.gate.admits() {
            tracing::info!(code = alert.encode()[2], "sent an alert");
        }
    }

    pub(crate) fn login_failed(&self, reason: FailureReason, whose: Whose) {
        if self.gate.admits() {
            tracing::info!(reason = reason.as_str(), provider = whose.provider.map(display), "a login failed");
        }
    }

    /// `reason` is the wire name of the end reason, or a metric's. Says nothing of ends that are nobody's fault.
    pub(crate) fn session_ended(&self, session: SessionId, reason: &'static str, whose: Whose, fault: Option<&Fault>) {
        if is_in_order(reason) || !self.gate.admits() {
            return;
        }
        tracing::info!(
            %session,
            reason,
            provider = whose.provider.map(display),
            account = whose.account.map(display),
            device = whose.device.map(display),
            problem = fault.map(|fault| fault.problem),
            path = fault.map(|fault| fault.path.as_str()).filter(|path| !path.is_empty()),
            "a session was ended"
        );
    }
}

/// The client left, or was asked to by its user or by the operator.
fn is_in_order(reason: &str) -> bool {
    let in_order = [EndReason::Bye, EndReason::Draining, EndReason::DeviceRemoved, EndReason::Withdrawn];
    reason == "gone" || in_order.iter().any(|end| end.as_str() == reason)
}
