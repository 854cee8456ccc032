//! Noise: a record of 400 bytes is sealed by one side and opened by the other, in turns.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use causeway_noise::server::{Handshake, Reading};
use causeway_noise::{Limits, Received, Session, StaticKey, Suite, client};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Passes `count` records, so many at a time.
pub(super) fn pass(count: u32, together: u32) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = established()?;
    let record = [7; 400];
    for turn in 0..count / together {
        let (from, to) = if turn % 2 == 0 { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
        for _ in 0..together {
            from.sender.queue(black_box(&record))?;
        }
        from.sender.seal()?;
        to.receiver.feed(&from.sender.sealed().split());
        for _ in 0..together {
            match to.receiver.next()? {
                Some(Received::Record(record)) => drop(black_box(record)),
                other => bail!("no record: {other:?}"),
            }
        }
    }
    Ok(())
}

/// Both ends of a session.
fn established() -> anyhow::Result<(Session, Session)> {
    let mut rng = StdRng::seed_from_u64(1);
    let key = Arc::new(StaticKey::from_bytes([1; 32]));
    let server = Reading::new(&key, Limits::server(), &mut rng);
    let (mut out, mut answer) = (BytesMut::new(), BytesMut::new());
    let client = client::xx(&StaticKey::from_bytes([2; 32]), Suite::AesGcm, Limits::client(), &mut rng, &mut out)?;
    let Handshake::Answering(server) = server.feed(&out.split()) else { bail!("the server does not answer") };
    let Handshake::Reading(server) = server.answer(b"server hello", &mut answer) else { bail!("it is over too soon") };
    let client::Step::Answered(client) = client.feed(&answer) else { bail!("the client has no answer") };
    let ours = client.finish(b"client hello", &mut out).context("the client's end")?;
    let Handshake::Accepted(accepted) = server.feed(&out) else { bail!("the server does not accept") };
    Ok((ours, accepted.session))
}
