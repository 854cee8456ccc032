//! How services use Redis, or Valkey, which speaks the same protocol: version 7 or later, as one server, behind
//! Sentinel, or as a Cluster.
//!
//! Redis is a hint or a brake here, never the truth (docs/replicas.md). So everything that is asked of it is bounded: a
//! command takes at most its time-out, also while the connection is being made anew, and fails at once while Redis is
//! known to be away. What a service does then is the service's decision: the table in docs/redis.md.
//!
//! Every command and script touches one key. So nothing has to lie in the same slot of a Cluster, and no key needs a
//! hash tag.
//!
//! Where things are: [`RedisConfig`] is read and checked, [`Redis`] is the handle, `keeper` makes and watches over its
//! connection, `connect` knows the three kinds of deployment, [`Health`] says how it is, [`WakeUps`] are hints over
//! publish and subscribe, [`counters`] are rates that replicas share.

mod config;
mod connect;
pub mod counters;
mod error;
mod handle;
mod health;
mod keeper;
mod policy;
mod script;
#[cfg(test)]
mod tests;
mod wake_ups;

pub use redis::{Cmd, FromRedisValue, Value, cmd};

pub use self::config::{RedisConfig, RedisMode};
pub use self::error::{OpenError, RedisError};
pub use self::handle::{Holds, Redis};
pub use self::health::Health;
pub use self::script::Script;
pub use self::wake_ups::WakeUps;
