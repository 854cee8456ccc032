//! What users decide while messages are under way: consent, devices, keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use causeway_identity::Domain;
use causeway_stanza::{
    ConsentSettings, DeviceIds, ErrorCode, InboxSetting, KeysClaim, List, ProviderRule, Reach, RequestBody,
    ResponseBody,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::world::{Account, Enlisted, World};
use crate::client::enlist::is_last_resort;
use crate::client::light::{Command, enlist};
use crate::ledger::{Class, Consent, Kind, Record};

/// An answer that does not come within this is given up: nobody knows what became of the request.
const PATIENCE: Duration = Duration::from_secs(12);
/// Somebody goes on naming a device for so long after its removal, so often.
const UNAWARE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_millis(200));
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// The answer to a request by this device; `None`: nobody knows.
pub async fn ask(device: &Enlisted, body: RequestBody) -> Option<ResponseBody> {
    let (reply, answer) = oneshot::channel();
    let request = Command::Request { body: Box::new(body), reply };
    tokio::time::timeout(PATIENCE, async {
        device.commands.send(request).await.ok()?;
        answer.await.ok().flatten()
    })
    .await
    .ok()
    .flatten()
}

/// Sets an account's consent, as often as it takes until `deadline`.
///
/// # Errors
/// It was not confirmed.
pub async fn consent(world: &World, account: &Account, rule: Consent, deadline: Instant) -> anyhow::Result<()> {
    let settings = settings(world, rule)?;
    for turn in 0_usize.. {
        let devices = account.devices();
        ensure!(!devices.is_empty(), "account {} has no device", account.number);
        let (a, c) = (account.number, rule);
        world.ledger.write(|t| Record::ConsentAsk { t, a, c });
        let answer = ask(&devices[turn % devices.len()], RequestBody::ConsentSet(settings.clone())).await;
        let ok = matches!(answer, Some(ResponseBody::Consent(_) | ResponseBody::Done));
        world.ledger.write(|t| Record::ConsentAnswer { t, a, c, ok });
        if ok {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "consent of account {a}: {answer:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn settings(world: &World, rule: Consent) -> anyhow::Result<ConsentSettings> {
    let mut providers = Vec::new();
    if let Consent::NotProvider(number) = rule {
        let provider = world.providers.get(number as usize).context("no such provider")?;
        providers.push(ProviderRule { provider: provider.domain().as_str().parse::<Domain>()?, allow: false });
    }
    Ok(ConsentSettings {
        interop: rule != Consent::Off,
        providers: List::try_from(providers).ok().context("a list")?,
        inbox: InboxSetting::Separate,
        reach: if rule == Consent::Nobody { Reach::Nobody } else { Reach::Everyone },
    })
}

/// Removes a device of an account and enlists another in its place. The first device of `unaware` goes on writing to the
/// removed one for a while.
///
/// # Errors
/// The account has one device only, or the server does not do it until `deadline`.
pub async fn replace_device(
    world: &Arc<World>,
    unaware: &Account,
    account: &Account,
    deadline: Instant,
) -> anyhow::Result<()> {
    let devices = account.devices();
    ensure!(devices.len() > 1, "account {} has one device", account.number);
    let (keeper, leaver) = (&devices[0], &devices[devices.len() - 1]);
    let d = leaver.number;
    leaver.leaving.store(true, Ordering::Relaxed);
    world.ledger.write(|t| Record::Removing { t, d });
    loop {
        match ask(keeper, RequestBody::DeviceRemove(leaver.id)).await {
            Some(ResponseBody::Done) => break,
            // An attempt before this one, whose answer was lost, has done it.
            Some(ResponseBody::Error(error)) if error.code == ErrorCode::NotAvailable => break,
            answer => ensure!(Instant::now() < deadline, "remove device {d}: {answer:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    world.ledger.write(|t| Record::Removed { t, d });
    account.remove(d);
    let (enlisted, ()) =
        tokio::join!(enlist(world, account, Kind::Light, deadline), go_on_naming(unaware, account, leaver));
    tokio::spawn(enlisted?.run());
    Ok(())
}

/// Writes to an account as if this device were still one of it.
async fn go_on_naming(by: &Account, account: &Account, removed: &Arc<Enlisted>) {
    let until = Instant::now() + UNAWARE.0;
    while Instant::now() < until {
        if let Some(device) = by.devices().first() {
            let (to, removed) = (account.number, Some(Arc::clone(removed)));
            // A sender that has too much to do leaves it out.
            let _full =
                device.commands.try_send(Command::Send { to, class: Class::Chat, count: 1, padding: 80, removed });
        }
        tokio::time::sleep(UNAWARE.1).await;
    }
}

/// One device takes prekeys of an account.
///
/// # Errors
/// `by` is gone.
pub async fn claim(world: &World, by: &Enlisted, account: &Account) -> anyhow::Result<()> {
    let claim = KeysClaim { address: account.address.clone(), devices: DeviceIds::new() };
    let Some(ResponseBody::KeyBundles(bundles)) = ask(by, RequestBody::KeysClaim(claim)).await else { return Ok(()) };
    for bundle in bundles.bundles {
        let (by, a, id) = (by.number, account.number, bundle.device.get());
        let (reg, ec) = (bundle.registration.get(), bundle.ec_prekey.as_ref().map(|key| key.id));
        let kyber = Some(bundle.kyber_prekey.id).filter(|id| !is_last_resort(*id));
        world.ledger.write(|t| Record::Claim { t, by, a, id, reg, ec, kyber });
    }
    Ok(())
}
