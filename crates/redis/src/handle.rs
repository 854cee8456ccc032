//! The handle that services hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use causeway_runtime::config::Check as _;
use causeway_runtime::telemetry::instruments::Store;
use redis::{Cmd, ErrorKind, FromRedisValue, Value};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::config::RedisConfig;
use crate::connect::Connector;
use crate::error::{OpenError, RedisError};
use crate::health::Health;
use crate::keeper::{Keeper, Link, NOT_YET};
use crate::script::Script;
use crate::wake_ups::WakeUps;

/// One Redis, for one part of the system. Cloning gives another handle; the connection closes with the last one.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

/// What a part keeps in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// What must not be forgotten before its time: Redis must neither evict nor, when it starts anew, be empty.
    Spendings,
    /// What may be forgotten at any time.
    Hints,
}

struct Inner {
    connector: Arc<Connector>,
    link: watch::Receiver<Option<Arc<Link>>>,
    health: watch::Receiver<Health>,
    permits: Semaphore,
    prefix: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    keeper: AbortHandle,
}

impl Redis {
    /// Checks the settings and starts to connect in the background; Redis need not be there yet. `part` names the
    /// service in logs.
    ///
    /// # Errors
    /// [`OpenError`] for a setting or a file that cannot be used.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn open(config: &RedisConfig, part: &'static str, holds: Holds) -> Result<Self, OpenError> {
        config.check()?;
        let connector = Arc::new(Connector::new(config)?);
        let (link_sender, link) = watch::channel(None);
        let not_yet = Health::Degraded { since: Instant::now(), why: NOT_YET.to_owned() };
        let (health_sender, health) = watch::channel(not_yet);
        let keeper = Keeper {
            connector: Arc::clone(&connector),
            connect_timeout: config.connect_timeout(),
            command_timeout: config.command_timeout(),
            probe_key: format!("{}:probe", config.key_prefix),
            part,
            holds,
            link: link_sender,
            health: health_sender,
        };
        let keeper = tokio::spawn(keeper.run()).abort_handle();
        Ok(Self(Arc::new(Inner {
            connector,
            link,
            health,
            permits: Semaphore::new(MAX_UNDER_WAY),
            prefix: config.key_prefix.clone(),
            connect_timeout: config.connect_timeout(),
            command_timeout: config.command_timeout(),
            keeper,
        })))
    }

    /// How it is, now and when that changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.clone()
    }

    /// Whether it answers and takes writes, as far as is known.
    pub fn is_up(&self) -> bool {
        self.0.health.borrow().is_up()
    }

    /// Resolves once Redis answers.
    pub async fn wait_until_up(&self) {
        let mut health = self.health();
        // An error: the keeper has ended, which it does with the last handle only.
        drop(health.wait_for(Health::is_up).await);
    }

    /// A key's whole name: prefix, kind and `name`.
    pub fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.0.prefix)
    }

    /// The longest time that a command takes.
    pub fn command_timeout(&self) -> Duration {
        self.0.command_timeout
    }

    /// Runs a command that touches one key. Dropping the future does not take a command back that was sent.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let answer = self.execute(command, self.deadline()).await?;
        T::from_redis_value(answer).map_err(|_| RedisError::Shape)
    }

    /// Runs a script over one key.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &str,
        args: &[Vec<u8>],
    ) -> Result<T, RedisError> {
        let deadline = self.deadline();
        let answer = match self.execute(&script.by_hash(key, args), deadline).await {
            Err(RedisError::Refused(text)) if is_unknown_script(&text) => {
                self.execute(&script.by_text(key, args), deadline).await?
            }
            answer => answer?,
        };
        T::from_redis_value(answer).map_err(|_| RedisError::Shape)
    }

    /// Runs several commands in one go; each touches one key. The answers come in the order of the commands.
    ///
    /// # Errors
    /// [`RedisError`] when none was answered; else each has its own answer.
    pub async fn run_all(&self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        self.execute_all(commands, self.deadline()).await
    }

    /// Runs a script over several keys, each on its own, in one go.
    ///
    /// # Errors
    /// [`RedisError`] when none was answered; else each has its own answer.
    pub async fn script_all(
        &self,
        script: &Script,
        calls: &[(String, Vec<Vec<u8>>)],
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let deadline = self.deadline();
        let by_hash: Vec<Cmd> = calls.iter().map(|(key, args)| script.by_hash(key, args)).collect();
        let mut answers = self.execute_all(by_hash, deadline).await?;
        let unknown = |answer: &Result<Value, RedisError>| matches!(answer, Err(RedisError::Refused(text)) if is_unknown_script(text));
        let again: Vec<usize> = (0..answers.len()).filter(|&at| unknown(&answers[at])).collect();
        if again.is_empty() {
            return Ok(answers);
        }
        let by_text = again.iter().filter_map(|&at| calls.get(at)).map(|(key, args)| script.by_text(key, args));
        let by_text: Vec<Cmd> = by_text.collect();
        for (at, answer) in again.into_iter().zip(self.execute_all(by_text, deadline).await?) {
            answers[at] = answer;
        }
        Ok(answers)
    }

    /// Wakes those who wait on the channel, at other processes too. They may miss it.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn wake(&self, channel: &str) -> Result<(), RedisError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.key("wake", channel)).arg(1);
        self.run::<Value>(&publish).await.map(drop)
    }

    /// Listens to a channel from now on, over a connection of its own.
    pub fn wake_ups(&self, channel: &str) -> WakeUps {
        let inner = &self.0;
        WakeUps::start(Arc::clone(&inner.connector), self.key("wake", channel), inner.connect_timeout)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.0.command_timeout
    }

    fn link(&self) -> Result<Arc<Link>, RedisError> {
        self.0.link.borrow().as_ref().filter(|link| !link.is_broken()).map(Arc::clone).ok_or(RedisError::Away)
    }

    async fn execute(&self, command: &Cmd, deadline: Instant) -> Result<Value, RedisError> {
        let since = Instant::now();
        let answer = self.ask(command, deadline).await;
        Store::REDIS.waited("command", since.elapsed(), answer.is_err());
        answer
    }

    async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Value, RedisError> {
        let link = self.link()?;
        let Ok(Ok(_permit)) = timeout_at(deadline, self.0.permits.acquire()).await else {
            return Err(RedisError::Away);
        };
        match timeout_at(deadline, link.connection.run(command)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(judge(&link, &error)),
            Err(_) => {
                link.doubt();
                Err(RedisError::Unknown)
            }
        }
    }

    async fn execute_all(
        &self,
        commands: Vec<Cmd>,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let since = Instant::now();
        let answers = self.ask_all(commands, deadline).await;
        Store::REDIS.waited("commands", since.elapsed(), answers.is_err());
        answers
    }

    async fn ask_all(
        &self,
        commands: Vec<Cmd>,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let (link, count) = (self.link()?, commands.len());
        let Ok(Ok(_permit)) = timeout_at(deadline, self.0.permits.acquire()).await else {
            return Err(RedisError::Away);
        };
        match timeout_at(deadline, link.connection.run_all(commands)).await {
            Ok(Ok(answers)) if answers.len() == count => {
                let judged = answers.into_iter().map(|answer| match answer.extract_error() {
                    Ok(answer) => Ok(answer),
                    Err(error) => Err(judge(&link, &error)),
                });
                Ok(judged.collect())
            }
            Ok(Ok(_)) => Err(RedisError::Shape),
            Ok(Err(error)) => Err(judge(&link, &error)),
            Err(_) => {
                link.doubt();
                Err(RedisError::Unknown)
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

/// Commands that are under way at a time; more wait, no longer than their time-out.
const MAX_UNDER_WAY: usize = 1_024;

/// What an error means for the command and for the connection.
fn judge(link: &Link, error: &redis::RedisError) -> RedisError {
    if let Some([(_, refusal), ..]) = error.clone().into_server_errors().as_deref() {
        match refusal.code() {
            // It is no primary any more, is one no longer reachable, or wants us to log in again.
            "READONLY" | "MASTERDOWN" | "LOADING" | "NOAUTH" => link.break_off(),
            "CLUSTERDOWN" | "OOM" | "MISCONF" | "NOREPLICAS" | "TRYAGAIN" | "MOVED" => link.doubt(),
            _ => {}
        }
        return RedisError::Refused(format!("{} {}", refusal.code(), refusal.details().unwrap_or_default()));
    }
    match error.kind() {
        ErrorKind::ClusterConnectionNotFound => {
            link.doubt();
            RedisError::Away
        }
        ErrorKind::Client | ErrorKind::InvalidClientConfig | ErrorKind::UnexpectedReturnType => {
            RedisError::Refused(error.category().to_owned())
        }
        _ if error.is_timeout() => {
            link.doubt();
            RedisError::Unknown
        }
        _ => {
            match link.connection {
                // One node of many: the client makes that connection anew, and the keeper has a look at all.
                crate::connect::Connection::Cluster(_) => link.doubt(),
                crate::connect::Connection::One(_) => link.break_off(),
            }
            RedisError::Unknown
        }
    }
}

fn is_unknown_script(refusal: &str) -> bool {
    refusal.starts_with("NOSCRIPT")
}
