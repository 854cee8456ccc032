//! What is going on, on the error output: one line that changes on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::measure::clock::{self, MS, SECOND};

/// How often the line changes on a terminal, and elsewhere.
const PAUSES: [u64; 2] = [250 * MS, 5 * SECOND];

/// Shows what is going on; the next call replaces it.
pub(crate) fn line(text: &str) {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let mut error = std::io::stderr();
    let terminal = error.is_terminal();
    let (now, told) = (clock::now(), TOLD.load(Ordering::Relaxed));
    if now < told + PAUSES[usize::from(!terminal)] {
        return;
    }
    TOLD.store(now, Ordering::Relaxed);
    let _closed =
        if terminal { write!(error, "\r\x1b[K{text}").and_then(|()| error.flush()) } else { writeln!(error, "{text}") };
}

/// Takes the line away.
pub(crate) fn clear() {
    let mut error = std::io::stderr();
    if error.is_terminal() {
        let _closed = write!(error, "\r\x1b[K").and_then(|()| error.flush());
    }
}

/// Shows a step that stays.
pub(crate) fn step(text: &str) {
    clear();
    let _closed = writeln!(std::io::stderr(), "{text}");
}
