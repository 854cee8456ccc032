//! The connection: one task that dials, logs in, carries stanzas both ways, and dials again.
//!
//! It knows nothing of messages. What it is told to send it sends once; what must be sent again after a loss, the engine
//! knows.

mod backoff;
mod dial;
mod session;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{DeviceId, NoiseKey};
use causeway_noise::StaticKey;
use causeway_stanza::{EndReason, FailureReason, FromClient, FromServer, Success};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::backoff::Backoff;
pub use self::backoff::reconnect_pause;
use self::tokens::Tokens;
use crate::clock::Clock;
use crate::config::ClientConfig;
use crate::event::{DisconnectReason, Disconnected, Ended};
use crate::random::Random;
use crate::token::TokenSource;

/// Stanzas that wait between the engine and the connection, each way.
const CHANNEL: usize = 128;
/// A session that lasted this long ends a series of failures.
const GOOD_SESSION: Duration = Duration::from_secs(5);

/// What the connection tells the engine.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A session is open.
    Up(Box<Up>),
    /// The server says something.
    Stanza(Box<FromServer>),
    /// The token will expire soon; this one should be presented.
    FreshToken(String),
    /// The session is over, or could not be opened; the next attempt comes.
    Down(Disconnected),
    /// No attempt will ever succeed.
    Ended(Ended),
}

/// A session that was opened.
#[derive(Debug)]
pub(crate) struct Up {
    /// Counts sessions; what is sent names the one it is for.
    pub(crate) generation: u64,
    /// What the server said.
    pub(crate) success: Success,
    /// The server's key, verified.
    pub(crate) server_key: NoiseKey,
    /// By IK.
    pub(crate) resumed: bool,
    /// Local clock minus server's, milliseconds.
    pub(crate) clock_ahead_ms: i64,
    /// Largest record that the server takes.
    pub(crate) max_record: usize,
}

/// The engine's end.
pub(crate) struct Link {
    /// What to send, and in which session; what is late for its session is dropped.
    pub(crate) outgoing: mpsc::Sender<(u64, FromClient)>,
    /// What happens.
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    /// Over when the goodbye has been said.
    pub(crate) task: JoinHandle<()>,
}

/// Everything that a connection needs.
pub(crate) struct LinkParts {
    pub(crate) config: ClientConfig,
    pub(crate) key: StaticKey,
    pub(crate) server_key: Option<NoiseKey>,
    /// To log in with, if the device is enlisted.
    pub(crate) device: Option<DeviceId>,
    pub(crate) tokens: Arc<dyn TokenSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
}

/// Starts to connect. It stops when the engine's end is dropped.
pub(crate) fn start(parts: LinkParts) -> Link {
    let (outgoing, to_send) = mpsc::channel(CHANNEL);
    let (events, happened) = mpsc::channel(CHANNEL);
    let backoff = Backoff::new(parts.config.timing.backoff_first, parts.config.timing.backoff_longest);
    let tokens = Tokens::new(parts.tokens, *parts.key.public(), Arc::clone(&parts.clock));
    let runner = Runner {
        config: parts.config,
        key: parts.key,
        server_key: parts.server_key,
        device: parts.device,
        tokens,
        clock: parts.clock,
        random: parts.random,
        backoff,
        events,
        to_send,
        generation: 0,
        clock_ahead_ms: None,
    };
    let task = tokio::spawn(runner.run());
    Link { outgoing, events: happened, task }
}

/// How a session, or the attempt to open one, came to its end.
enum Over {
    /// Try again.
    Again {
        reason: DisconnectReason,
        /// The server asks for at least this pause.
        pause: Option<Duration>,
    },
    /// Never try again.
    Never(Ended),
    /// The engine is gone.
    Unwanted,
}

impl Over {
    fn again(reason: DisconnectReason) -> Self {
        Self::Again { reason, pause: None }
    }
}

struct Runner {
    config: ClientConfig,
    key: StaticKey,
    server_key: Option<NoiseKey>,
    /// To log in with. Known here as soon as the server has said it: a session that is opened before the engine has
    /// written it down would be that of no device, to which nothing is delivered.
    device: Option<DeviceId>,
    tokens: Tokens,
    clock: Arc<dyn Clock>,
    random: Random,
    backoff: Backoff,
    events: mpsc::Sender<LinkEvent>,
    to_send: mpsc::Receiver<(u64, FromClient)>,
    generation: u64,
    clock_ahead_ms: Option<i64>,
}

impl Runner {
    async fn run(mut self) {
        loop {
            let begun = Instant::now();
            let over = self.attempt().await;
            if begun.elapsed() >= GOOD_SESSION {
                self.backoff.reset();
            }
            let (reason, pause) = match over {
                Over::Again { reason, pause } => (reason, pause),
                Over::Never(ended) => {
                    // When nobody listens, nobody needs to know.
                    let _ = self.events.send(LinkEvent::Ended(ended)).await;
                    return;
                }
                Over::Unwanted => return,
            };
            let retry_in = self.backoff.next(pause, &mut self.random);
            let down = LinkEvent::Down(Disconnected { reason, retry_in, clock_ahead_ms: self.clock_ahead_ms });
            if self.events.send(down).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                () = self.events.closed() => return,
            }
        }
    }
}

/// What a refused login means for the next attempt. `fresh`: the token was new, so a newer one will not help.
fn after_failure(reason: FailureReason, fresh: bool) -> Over {
    use FailureReason as F;
    match reason {
        F::DeviceUnknown => Over::Never(Ended::DeviceRemoved),
        F::DeviceKey | F::Version | F::ProxyRefused => Over::Never(Ended::Login(reason)),
        F::TokenMalformed | F::TokenAudience | F::TokenIssuer | F::TokenBinding | F::TokenReplayed if fresh => {
            Over::Never(Ended::Login(reason))
        }
        F::Overloaded => Over::again(DisconnectReason::Overloaded),
        // Keys that have not spread yet, clocks, providers that come back: time may mend these.
        _ => Over::again(DisconnectReason::Login(reason)),
    }
}

/// What the server's `end` means for the next attempt.
fn after_end(reason: EndReason, retry_after_ms: u64) -> Over {
    match reason {
        EndReason::DeviceRemoved => Over::Never(Ended::DeviceRemoved),
        EndReason::Withdrawn => Over::Never(Ended::Withdrawn),
        EndReason::Replaced => Over::Never(Ended::Replaced),
        _ => Over::Again {
            reason: DisconnectReason::Server(reason),
            pause: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms)),
        },
    }
}
