//! Claiming prekey bundles. Claims that come together are taken in one transaction: one wait for the disk, and hardly
//! any for the network.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId};
use causeway_postgres::{Postgres, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::prekeys::counts_of;
use super::rows::{account, account_id, device, device_id, get, number, prekey};
use super::statements::{BUNDLES, LOCK_ACCOUNTS, LOCK_ACCOUNTS_IF_FREE, TAKE_PREKEYS};
use super::step::{self, Done, Failure, Step, Tx, read};
use crate::keys::{EcPrekey, RegistrationId};
use crate::store::stored::{Listed as _, PrekeyKind, StoredPrekey, corrupt, ec_key, prekey_id};
use crate::store::{Bundle, Change, KeyCounts, Logged, REMEMBERED_PREKEYS, StoreError, Written, low_prekeys};

/// Claims that may be under way; more are refused.
const UNDER_WAY: usize = 1_024;
/// Claims in one transaction.
const GROUP: usize = 64;
/// Transactions at a time: while one waits for the disk, another is filled. Accounts are spread over them, so that they do
/// not wait for each other's locks.
const WORKERS: usize = 3;
/// Transactions at a time that wait for accounts which somebody else has locked.
const WAITING: usize = 3;
/// Who has waited for so long is told to come again, rather than given a key that nobody may be waiting for.
const STALE: Duration = Duration::from_secs(4);

/// Where claims are put together.
pub(super) struct Claims {
    /// One for each worker.
    queues: Vec<mpsc::UnboundedSender<Asked>>,
    /// Bounds the queues, and what has left them.
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
        let waiting = Arc::new(Semaphore::new(WAITING));
        let worker = |_| {
            let (queue, claims) = mpsc::unbounded_channel();
            tokio::spawn(work(postgres.clone(), claims, Arc::clone(&waiting)));
            queue
        };
        Self { queues: (0..WORKERS).map(worker).collect(), places: Arc::new(Semaphore::new(UNDER_WAY)) }
    }

    /// Bundles with one-time keys.
    pub(super) async fn take(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let gone = || StoreError::Failed("claims are not taken any more".to_owned());
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| StoreError::Overloaded)?;
        let queue = self.queues.get(share(claim.account)).ok_or_else(gone)?;
        let (answer, answered) = oneshot::channel();
        let asked = Asked { claim, since: Instant::now(), answer, _place: place };
        queue.send(asked).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Which worker takes an account's claims, always the same.
fn share(account: AccountId) -> usize {
    // Account ids are random, but not those of tests.
    account.as_bytes().iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())) % WORKERS
}

async fn work(postgres: Postgres, mut claims: mpsc::UnboundedReceiver<Asked>, waiting: Arc<Semaphore>) {
    loop {
        let mut group = Vec::new();
        if claims.recv_many(&mut group, GROUP).await == 0 {
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

    /// Two waits for the network and two statements, however many claims: all locks, then all keys.
    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<Vec<Outcome>>>) -> Result<Done<Vec<Outcome>>, Failure> {
        let accounts: BTreeSet<AccountId> = self.claims.iter().map(|claim| claim.account).collect();
        let ids: Vec<&[u8]> = accounts.iter().map(account).collect();
        let lock = if self.waits { LOCK_ACCOUNTS } else { LOCK_ACCOUNTS_IF_FREE };
        let mut locked: HashMap<AccountId, String> = HashMap::new();
        for row in tx.rows(lock, &[&ids]).await? {
            locked.insert(account_id(&row, 0)?, get(&row, 1)?);
        }
        let mut shelves = Shelves::for_all(self.claims.iter().filter(|claim| locked.contains_key(&claim.account)));
        shelves.fill(tx).await?;
        let mut outcomes = Vec::with_capacity(self.claims.len());
        let mut changes = Vec::new();
        for claim in &self.claims {
            let outcome = match locked.get(&claim.account) {
                Some(address) => Some(claim.outcome(address, &mut shelves)),
                None if self.waits => Some(Ok((Vec::new(), Vec::new()))),
                None => None,
            };
            if let Some(Ok((_, told))) = &outcome {
                changes.extend_from_slice(told);
            }
            outcomes.push(outcome);
        }
        Ok(if shelves.took { Done::told(outcomes, changes) } else { Done::nothing(outcomes) })
    }
}

impl Claim {
    /// Each device once: one that was named twice would be given one key twice.
    fn each_device(&self) -> BTreeSet<DeviceId> {
        self.devices.iter().copied().collect()
    }

    fn outcome(&self, address: &str, shelves: &mut Shelves) -> Result<(Vec<Bundle>, Vec<Change>), StoreError> {
        let taken = self.each_device().into_iter().filter_map(|device| shelves.next(self.account, device));
        let bundles = in_order(&self.devices, taken)?;
        if !bundles.iter().any(|bundle| bundle.runs_low(self.low)) {
            return Ok((bundles, Vec::new()));
        }
        let address: Address = address.parse().map_err(corrupt("address"))?;
        let changes = low_prekeys(self.account, &address, &bundles, self.low);
        Ok((bundles, changes))
    }
}

/// What the devices of a group give: as many one-time keys as there are claims, if there are.
#[derive(Default)]
struct Shelves {
    of: BTreeMap<(AccountId, DeviceId), Shelf>,
    /// At least one key was taken.
    took: bool,
}

#[derive(Default)]
struct Shelf {
    claims: i64,
    /// The bundle without one-time keys, with what was in store before. `None`: there is no such device.
    spare: Option<Result<Bundle, StoreError>>,
    /// In the order of upload.
    ec: VecDeque<StoredPrekey>,
    kyber: VecDeque<StoredPrekey>,
}

impl Shelves {
    fn for_all<'a>(claims: impl Iterator<Item = &'a Claim>) -> Self {
        let mut shelves = Self::default();
        for claim in claims {
            for device in claim.each_device() {
                shelves.of.entry((claim.account, device)).or_default().claims += 1;
            }
        }
        shelves
    }

    /// The accounts are locked.
    async fn fill(&mut self, tx: &Tx<'_>) -> Result<(), Failure> {
        if self.of.is_empty() {
            return Ok(());
        }
        let accounts: Vec<&[u8]> = self.of.keys().map(|(id, _)| account(id)).collect();
        let devices: Vec<i32> = self.of.keys().map(|(_, id)| device(*id)).collect();
        let claims: Vec<i64> = self.of.values().map(|shelf| shelf.claims).collect();
        let rows = tx.rows(TAKE_PREKEYS, &[&accounts, &devices, &claims, &(REMEMBERED_PREKEYS as i64)]).await?;
        let mut shelves: Vec<&mut Shelf> = self.of.values_mut().collect();
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let at = number::<i64, usize>(row, 0)?.checked_sub(1);
            let shelf = at.and_then(|at| shelves.get_mut(at)).ok_or(StoreError::Corrupt("row"))?;
            match get::<Option<i64>>(row, 1)? {
                None => shelf.spare = Some(spare_bundle(row, 2)),
                Some(place) => keys.push((place, at, row)),
            }
        }
        keys.sort_unstable_by_key(|(place, at, _)| (*at, *place));
        self.took = !keys.is_empty();
        for (_, at, row) in keys {
            let shelf = at.and_then(|at| shelves.get_mut(at)).ok_or(StoreError::Corrupt("row"))?;
            let key = prekey(row, 5)?;
            match PrekeyKind::from_number(get::<i32>(row, 2)?.into()) {
                Some(PrekeyKind::Ec) => shelf.ec.push_back(key),
                Some(PrekeyKind::Kyber) => shelf.kyber.push_back(key),
                None => return Err(StoreError::Corrupt("value of a list").into()),
            }
        }
        Ok(())
    }

    /// What the next claim gets from the device.
    fn next(&mut self, account: AccountId, device: DeviceId) -> Option<Result<Bundle, StoreError>> {
        let shelf = self.of.get_mut(&(account, device))?;
        let (ec, kyber) = (shelf.ec.pop_front(), shelf.kyber.pop_front());
        let spare = shelf.spare.as_mut()?;
        if let Ok(spare) = spare {
            let less = |left: u32, taken: bool| left.saturating_sub(taken.into());
            spare.left =
                KeyCounts { ec: less(spare.left.ec, ec.is_some()), kyber: less(spare.left.kyber, kyber.is_some()) };
        }
        Some(spare.clone().and_then(|spare| spare.with(ec, kyber)))
    }
}

impl Bundle {
    fn with(self, ec: Option<StoredPrekey>, kyber: Option<StoredPrekey>) -> Result<Self, StoreError> {
        let taken = (ec.is_some(), kyber.is_some());
        let ec = ec.map(|ec| Ok(EcPrekey { id: prekey_id(ec.id)?, key: ec_key(&ec.key)? })).transpose()?;
        let kyber = kyber.map_or(Ok(self.kyber), StoredPrekey::kyber)?;
        Ok(Self { ec, kyber, taken, ..self })
    }
}

/// Bundles without one-time keys.
pub(super) async fn peek(postgres: &Postgres, id: AccountId, devices: &[DeviceId]) -> Result<Vec<Bundle>, StoreError> {
    let rows = read(postgres, BUNDLES, &[&account(&id), &numbers(devices)]).await?;
    in_order(devices, rows.iter().map(|row| spare_bundle(row, 0)))
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

/// The columns of a bundle without one-time keys, from `first` on.
fn spare_bundle(row: &Row, first: usize) -> Result<Bundle, StoreError> {
    let registration_id: u32 = number::<i32, u32>(row, first + 1)?;
    Ok(Bundle {
        device: device_id(row, first)?,
        registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
        identity_key: ec_key(get(row, first + 2)?)?,
        signed: prekey(row, first + 3)?.signed_ec()?,
        ec: None,
        kyber: prekey(row, first + 6)?.kyber()?,
        left: counts_of(row, first + 9)?,
        taken: (false, false),
    })
}
