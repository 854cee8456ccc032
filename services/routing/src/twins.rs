//! Two routings that are told to be the same one. Nothing is lost by it, since the store knows replicas by their ids
//! (docs/replicas.md); but who is asked at the URL to release a mailbox may be the other one, so that messages wait for leases
//! to end.

use std::time::Duration;

use causeway_runtime::health::{Health, Part};
use tokio_util::sync::CancellationToken;

use crate::mailbox::{Mailbox, ReplicaId};
use crate::replica::Lease;

/// Who has died is gone after one lease: who is there this many leases later lives.
const LEASES: u32 = 4;
const PART: &str = "routing.advertise_url";

/// Looks, until `stop`, whether another replica that lives says the same URL as this one.
pub(crate) async fn watch(
    lease: &Lease,
    mailbox: &dyn Mailbox,
    url: &str,
    lasts: Duration,
    health: &Health,
    stop: CancellationToken,
) {
    let mut before: Vec<ReplicaId> = Vec::new();
    while stop.run_until_cancelled(tokio::time::sleep(lasts * LEASES)).await.is_some() {
        let Ok(Ok(all)) = tokio::time::timeout(lasts, mailbox.replicas()).await else { continue };
        let own = lease.id();
        let others = all.iter().filter(|replica| replica.url == url && replica.id != own).map(|replica| replica.id);
        let others: Vec<ReplicaId> = others.collect();
        match others.iter().find(|id| before.contains(id)) {
            Some(twin) => {
                let meaning = format!(
                    "replicas {own} and {twin} both run with routing.advertise_url {url}: give each its own, and its own routing.name"
                );
                health.report(PART, Part::Degraded(meaning));
            }
            None if health.parts().contains_key(PART) => health.report(PART, Part::Up),
            None => {}
        }
        before = others;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use causeway_runtime::clock::ManualClock;

    use super::*;
    use crate::config::RoutingConfig;
    use crate::mailbox::Replica;
    use crate::mailbox::memory::MemoryMailbox;

    const LASTS: Duration = Duration::from_millis(2_000);

    #[tokio::test(start_paused = true)]
    async fn a_twin_is_noticed_and_one_that_has_died_is_none() {
        let clock = ManualClock::at_ms(1_000_000);
        let mailbox = MemoryMailbox::new(&RoutingConfig::default(), clock.clone(), 1);
        let lease = Lease::of_many(clock.clone());
        let (health, stop) = (Health::default(), CancellationToken::new());
        let watching = {
            let (mailbox, lease, health, stop) = (mailbox.clone(), Arc::clone(&lease), health.clone(), stop.clone());
            tokio::spawn(async move { watch(&lease, &mailbox, "http://a", LASTS, &health, stop).await })
        };
        let renew = |id, url: &str| mailbox.renew(&Replica { id, url: url.to_owned() }, LASTS);
        let [dead, other, twin] = [1, 2, 3].map(|byte| ReplicaId::from_bytes([byte; 16]));
        let looks = |count| tokio::time::sleep(LASTS * LEASES * count + Duration::from_millis(1));

        // The store's time stands still but where it is moved on: leases hold, and then are over.
        renew(dead, "http://a").await.unwrap();
        looks(1).await;
        clock.advance(LASTS);
        renew(other, "http://b").await.unwrap();
        looks(2).await;
        assert_eq!(health.parts().get(PART), None);

        renew(twin, "http://a").await.unwrap();
        looks(2).await;
        let parts = health.parts();
        let Some(Part::Degraded(meaning)) = parts.get(PART) else { panic!("{parts:?}") };
        assert!([lease.id(), twin].iter().all(|id| meaning.contains(&id.to_string())), "{meaning}");

        clock.advance(LASTS);
        looks(1).await;
        assert_eq!(health.parts().get(PART), Some(&Part::Up));
        stop.cancel();
        watching.await.unwrap();
    }
}
