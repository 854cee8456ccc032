//! One clock for everything in this process: nanoseconds since it was first read.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// A millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// Nanoseconds since the first call.
#[expect(clippy::disallowed_methods, reason = "real time is what is measured, outside of any runtime")]
pub(crate) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    // 584 years.
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Blocks this thread until then.
pub(crate) fn sleep_until(at: u64) {
    let now = now();
    if at > now {
        std::thread::sleep(Duration::from_nanos(at - now));
    }
}
