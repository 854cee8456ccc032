//! A new device joins its account.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail};
use causeway_noise::{Received, StaticKey};
use causeway_stanza::{
    Encoding, Enlist, Enlisted as Answer, FromClient, FromServer, Request, RequestBody, ResponseBody, decode_server,
};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use rand::seq::IndexedRandom as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Light, rng};
use crate::client::dial::{Login, dial, record};
use crate::client::enlist::Keys;
use crate::client::outbox::Outbox;
use crate::driver::world::{Account, Enlisted, World};
use crate::ledger::{Kind, Record};

/// One attempt takes at most this long.
const ATTEMPT: Duration = Duration::from_secs(15);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Enlists a new device on `account`, however often it takes. The account's consent is not touched.
///
/// # Errors
/// The server refuses for good, or does not answer until `deadline`.
pub async fn enlist(world: &Arc<World>, account: &Account, kind: Kind, deadline: Instant) -> anyhow::Result<Light> {
    let number = world.new_device();
    let key = Arc::new(StaticKey::generate(&mut OsRng.unwrap_err()));
    let mut keys = Keys::generate()?;
    let request = keys.enlist()?;
    let mut rng = rng(world.seed, "device", number);
    let answer = loop {
        let edge = *world.net.edges.choose(&mut rng).context("an edge")?;
        let token = world.provider(account)?.token(&account.user, key.public()).await?;
        let login = Login { key: &key, device: None, token, known: None };
        match tokio::time::timeout(ATTEMPT, attempt(world, edge, login, &request)).await {
            Ok(Ok(answer)) => break answer,
            Ok(Err(error)) if Instant::now() > deadline => return Err(error.context("enlist")),
            Err(_) if Instant::now() > deadline => bail!("enlist: no answer"),
            _ => tokio::time::sleep(PAUSE).await,
        }
    };
    let (sender, commands) = mpsc::channel(256);
    let me = Arc::new(Enlisted {
        number,
        account: account.number,
        id: answer.device,
        registration: keys.registration(),
        commands: sender,
        leaving: AtomicBool::new(false),
    });
    world.ledger.write(|t| Record::Device { t, d: number, a: account.number, id: answer.device.get(), kind });
    world.add(account, answer.account, &me);
    Ok(Light {
        world: Arc::clone(world),
        me,
        kind,
        key,
        keys,
        server_key: None,
        commands,
        phase: world.phase.subscribe(),
        rng,
        epoch: 0,
        outbox: Outbox::default(),
        seen: std::collections::HashSet::new(),
        seqs: std::collections::HashMap::new(),
        next: 0,
        drained: false,
    })
}

async fn attempt(world: &World, edge: SocketAddr, login: Login<'_>, enlist: &Enlist) -> anyhow::Result<Answer> {
    let mut session = dial(&world.net, edge, login).await?;
    let body = RequestBody::Enlist(enlist.clone());
    let request = FromClient::Iq(Request { id: NonZeroU64::MIN, body });
    session.connection.writer.send(&record(request)).await?;
    loop {
        let received = session.connection.reader.read().await?.context("closed before the answer")?;
        let Received::Record(record) = received else { continue };
        match decode_server(Encoding::Binary, &record).map_err(|error| anyhow::anyhow!("{error}"))? {
            FromServer::Iq(response) => match response.body {
                ResponseBody::Enlisted(answer) => return Ok(answer),
                other => bail!("{other:?}"),
            },
            FromServer::End(end) => bail!("{end:?}"),
            _ => {}
        }
    }
}
