//! Every process is restarted, one after the other, under load.

use std::time::Duration;

use causeway_client::{DisconnectReason, EndReason, MessageId};
use causeway_tests::{Device, Replica, Shape, World, within};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Pairs of users who talk all the time.
const PAIRS: usize = 4;
/// One message of each pair in this time.
const PACE: Duration = Duration::from_millis(40);
/// Messages of a pair without an outcome.
const UNDER_WAY: usize = 8;
/// Messages of each pair that must have arrived before the next process is stopped.
const BETWEEN: usize = 5;

/// Lets processes go with less of a wait than in earnest.
pub(crate) const SETTINGS: &[(&str, &str)] = &[("edge.drain_window_ms", "1000")];

#[tokio::test]
async fn a_rolling_restart_of_every_process_is_invisible_but_for_reconnects() -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::Replicas, SETTINGS).await?;
    let mut load = Load::start(&world).await?;
    for replica in world.net.replicas() {
        load.restart(&mut world, replica).await?;
    }
    load.finish().await?;
    world.net.assert_alive()
}

/// Users who talk all the time.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    talks: JoinSet<anyhow::Result<Vec<DisconnectReason>>>,
    arrived: Vec<watch::Receiver<usize>>,
}

impl Load {
    pub(crate) async fn start(world: &World) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (mut talks, mut arrived) = (JoinSet::new(), Vec::new());
        for pair in 0..PAIRS {
            let sender = world.at_birdy(&format!("ada{pair}")).await?;
            let receiver = world.at_home(&format!("bo{pair}")).await?;
            let (count, counted) = watch::channel(0);
            arrived.push(counted);
            talks.spawn(talk(sender, receiver, count, stopped.clone()));
        }
        Ok(Self { stop, talks, arrived })
    }

    /// Stops a process and starts it again, once messages of everybody arrive.
    pub(crate) async fn restart(&mut self, world: &mut World, replica: Replica) -> anyhow::Result<()> {
        for counted in &mut self.arrived {
            let enough = *counted.borrow() + BETWEEN;
            let flows = async { Ok(*counted.wait_for(|count| *count >= enough).await?) };
            if let Err(error) = within("messages flow", flows).await {
                // What a pair has to say is the better reason.
                if let Some(ended) = self.talks.try_join_next() {
                    ended??;
                }
                return Err(error);
            }
        }
        let status = world.net.terminate_one(replica).await?;
        anyhow::ensure!(status.success(), "{replica}: {status}");
        world.net.restart().await
    }

    /// Sees that all has arrived, once and in order, and that sessions were lost to processes that drain alone.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        while let Some(talk) = self.talks.join_next().await {
            for loss in talk?? {
                assert_eq!(loss, DisconnectReason::Server(EndReason::Draining));
            }
        }
        Ok(())
    }
}

/// Sends at a steady pace until it is told to stop, and sees that all of it arrives once and in order. Gives the reasons why
/// sessions were lost.
async fn talk(
    sender: Device,
    mut receiver: Device,
    count: watch::Sender<usize>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<Vec<DisconnectReason>> {
    let to = receiver.address().clone();
    let sending = tokio::spawn(async move {
        let mut under_way = std::collections::VecDeque::<MessageId>::new();
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0.. {
            tokio::select! {
                _ = pace.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
            under_way.push_back(sender.queue(&to, &n.to_string()).await?);
            if under_way.len() > UNDER_WAY
                && let Some(oldest) = under_way.pop_front()
            {
                anyhow::ensure!(sender.outcome(oldest).await?.is_accepted());
            }
        }
        for id in under_way {
            anyhow::ensure!(sender.outcome(id).await?.is_accepted());
        }
        anyhow::ensure!(sender.send(&to, "end").await?.is_accepted());
        Ok(sender)
    });
    let mut losses = Vec::new();
    for n in 0.. {
        let text = receiver.next_text_and_losses(&mut losses).await?;
        if text == "end" {
            break;
        }
        anyhow::ensure!(text == n.to_string(), "{text} instead of {n}");
        count.send_replace(n + 1);
    }
    let mut sender = sending.await??;
    anyhow::ensure!(receiver.send(sender.address(), "end").await?.is_accepted());
    let text = sender.next_text_and_losses(&mut losses).await?;
    anyhow::ensure!(text == "end", "{text} instead of the end");
    Ok(losses)
}
