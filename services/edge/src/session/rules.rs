//! What all sessions of an edge are held to.

use std::time::Duration;

use causeway_identity::SessionId;
use causeway_noise::{Alert, Limits};

use crate::config::EdgeConfig;
use crate::keys::Keys;

/// Largest record to a client: a largest stanza, written in the longer of the two encodings by its recipient's choice.
const MAX_SENT_RECORD: usize = 512 * 1024;
/// More than this behind a write means that the session's own answers pile up.
const MAX_SENT_QUEUE: usize = 2 * 1024 * 1024;

/// Settings and keys that all sessions share.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) config: EdgeConfig,
    pub(crate) keys: Keys,
}

impl Rules {
    pub(super) fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// From one to two times the setting, spread by the session's random id.
    pub(super) fn overload_retry_ms(&self, id: SessionId) -> u64 {
        let base = self.config.overload_retry_ms;
        base + spread(base, id)
    }

    /// Anywhere in the drain's window, spread by the session's random id.
    pub(super) fn drain_retry_ms(&self, id: SessionId) -> u64 {
        spread(self.config.drain_window_ms, id)
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            receive_record: self.config.max_stanza_bytes as usize,
            send_record: MAX_SENT_RECORD,
            send_queue: MAX_SENT_QUEUE,
        }
    }
}

/// A share of `window` that is different for each session.
fn spread(window: u64, id: SessionId) -> u64 {
    let [first, second, ..] = *id.as_bytes();
    window.saturating_mul(u64::from(u16::from_be_bytes([first, second]))) >> 16
}

pub(super) fn overloaded(retry_ms: u64) -> Alert {
    Alert::Overloaded { retry_after_s: u16::try_from(retry_ms.div_ceil(1_000)).unwrap_or(u16::MAX) }
}
