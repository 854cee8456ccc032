//! Messages in the wrong order, on purpose: see [`crate::planted`].

use super::machine::Output;

/// With `order-broken`: once in a thousand deliveries, two that follow each other from one sender change places.
#[cfg(feature = "planted-bugs")]
pub(super) fn out_of_order<R>(mut outputs: Vec<Output<R>>) -> Vec<Output<R>> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SINCE: AtomicU32 = AtomicU32::new(0);
    if !crate::planted::is("order-broken") {
        return outputs;
    }
    for at in 1..outputs.len() {
        let since = SINCE.fetch_add(1, Ordering::Relaxed);
        let (before, after) = outputs.split_at_mut(at);
        if let (
            Some(Output::Deliver { session: one, envelope: first, .. }),
            Some(Output::Deliver { session: other, envelope: second, .. }),
        ) = (before.last_mut(), after.first_mut())
        {
            let (from, also) = (first.header.key, second.header.key);
            if since >= 1_000 && one == other && (from.account, from.device) == (also.account, also.device) {
                SINCE.store(0, Ordering::Relaxed);
                std::mem::swap(first, second);
            }
        }
    }
    outputs
}

/// In order.
#[cfg(not(feature = "planted-bugs"))]
pub(super) const fn out_of_order<R>(outputs: Vec<Output<R>>) -> Vec<Output<R>> {
    outputs
}
