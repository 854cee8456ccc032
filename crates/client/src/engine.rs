//! What happens when: the one task that owns a device's state.
//!
//! It takes whatever has come in (commands of the application, events of the connection, deadlines), works out what
//! follows, commits all of it to the store at once, and only then lets anything out: answers, stanzas, events. So a crash
//! at any point leaves a state from which the next start goes on.
//!
//! To add a request that concerns local state: a [`Command`], and a variant of `Then` in `requests`.

mod claims;
mod deliveries;
mod keys;
mod lanes;
mod outcomes;
mod requests;
mod resend;
mod run;
mod sending;
mod turn;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use causeway_identity::{Address, DeviceId, MessageId, NoiseKey};
use causeway_noise::StaticKey;
use causeway_stanza::{Delivery, FromClient, RequestBody, ResponseBody};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::lanes::Outbox;
use self::requests::Requests;
use self::turn::Turn;
use crate::clock::Clock;
use crate::config::ClientConfig;
use crate::content::Content;
use crate::error::ClientError;
use crate::event::{Ended, Outcome};
use crate::events::{EventQueue, Events};
use crate::link::{self, LinkParts};
use crate::random::Random;
use crate::signal::{self, SignalError};
use crate::store::{Change, DeviceRecord, SignalAddress, Store, StoreError};
use crate::token::TokenSource;

/// Commands that wait for the engine.
const COMMANDS: usize = 256;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

/// Waits for the engine's answer to a command; `None` if the engine has ended without one.
///
/// A command that is sent just as the engine ends may come to lie in the channel after that was emptied. There it is, and
/// its reply with it, for as long as there is a sender: so the end of the channel is waited for, too.
pub(crate) async fn answer<T>(
    commands: &mpsc::Sender<Command>,
    mut answer: oneshot::Receiver<Result<T, ClientError>>,
) -> Option<Result<T, ClientError>> {
    tokio::select! {
        biased;
        answered = &mut answer => answered.ok(),
        // Answers are given before the channel ends.
        () = commands.closed() => answer.try_recv().ok(),
    }
}

/// What the application asks for.
pub(crate) enum Command {
    Enlist {
        reply: Reply<DeviceId>,
    },
    Withdraw {
        reply: Reply<()>,
    },
    Send {
        to: Address,
        content: Content,
        reply: Reply<MessageId>,
    },
    WaitOutcome {
        id: MessageId,
        reply: Reply<Outcome>,
    },
    Outcome {
        id: MessageId,
        reply: Reply<Option<Outcome>>,
    },
    Request {
        body: Box<RequestBody>,
        reply: Reply<ResponseBody>,
    },
    Done {
        seq: u64,
        reply: Reply<()>,
    },
    /// The channel ends when it is done.
    Shutdown,
}

/// What every handle can see at any time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Status {
    pub(crate) device: Option<DeviceId>,
    pub(crate) connected: bool,
    pub(crate) ended: Option<Ended>,
}

/// A running engine, seen from outside.
pub(crate) struct Started {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) events: Events,
    pub(crate) noise_public: [u8; 32],
}

/// Loads the device, or makes it, and starts.
pub(crate) async fn start(
    config: ClientConfig,
    store: Arc<dyn Store>,
    tokens: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    mut random: Random,
) -> Result<Started, ClientError> {
    let device = match store.device().await? {
        Some(device) => device,
        None => {
            let (device, kept) = make_device(&*store, &clock, random).await?;
            random = kept;
            device
        }
    };
    let key = StaticKey::from_bytes(device.noise_private.clone());
    let noise_public = *key.public();
    let link = link::start(LinkParts {
        config: config.clone(),
        key,
        server_key: device.server_key.and_then(|key| NoiseKey::new(key).ok()),
        device: device.enlisted.map(|own| own.device),
        tokens,
        clock: Arc::clone(&clock),
        random: Box::new(StdRng::from_rng(&mut random)),
    });
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (queue, events) = EventQueue::new(&commands);
    let own = device.enlisted.map(|own| own.device);
    let (status, seen) = watch::channel(Status { device: own, ..Status::default() });
    let (last_outgoing, last_inbox) = store.last_seqs().await?;
    let inbox_len = store.inbox_len().await?;
    let mut engine = Engine {
        config,
        clock,
        random,
        device,
        session: None,
        to_link: VecDeque::new(),
        queue,
        status,
        outbox: Outbox::default(),
        requests: Requests::default(),
        waiters: HashMap::new(),
        last_outgoing,
        last_inbox,
        inbox_len,
        shown: 0,
        shown_open: BTreeSet::new(),
        deferred: VecDeque::new(),
        heard_of: HashSet::new(),
        key_work: keys::KeyWork::default(),
        housekeeping: Instant::now(),
        turn: Turn::default(),
        store,
    };
    engine.load_outbox().await?;
    tokio::spawn(engine.run(receiver, link));
    Ok(Started { commands, status: seen, events, noise_public })
}

/// Making keys takes long enough to need a thread of its own.
async fn make_device(
    store: &dyn Store,
    clock: &Arc<dyn Clock>,
    mut random: Random,
) -> Result<(DeviceRecord, Random), ClientError> {
    let now = clock.now();
    let made = tokio::task::spawn_blocking(move || {
        let noise = StaticKey::generate(random.as_mut());
        signal::new_device(noise.to_bytes(), now, &mut random).map(|made| (made, random))
    });
    let made = made.await.map_err(|stopped| StoreError::Backend(Box::new(stopped)))?;
    let ((device, prekeys), random) = made.map_err(|error| match error {
        SignalError::Store(error) => error,
        other => StoreError::Backend(Box::new(other)),
    })?;
    let mut changes = vec![Change::PutDevice(Box::new(device.clone()))];
    changes.extend(prekeys.into_iter().map(Change::PutPrekey));
    store.commit(changes).await?;
    Ok((device, random))
}

/// Messages in flight at the beginning of a session.
const FIRST_WINDOW: usize = 4;

/// A session as the engine sees it.
#[derive(Debug)]
struct Session {
    generation: u64,
    max_record: usize,
    /// Messages that may be in flight: few at first, so that even a connection that does not live long brings something
    /// to its end, and one more with each answer.
    window: usize,
    /// Deliveries were left out: none after them may be acknowledged.
    stalled: bool,
}

/// A device's state between two commits.
struct Engine {
    config: ClientConfig,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    random: Random,
    device: DeviceRecord,
    session: Option<Session>,
    to_link: VecDeque<FromClient>,
    queue: EventQueue,
    status: watch::Sender<Status>,
    outbox: Outbox,
    requests: Requests,
    waiters: HashMap<MessageId, Vec<Reply<Outcome>>>,
    last_outgoing: u64,
    last_inbox: u64,
    inbox_len: usize,
    /// Inbox entries up to this one were put into the event queue.
    shown: u64,
    /// Those of them that are not done.
    shown_open: BTreeSet<u64>,
    /// Deliveries that wait for room in the inbox.
    deferred: VecDeque<Delivery>,
    /// Devices that were heard of in this run.
    heard_of: HashSet<SignalAddress>,
    key_work: keys::KeyWork,
    housekeeping: Instant,
    turn: Turn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_comes_just_as_the_engine_ends_is_not_waited_for() {
        let (commands, receiver) = mpsc::channel(1);
        let (reply, answered) = oneshot::channel();
        let place = commands.reserve().await.unwrap();
        drop(receiver);
        place.send(Command::Done { seq: 1, reply });
        assert!(answer(&commands, answered).await.is_none());
    }

    #[tokio::test]
    async fn an_answer_counts_though_the_engine_has_ended_since() {
        let (commands, mut receiver) = mpsc::channel(1);
        let (reply, answered) = oneshot::channel();
        commands.send(Command::Done { seq: 1, reply }).await.unwrap_or_else(|_| panic!("the engine is there"));
        let Some(Command::Done { reply, .. }) = receiver.recv().await else { panic!("another command") };
        reply.send(Ok(())).unwrap();
        drop(receiver);
        assert!(matches!(answer(&commands, answered).await, Some(Ok(()))));
    }
}
