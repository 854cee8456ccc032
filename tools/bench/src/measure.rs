//! What is measured, and how: time, processors, memory, latencies, arrivals.

pub(crate) mod clock;
pub(crate) mod memory;
pub(crate) mod processor;
pub(crate) mod schedule;
pub(crate) mod tally;
pub(crate) mod window;
