//! Claiming prekey bundles. Claims that come together are taken in one transaction: one wait for the disk, and hardly
//! any for the network.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId};
use causeway_postgres::{Postgres, Row};
use futures::future::try_join_all;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::prekeys::counts_of;
use super::rows::{account, device, device_id, get, number, prekey};
use super::statements::{BUNDLES, LOCK_ACCOUNT, LOCK_ACCOUNT_IF_FREE, TAKE_PREKEYS};
use super::step::{self, Done, Failure, Step, Tx, read};
use crate::keys::{EcPrekey, KyberPublicKey, RegistrationId, SignedPrekey};
use crate::store::stored::{corrupt, ec_key, prekey_id};
use crate::store::{Bundle, Change, KeyCounts, Logged, REMEMBERED_PREKEYS, StoreError, Written, low_prekeys};

/// Claims that may be under way; more are refused.
const UNDER_WAY: usize = 1_024;
/// Claims in one transaction.
const GROUP: usize = 64;
/// Transactions at a time: while one waits for the disk, another is filled.
const WORKERS: usize = 3;
/// Transactions at a time that wait for accounts which somebody else has locked.
const WAITING: usize = 3;
/// Who has waited for so long is told to come again, rather than given a key that nobody may be waiting for.
const STALE: Duration = Duration::from_secs(4);

/// Where claims are put together.
pub(super) struct Claims {
    queue: mpsc::UnboundedSender<Asked>,
    /// Bounds the queue, and what has left it.
    places: Arc<Semaphore>,
}

/// A claim that waits.
struct Asked {
    claim: Claim,
    since: Instant,
    answer: oneshot::Sender<Result<Claimed, StoreError>>,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone)]
pub(super) struct Claim {
    pub(super) account: AccountId,
    pub(super) devices: Vec<DeviceId>,
    pub(super) low: u32,
}

type Claimed = Written<Vec<Bundle>>;

impl Claims {
    /// Takes claims until this is dropped.
    pub(super) fn over(postgres: &Postgres) -> Self {
        let (queue, claims) = mpsc::unbounded_channel();
        let claims = Arc::new(Mutex::new(claims));
        let waiting = Arc::new(Semaphore::new(WAITING));
        for _ in 0..WORKERS {
            tokio::spawn(work(postgres.clone(), Arc::clone(&claims), Arc::clone(&waiting)));
        }
        Self { queue, places: Arc::new(Semaphore::new(UNDER_WAY)) }
    }

    /// Bundles with one-time keys.
    pub(super) async fn take(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let gone = || StoreError::Failed("claims are not taken any more".to_owned());
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| StoreError::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let asked = Asked { claim, since: Instant::now(), answer, _place: place };
        self.queue.send(asked).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn work(postgres: Postgres, claims: Arc<Mutex<mpsc::UnboundedReceiver<Asked>>>, waiting: Arc<Semaphore>) {
    loop {
        let mut group = Vec::new();
        if claims.lock().await.recv_many(&mut group, GROUP).await == 0 {
            return;
        }
        let mut locked_by_others: BTreeMap<AccountId, Vec<Asked>> = BTreeMap::new();
        for asked in take_group(&postgres, group, false).await {
            locked_by_others.entry(asked.claim.account).or_default().push(asked);
        }
        for group in locked_by_others.into_values() {
            let (postgres, waiting) = (postgres.clone(), Arc::clone(&waiting));
            // As many as there are places at most, and each takes no longer than a step does once it has begun.
            tokio::spawn(async move {
                if let Ok(_turn) = waiting.acquire().await {
                    take_group(&postgres, group, true).await;
                }
            });
        }
    }
}

/// Takes and answers; gives those back for whose accounts it would have to wait, unless it `waits`.
async fn take_group(postgres: &Postgres, group: Vec<Asked>, waits: bool) -> Vec<Asked> {
    // Of those who have given up nothing is taken.
    let waiting = group.into_iter().filter(|asked| !asked.answer.is_closed());
    let (group, stale): (Vec<_>, Vec<_>) = waiting.partition(|asked| asked.since.elapsed() < STALE);
    for asked in stale {
        answer(asked, Err(StoreError::Overloaded));
    }
    if group.is_empty() {
        return Vec::new();
    }
    let step = Group { claims: group.iter().map(|asked| asked.claim.clone()).collect(), waits };
    let written = match step::take(postgres, &step).await {
        Ok(written) => written,
        Err(error) => {
            group.into_iter().for_each(|asked| answer(asked, Err(error.clone())));
            return Vec::new();
        }
    };
    let mut locked_by_others = Vec::new();
    for (asked, outcome) in group.into_iter().zip(written.outcome) {
        let Some(outcome) = outcome else {
            locked_by_others.push(asked);
            continue;
        };
        let claimed = outcome.map(|(bundles, changes)| {
            // The number is that of the group's last change: nobody waits for one of them.
            let number = written.logged.number.filter(|_| !changes.is_empty());
            Written { outcome: bundles, logged: Logged { changes, number } }
        });
        answer(asked, claimed);
    }
    locked_by_others
}

fn answer(asked: Asked, claimed: Result<Claimed, StoreError>) {
    // Whoever has given up has lost the keys: they are given to nobody else.
    let _gone = asked.answer.send(claimed);
}

/// What a claim of a group gives, and what followers must be told. `None`: somebody else has locked the account, or it
/// does not exist.
type Outcome = Option<Result<(Vec<Bundle>, Vec<Change>), StoreError>>;

/// The step of taking one-time keys. It is not tried again after a commit without an answer: the keys may have been
/// taken then, and nobody else gets them; whoever asks again gets others.
///
/// A group of several accounts does not wait for locks, so that nobody who holds one account waits for another, and an
/// account that is held up holds up no other.
struct Group {
    claims: Vec<Claim>,
    /// All are of one account.
    waits: bool,
}

#[async_trait]
impl Step for Group {
    type Outcome = Vec<Outcome>;

    const REPEATABLE: bool = false;

    /// Two waits for the network, however many claims: all locks, then all keys.
    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<Vec<Outcome>>>) -> Result<Done<Vec<Outcome>>, Failure> {
        let accounts: BTreeSet<AccountId> = self.claims.iter().map(|claim| claim.account).collect();
        let lock = if self.waits { LOCK_ACCOUNT } else { LOCK_ACCOUNT_IF_FREE };
        let locking =
            accounts.into_iter().map(async |id| Ok::<_, Failure>((id, tx.row(lock, &[&account(&id)]).await?)));
        let locked: HashMap<AccountId, Option<Row>> = try_join_all(locking).await?.into_iter().collect();
        let taking = self.claims.iter().map(async |claim| match locked.get(&claim.account) {
            Some(Some(row)) => Ok((Some(row), claim.take(tx).await?)),
            _ => Ok::<_, Failure>((None, Vec::new())),
        });
        let mut outcomes = Vec::with_capacity(self.claims.len());
        let mut changes = Vec::new();
        let mut wrote = false;
        for (claim, (locked, rows)) in self.claims.iter().zip(try_join_all(taking).await?) {
            let outcome = match locked {
                Some(locked) => Some(claim.outcome(locked, &rows)),
                None if self.waits => Some(Ok((Vec::new(), Vec::new()))),
                None => None,
            };
            if let Some(Ok((bundles, told))) = &outcome {
                wrote |= bundles.iter().any(|bundle| bundle.taken != (false, false));
                changes.extend_from_slice(told);
            }
            outcomes.push(outcome);
        }
        Ok(if wrote { Done::told(outcomes, changes) } else { Done::nothing(outcomes) })
    }
}

impl Claim {
    /// The account is locked.
    async fn take(&self, tx: &Tx<'_>) -> Result<Vec<Row>, Failure> {
        let (id, numbers, remembered) = (account(&self.account), numbers(&self.devices), REMEMBERED_PREKEYS as i64);
        Ok(tx.rows(TAKE_PREKEYS, &[&id, &numbers, &remembered]).await?)
    }

    fn outcome(&self, locked: &Row, rows: &[Row]) -> Result<(Vec<Bundle>, Vec<Change>), StoreError> {
        let bundles = in_order(&self.devices, rows.iter().map(taken_bundle))?;
        if !bundles.iter().any(|bundle| bundle.runs_low(self.low)) {
            return Ok((bundles, Vec::new()));
        }
        let address: Address = get::<&str>(locked, 0)?.parse().map_err(corrupt("address"))?;
        let changes = low_prekeys(self.account, &address, &bundles, self.low);
        Ok((bundles, changes))
    }
}

/// Bundles without one-time keys.
pub(super) async fn peek(postgres: &Postgres, id: AccountId, devices: &[DeviceId]) -> Result<Vec<Bundle>, StoreError> {
    let rows = read(postgres, BUNDLES, &[&account(&id), &numbers(devices)]).await?;
    in_order(devices, rows.iter().map(spare_bundle))
}

fn numbers(devices: &[DeviceId]) -> Vec<i32> {
    let mut numbers: Vec<i32> = devices.iter().copied().map(device).collect();
    // A device that was named twice would be given one key twice.
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn in_order(
    devices: &[DeviceId],
    bundles: impl Iterator<Item = Result<Bundle, StoreError>>,
) -> Result<Vec<Bundle>, StoreError> {
    let mut found: HashMap<DeviceId, Bundle> = HashMap::new();
    for bundle in bundles {
        let bundle = bundle?;
        found.insert(bundle.device, bundle);
    }
    Ok(devices.iter().filter_map(|device| found.remove(device)).collect())
}

fn spare_bundle(row: &Row) -> Result<Bundle, StoreError> {
    let last_resort = prekey(row, 6)?.kyber()?;
    bundle(row, None, last_resort, (false, false), counts_of(row, 9)?)
}

/// With the one-time keys that were taken; the counts in the row are those from before.
fn taken_bundle(row: &Row) -> Result<Bundle, StoreError> {
    let taken = (get::<Option<i32>>(row, 11)?.is_some(), get::<Option<i32>>(row, 14)?.is_some());
    let ec = if taken.0 {
        Some(EcPrekey { id: prekey_id(number::<i32, u32>(row, 11)?)?, key: ec_key(get(row, 12)?)? })
    } else {
        None
    };
    let kyber = if taken.1 { prekey(row, 14)? } else { prekey(row, 6)? };
    let before = counts_of(row, 9)?;
    let left =
        KeyCounts { ec: before.ec.saturating_sub(taken.0.into()), kyber: before.kyber.saturating_sub(taken.1.into()) };
    bundle(row, ec, kyber.kyber()?, taken, left)
}

fn bundle(
    row: &Row,
    ec: Option<EcPrekey>,
    kyber: SignedPrekey<KyberPublicKey>,
    taken: (bool, bool),
    left: KeyCounts,
) -> Result<Bundle, StoreError> {
    let registration_id: u32 = number::<i32, u32>(row, 1)?;
    Ok(Bundle {
        device: device_id(row, 0)?,
        registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
        identity_key: ec_key(get(row, 2)?)?,
        signed: prekey(row, 3)?.signed_ec()?,
        ec,
        kyber,
        left,
        taken,
    })
}
