//! What is going on, on the error output: one line that changes on a terminal, few lines elsewhere.

use std::io::{IsTerminal as _, Write as _};

/// Shows what is going on; the next call replaces it.
pub(crate) fn line(text: &str) {
    let mut error = std::io::stderr();
    if error.is_terminal() {
        let _closed = write!(error, "\r\x1b[K{text}").and_then(|()| error.flush());
    }
}

/// Takes the line away.
pub(crate) fn clear() {
    line("");
}

/// Shows a step that stays.
pub(crate) fn step(text: &str) {
    clear();
    let _closed = writeln!(std::io::stderr(), "{text}");
}
