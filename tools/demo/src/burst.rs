//! The server is killed in the middle of a burst. What was acknowledged must arrive, and everything once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use causeway_client::{Content, MessageId};
use tokio::time::{Instant, timeout};

use crate::conversation::People;
use crate::device::Device;
use crate::story::{Story, seconds};
use crate::world::World;

const MESSAGES: usize = 300;
const ACKNOWLEDGED_BEFORE_THE_KILL: usize = 100;
const WAIT: Duration = Duration::from_secs(90);
/// Whoever runs the story on a deployment reads this line, and kills a routing.
const KILL_NOW: &str = "kill one of the routings now";
/// A line about how far it is, this often.
const PROGRESS: Duration = Duration::from_secs(1);

pub(crate) async fn survive_a_kill(people: &People, world: &mut World, story: &mut Story) -> anyhow::Result<()> {
    let what =
        if world.is_own() { "the server is killed (SIGKILL) in the middle" } else { "a routing is killed meanwhile" };
    story.step(&format!("Ada sends {MESSAGES} messages at once; {what}"));
    let mut sent: Vec<MessageId> = Vec::with_capacity(MESSAGES);
    let began = Instant::now();
    for number in 0..MESSAGES {
        let content = Content::text(format!("burst {number}"));
        sent.push(people.ada_phone.client.send(&people.bo, content).await?);
    }
    for id in &sent[..ACKNOWLEDGED_BEFORE_THE_KILL] {
        people.ada_phone.outcome(*id).await?;
    }
    if world.is_own() {
        world.kill_causeway().await?;
    } else {
        story.tell(KILL_NOW);
    }
    let mut acknowledged = HashSet::new();
    for id in &sent {
        if people.ada_phone.client.outcome(*id).await?.is_some() {
            acknowledged.insert(*id);
        }
    }
    let restarted = Instant::now();
    if world.is_own() {
        story.tell(&format!(
            "killed after {}: {} acknowledged until then",
            seconds(began.elapsed()),
            acknowledged.len()
        ));
        ensure!(acknowledged.len() < MESSAGES, "everything was acknowledged before the kill: there was no middle");
        world.restart_causeway().await?;
        story.tell(&format!("started again and ready in {}", seconds(restarted.elapsed())));
    }
    let mut told = restarted;
    for (number, id) in sent.iter().enumerate() {
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            story.tell(&format!("... {number} of {MESSAGES} acknowledged"));
        }
        let outcome = timeout(WAIT, people.ada_phone.client.wait_outcome(*id))
            .await
            .map_err(|_| anyhow!("a message of the burst got no answer within {} s", WAIT.as_secs()))??;
        ensure!(outcome.result.is_accepted(), "a message of the burst: {:?}", outcome.result);
    }
    story.tell(&format!(
        "clients came back by themselves; all {MESSAGES} acknowledged {} after {}",
        seconds(restarted.elapsed()),
        if world.is_own() { "the start" } else { "the kill" }
    ));
    for device in [&people.bo_phone, &people.bo_tablet] {
        arrived_once(device, &sent, &acknowledged).await?;
        story.tell(&format!(
            "{}: {MESSAGES} of {MESSAGES}, each once, in order; none of the acknowledged is missing",
            device.name
        ));
    }
    Ok(())
}

async fn arrived_once(device: &Device, sent: &[MessageId], acknowledged: &HashSet<MessageId>) -> anyhow::Result<()> {
    let mut times: HashMap<MessageId, usize> = HashMap::new();
    let mut order = Vec::with_capacity(sent.len());
    while order.len() < sent.len() {
        let message = device.next().await.with_context(|| {
            let missing = acknowledged.iter().filter(|id| !times.contains_key(*id)).count();
            format!("{} of the acknowledged messages are missing", missing)
        })?;
        *times.entry(message.id).or_default() += 1;
        order.push(message.id);
    }
    ensure!(times.values().all(|count| *count == 1), "{} got a message twice", device.name);
    if let Some(place) = order.iter().zip(sent).position(|(arrived, sent)| arrived != sent) {
        let number = |id: MessageId| sent.iter().position(|sent| *sent == id);
        let around: Vec<_> = order.iter().skip(place).take(3).map(|id| number(*id)).collect();
        bail!("{} got the messages in another order: at place {place} came {around:?}", device.name);
    }
    ensure!(device.unread() == 0, "{} got more than was sent", device.name);
    Ok(())
}
