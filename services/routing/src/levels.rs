//! What is looked at when somebody asks for metrics: how much waits, and where.

use std::sync::{Arc, Weak};

use crate::mailbox::Depth;
use crate::recipient::actor::Shared;
use crate::rpc::link::LinksInner;
use crate::sweep::Seen;

/// Tells from now on, as long as the routing is there.
pub(crate) fn observe(shared: &Arc<Shared>, links: &Arc<LinksInner>, seen: &Arc<Seen>) {
    let metrics = &shared.metrics;
    let of = |read: fn(&Shared) -> f64| {
        let shared = Arc::downgrade(shared);
        move || shared.upgrade().map(|shared| read(&shared))
    };
    metrics.observe(
        "causeway.routing.lease.out",
        "s",
        "For so long the store has not let this replica decide",
        of(|shared| shared.lease.out_for().as_secs_f64()),
    );
    metrics.observe(
        "causeway.routing.mailbox.queue",
        "{operation}",
        "Operations that wait to be written",
        of(|shared| number(shared.mailbox.queued())),
    );
    metrics.observe(
        "causeway.routing.push.queue",
        "{device}",
        "Devices that are to be woken, or have just been",
        of(|shared| number(shared.pusher.queued())),
    );
    metrics.observe(
        "causeway.routing.messages.under_way",
        "{message}",
        "Messages that were accepted and are not settled yet",
        of(|shared| whole(shared.trails.under_way())),
    );
    metrics.observe(
        "causeway.routing.messages.unaccounted",
        "{message}",
        "Messages that were accepted and have neither reached an end nor the mailbox within a minute",
        of(|shared| whole(shared.trails.unaccounted())),
    );
    let memory = |read: fn(&LinksInner) -> usize| {
        let links = Arc::downgrade(links);
        move || links.upgrade().map(|links| number(read(&links)))
    };
    let (used, limit) = (memory(|links| links.memory.held()), memory(|links| links.memory.limit()));
    metrics.observe("causeway.routing.memory", "By", "Messages in memory", used);
    metrics.observe("causeway.routing.memory.limit", "By", "Bound of these", limit);
    let depth = |read: fn(&Shared, Depth) -> f64| {
        let (shared, seen) = (Arc::downgrade(shared), Arc::downgrade(seen));
        move || Some(read(&*Weak::upgrade(&shared)?, Weak::upgrade(&seen)?.get()?))
    };
    metrics.observe(
        "causeway.routing.mailbox.messages",
        "{message}",
        "Copies that wait in the mailbox, of all replicas",
        depth(|_, depth| whole(depth.waiting.messages)),
    );
    metrics.observe(
        "causeway.routing.mailbox.size",
        "By",
        "Their ciphertext",
        depth(|_, depth| whole(depth.waiting.bytes)),
    );
    metrics.observe(
        "causeway.routing.mailbox.oldest.age",
        "s",
        "Age of the oldest of them",
        depth(|shared, depth| {
            let age_ms = depth.oldest_ms.map_or(0, |oldest| shared.clock.now_ms().saturating_sub(oldest));
            whole(age_ms) / 1_000.0
        }),
    );
}

fn number(count: usize) -> f64 {
    whole(count as u64)
}

#[expect(clippy::cast_precision_loss, reason = "nobody looks so closely at so much")]
const fn whole(count: u64) -> f64 {
    count as f64
}
