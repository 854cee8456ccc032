//! What users do: who writes to whom, how much, and what else they do meanwhile. An open loop: messages come at their
//! rate whether or not the ones before are through, so that a stall shows as latency.

pub mod media;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use causeway_identity::Address;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::canary::WORD;
use crate::client::light::{self, Command, rng};
use crate::client::sdk;
use crate::driver::controls;
use crate::driver::providers::Provider;
use crate::driver::world::{Account, World};
use crate::ledger::{Class, Consent, Kind, Record};

/// How much of what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Accounts with light devices.
    pub accounts: u32,
    /// Accounts with devices of the SDK.
    pub sdk_accounts: u32,
    /// Messages a second that users send, over all.
    pub rate: f64,
    /// Changes a second of consent, devices and keys, over all.
    pub controls: f64,
    /// Files a second that are uploaded, over all; each is fetched some two times.
    pub media: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { accounts: 100, sdk_accounts: 10, rate: 400.0, controls: 1.5, media: 0.5 }
    }
}

/// How often the workload does something.
const TICK: Duration = Duration::from_millis(20);
/// Accounts that are set up at a time.
const SETUP: usize = 6;
/// Setting up takes at most this long.
const SETUP_TIME: Duration = Duration::from_secs(120);
/// Share of the messages that users of the SDK send, and how many a second at most: each costs much more than others.
const SDK_SHARE: f64 = 0.05;
const SDK_MOST: f64 = 40.0;

/// The accounts of a run, without devices. Half of them are the operator's users.
///
/// # Errors
/// A name is refused.
pub fn accounts(shape: &Shape, providers: &[Provider]) -> anyhow::Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for number in 0..shape.accounts + shape.sdk_accounts {
        let provider = if number % 2 == 0 { 0 } else { 1 + (number as usize / 2) % (providers.len() - 1) };
        let user = format!("{WORD}{number}");
        let address: Address = providers[provider].address(&user)?;
        let provider = u32::try_from(provider)?;
        accounts.push(Account::new(number, provider, user, address, number >= shape.accounts));
    }
    Ok(accounts)
}

/// Enlists the devices of all accounts, lets them in, and starts them.
///
/// # Errors
/// The deployment does not serve.
pub async fn set_up(world: &Arc<World>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETUP_TIME;
    stream::iter(&world.accounts)
        .map(|account| set_up_account(world, account, deadline))
        .buffer_unordered(SETUP)
        .try_collect::<()>()
        .await
}

async fn set_up_account(world: &Arc<World>, account: &Account, deadline: Instant) -> anyhow::Result<()> {
    let (a, p) = (account.number, account.provider);
    world.ledger.write(|_| Record::Account { a, p });
    let devices = if account.sdk { 1 + account.number % 2 } else { 1 + account.number % 3 };
    for device in 0..devices {
        if account.sdk {
            tokio::spawn(sdk::enlist(world, account, deadline).await?.run());
        } else {
            // Each sixth account has a wild device, beside the others if it has some.
            let wild = device == 0 && a % 6 == 1;
            let kind = if wild { Kind::Wild } else { Kind::Light };
            tokio::spawn(light::enlist(world, account, kind, deadline).await?.run());
        }
    }
    controls::consent(world, account, Consent::All, deadline).await
}

/// Sends messages and changes things until `stop`.
///
/// # Errors
/// There is nobody to talk to.
pub async fn run(world: &Arc<World>, shape: &Shape, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut rng = rng(world.seed, "workload", 0);
    let light = Pairs::new(world, false, &mut rng)?;
    let sdk = Pairs::new(world, true, &mut rng).ok();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let sdk_rate = if sdk.is_some() { (shape.rate * SDK_SHARE).min(SDK_MOST) } else { 0.0 };
    let mut owed = [0.0; 2];
    let (mut controls, mut files, mut next_file) = (0.0, 0.0, 0);
    let mut changes = tokio::task::JoinSet::new();
    let mut exchanges = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        owed[0] += (shape.rate - sdk_rate) * TICK.as_secs_f64();
        owed[1] += sdk_rate * TICK.as_secs_f64();
        // Of those who owe a message, the one that owes more.
        while let Some(who) = (0..2).filter(|who| owed[*who] >= 1.0).max_by(|a, b| owed[*a].total_cmp(&owed[*b])) {
            let talks = sdk.as_ref().filter(|_| who == 1);
            let (pairs, most) = talks.map_or((&light, 100), |sdk| (sdk, 8));
            // Many short bursts and few long ones.
            let count = if rng.random_bool(0.7) { 1 } else { rng.random_range(1..=most) };
            owed[who] -= f64::from(count);
            let (from, to) = pairs.draw(&mut rng);
            let class = match rng.random_range(0..20) {
                0..16 => Class::Chat,
                16..19 => Class::Ephemeral,
                _ => Class::Call,
            };
            let padding =
                if rng.random_bool(0.02) { rng.random_range(2_000..16_000) } else { rng.random_range(60..400) };
            let devices = world.account(from)?.devices();
            let Some(device) = devices.choose(&mut rng) else { continue };
            let send = Command::Send { to, class, count, padding, removed: None };
            if device.commands.try_send(send).is_err() {
                world.counts.shed.fetch_add(u64::from(count), Ordering::Relaxed);
            }
        }
        controls += shape.controls * TICK.as_secs_f64();
        while controls >= 1.0 {
            controls -= 1.0;
            if changes.len() < 32 {
                let (world, choice, (from, to)) = (Arc::clone(world), rng.random_range(0..10), light.draw(&mut rng));
                let hold = Duration::from_millis(rng.random_range(1_500..6_000));
                changes.spawn(async move { change(&world, choice, from, to, hold).await });
            }
        }
        files += shape.media * TICK.as_secs_f64();
        while files >= 1.0 {
            files -= 1.0;
            if exchanges.len() < media::AT_ONCE {
                exchanges.spawn(media::exchange(Arc::clone(world), next_file));
                next_file += 1;
            }
        }
        while changes.try_join_next().is_some() {}
        while let Some(exchanged) = exchanges.try_join_next() {
            exchanged?.context("media")?;
        }
    }
    // What was begun is finished, so that everybody is reachable in the end.
    while changes.join_next().await.is_some() {}
    while let Some(exchanged) = exchanges.join_next().await {
        exchanged?.context("media")?;
    }
    Ok(())
}

/// One change. What fails because the deployment is disturbed is written down as unknown where it matters.
async fn change(world: &Arc<World>, choice: u32, from: u32, to: u32, hold: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    let (by, account) = (world.account(from)?, world.account(to)?);
    match choice {
        0..5 => {
            let Ok(_changing) = account.changing.try_lock() else { return Ok(()) };
            let rule = match choice {
                0 | 1 => Consent::NotProvider(by.provider),
                2 | 3 => Consent::Nobody,
                _ => Consent::Off,
            };
            let narrowed = controls::consent(world, account, rule, Instant::now()).await;
            if narrowed.is_ok() {
                // Somebody tries at once, and again and again.
                let until = Instant::now() + hold;
                while Instant::now() < until {
                    if let Some(device) = by.devices().first() {
                        let send = Command::Send { to, class: Class::Chat, count: 1, padding: 80, removed: None };
                        let _full = device.commands.try_send(send);
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            controls::consent(world, account, Consent::All, deadline).await
        }
        5 => {
            let Ok(_changing) = account.changing.try_lock() else { return Ok(()) };
            controls::replace_device(world, by, account, deadline).await
        }
        6..9 => {
            let devices = by.devices();
            let device = devices.first().context("a device")?;
            controls::claim(world, device, account).await
        }
        _ => {
            let devices = account.devices();
            let device = devices.first().context("a device")?;
            device.commands.send(Command::Publish).await.ok().context("a device that has left")
        }
    }
}

/// Who writes to whom: a few pairs much, most of them little.
struct Pairs {
    pairs: Vec<(u32, u32)>,
    /// Running sums of the weights.
    sums: Vec<f64>,
}

impl Pairs {
    fn new(world: &World, sdk: bool, rng: &mut StdRng) -> anyhow::Result<Self> {
        let mut partners: HashMap<u32, Vec<u32>> = HashMap::new();
        let some: Vec<&Account> = world.accounts.iter().filter(|account| account.sdk == sdk).collect();
        for from in &some {
            partners
                .entry(from.number)
                .or_default()
                .extend(some.iter().filter(|to| world.is_route(from, to)).map(|to| to.number));
        }
        let mut pairs = Vec::new();
        for from in &some {
            let Some(partners) = partners.get(&from.number).filter(|partners| !partners.is_empty()) else { continue };
            for _ in 0..6 {
                pairs.extend(partners.choose(rng).map(|to| (from.number, *to)));
            }
        }
        ensure!(!pairs.is_empty(), "nobody to talk to");
        rand::seq::SliceRandom::shuffle(&mut pairs[..], rng);
        let mut sum = 0.0;
        let sums = (0..pairs.len())
            .map(|rank| {
                sum += 1.0 / (f64::from(u32::try_from(rank).unwrap_or(u32::MAX)) + 4.0);
                sum
            })
            .collect();
        Ok(Self { pairs, sums })
    }

    fn draw(&self, rng: &mut StdRng) -> (u32, u32) {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let at = rng.random_range(0.0..total);
        let rank = self.sums.partition_point(|sum| *sum <= at);
        self.pairs[rank.min(self.pairs.len() - 1)]
    }
}
