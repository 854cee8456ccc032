//! A message on its whole way in one process: from a client through edge and routing to another, and what became of it
//! back. What the two clients do for it counts, too; it does not change.

use anyhow::Context as _;
use bytes::BytesMut;
use causeway_noise::{Limits, Received, Session, Suite, client};
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{Encoding, Fate, FromClient, FromServer, decode_server, encode_client};
use prost::Message as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use crate::deployment::{Deployment, People, block_on, connect, submit};

/// Sends `count` messages, so many at a time.
pub(super) fn exchange(count: u32, together: u32) -> anyhow::Result<()> {
    block_on(async {
        let deployment = Deployment::start(10).await?;
        let edge = deployment.edge().await?;
        let mut ada = Client::log_in(&edge, People::ADA).await?;
        let mut bo = Client::log_in(&edge, People::BO).await?;
        for first in (0..count).step_by(together as usize) {
            for number in first..first + together {
                ada.queue(FromClient::Message(submit(number, People::BO)?))?;
            }
            ada.flush().await?;
            for _ in 0..together {
                match bo.next().await? {
                    FromServer::Message(delivery) => bo.queue(FromClient::Ack(delivery.tag))?,
                    other => anyhow::bail!("no delivery: {}", other.name()),
                }
            }
            bo.flush().await?;
            for _ in 0..together {
                match ada.next().await? {
                    FromServer::Ack(outcome) => {
                        anyhow::ensure!(outcome.fate == Fate::Delivered, "not delivered: {:?}", outcome.fate);
                    }
                    other => anyhow::bail!("no outcome: {}", other.name()),
                }
            }
        }
        Ok(())
    })
}

/// A client that has logged in.
pub(super) struct Client {
    io: DuplexStream,
    session: Session,
    buffer: BytesMut,
}

impl Client {
    pub(super) async fn log_in(edge: &mpsc::Sender<DuplexStream>, person: People) -> anyhow::Result<Self> {
        let mut io = connect(edge).await?;
        let hello = pb::ClientHello {
            token: person.token()?,
            device_id: 1,
            encoding: pb::Encoding::Binary.into(),
            agent: "costs/1".to_owned(),
            forwarded: None,
        };
        let (key, mut rng) = (person.noise_key(), StdRng::seed_from_u64(2));
        let (mut out, mut buffer) = (BytesMut::new(), BytesMut::with_capacity(64 * 1024));
        let mut waiting = client::xx(&key, Suite::AesGcm, Limits::client(), &mut rng, &mut out)?;
        io.write_all_buf(&mut out).await?;
        let session = loop {
            anyhow::ensure!(io.read_buf(&mut buffer).await? > 0, "the edge has closed");
            waiting = match waiting.feed(&buffer.split()) {
                client::Step::Waiting(waiting) => waiting,
                client::Step::Answered(answer) => break answer.finish(&hello.encode_to_vec(), &mut out)?,
                client::Step::Failed(error) => return Err(error).context("the handshake"),
            };
        };
        io.write_all_buf(&mut out).await?;
        let mut this = Self { io, session, buffer };
        match this.next().await? {
            FromServer::Success(_) => Ok(this),
            other => anyhow::bail!("refused: {other:?}"),
        }
    }

    fn queue(&mut self, stanza: FromClient) -> anyhow::Result<()> {
        Ok(self.session.sender.queue(&encode_client(Encoding::Binary, stanza))?)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.session.sender.seal()?;
        Ok(self.io.write_all_buf(self.session.sender.sealed()).await?)
    }

    async fn next(&mut self) -> anyhow::Result<FromServer> {
        loop {
            match self.session.receiver.next()? {
                Some(Received::Record(record)) => return Ok(decode_server(Encoding::Binary, &record)?),
                Some(Received::KeepAlive) => {}
                None => {
                    self.buffer.clear();
                    anyhow::ensure!(self.io.read_buf(&mut self.buffer).await? > 0, "the edge has closed");
                    self.session.receiver.feed(&self.buffer);
                }
            }
        }
    }
}
