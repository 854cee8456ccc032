//! Routing as an edge sees it, over its link: consent, limits, device list, live delivery and acknowledgement; or, for
//! somebody who is not there, the mailbox, many messages in a commit.

use anyhow::Context as _;
use bytes::Bytes;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::routing::v1::routing_client::RoutingClient;
use causeway_proto::routing::v1::routing_event::Event;
use causeway_proto::routing::v1::{Attach, EdgeEvent, FromEdge, RoutingEvent, Submitted, ToEdge};
use causeway_proto::wire::v1::Status;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::deployment::{Deployment, People, block_on, submit};

/// Delivers `count` messages, so many at a time.
pub(super) fn delivered(count: u32, together: u32) -> anyhow::Result<()> {
    block_on(async {
        let deployment = Deployment::start(10).await?;
        let mut link = Link::open(&deployment).await?;
        link.attach(People::ADA).await?;
        link.attach(People::BO).await?;
        for first in (0..count).step_by(together as usize) {
            link.submit(first, together).await?;
            let mut tags = Vec::with_capacity(together as usize);
            link.events(together, |event| match event {
                Event::Deliver(delivery) => {
                    tags.push(delivery.tag);
                    true
                }
                _ => false,
            })
            .await?;
            link.send(tags.into_iter().map(|tag| (People::BO, ToRouting::Processed(tag)))).await?;
            link.outcomes(together, Status::Delivered).await?;
        }
        Ok(())
    })
}

/// Stores `count` messages, so many at a time.
pub(super) fn stored(count: u32, together: u32) -> anyhow::Result<()> {
    block_on(async {
        let deployment = Deployment::start(10).await?;
        let mut link = Link::open(&deployment).await?;
        link.attach(People::ADA).await?;
        for first in (0..count).step_by(together as usize) {
            link.submit(first, together).await?;
            link.outcomes(together, Status::Stored).await?;
        }
        Ok(())
    })
}

/// An edge's link.
struct Link {
    outgoing: mpsc::Sender<FromEdge>,
    incoming: Streaming<ToEdge>,
}

impl Link {
    async fn open(deployment: &Deployment) -> anyhow::Result<Self> {
        let (outgoing, stream) = mpsc::channel(64);
        let linked = RoutingClient::new(deployment.routing.clone()).link(ReceiverStream::new(stream)).await?;
        let mut incoming = linked.into_inner();
        let first = incoming.message().await?.context("the link has ended")?;
        anyhow::ensure!(first.hello.is_some(), "it begins with who answers");
        Ok(Self { outgoing, incoming })
    }

    async fn attach(&mut self, person: People) -> anyhow::Result<()> {
        let attach = Attach {
            account_id: Bytes::copy_from_slice(person.account().as_bytes()),
            device_id: 1,
            registration_id: person.registration(),
            address: person.address()?.as_str().to_owned(),
            provider_domain: person.provider().to_owned(),
            ..Attach::default()
        };
        self.send([(person, ToRouting::Attach(attach))]).await?;
        self.events(1, |event| matches!(event, Event::Attached(_))).await
    }

    /// Ada writes to Bo.
    async fn submit(&mut self, first: u32, together: u32) -> anyhow::Result<()> {
        let message = |number| anyhow::Ok(submit(number, People::BO)?.into());
        let messages: Vec<_> = (first..first + together).map(message).collect::<Result<_, _>>()?;
        let submitted = |message| {
            let submitted = Submitted { message: Some(message), generation: 1, ..Submitted::default() };
            (People::ADA, ToRouting::Submit(submitted))
        };
        self.send(messages.into_iter().map(submitted)).await
    }

    async fn send(&self, events: impl IntoIterator<Item = (People, ToRouting)>) -> anyhow::Result<()> {
        let event = |(from, event): (People, ToRouting)| EdgeEvent { session_id: session(from), event: Some(event) };
        let batch = FromEdge { events: events.into_iter().map(event).collect() };
        self.outgoing.send(batch).await.context("the link has ended")
    }

    async fn outcomes(&mut self, count: u32, status: Status) -> anyhow::Result<()> {
        self.events(count, |event| matches!(event, Event::Outcome(outcome) if outcome.status() == status)).await
    }

    /// So many events come next, and all of them are `wanted`.
    async fn events(&mut self, count: u32, mut wanted: impl FnMut(Event) -> bool) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let batch = self.incoming.message().await?.context("the link has ended")?;
            for RoutingEvent { event, .. } in batch.events {
                let event = event.context("an event")?;
                anyhow::ensure!(left > 0 && wanted(event), "something else came");
                left -= 1;
            }
        }
        Ok(())
    }
}

fn session(person: People) -> Bytes {
    Bytes::copy_from_slice(&[person.account().as_bytes()[0]; 16])
}
