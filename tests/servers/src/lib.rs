//! Real PostgreSQL, Redis and S3 servers for tests, each in a folder and on a port of its own.
//!
//! ```no_run
//! # fn main() -> Result<(), causeway_test_servers::ServerError> {
//! let postgres = causeway_test_servers::Postgres::start()?;
//! let url = postgres.create_database()?; // postgres://causeway@127.0.0.1:21034/test_1
//! # let _ = url; Ok(()) }
//! ```
//!
//! Everything blocks: in async code, call it through `spawn_blocking`. Dropping a server kills it and removes its folder. A
//! process that is killed takes its servers with it (`setpriv --pdeathsig`), and what it left in the folder for
//! temporary files is swept away by the next one that starts a server. Nothing is shared between servers but the template
//! of a new PostgreSQL cluster (`target/test-servers`), so any number of test processes may start theirs at once.

mod bucket;
mod error;
mod folder;
mod port;
mod postgres;
mod process;
mod redis;

pub use bucket::Bucket;
pub use error::ServerError;
pub use folder::Folder;
pub use port::Port;
pub use postgres::pair::PostgresPair;
pub use postgres::wire::{Row, Session};
pub use postgres::{Options, Postgres};
pub use process::{Process, command, spawn};
pub use redis::cluster::RedisCluster;
pub use redis::sentinel::Sentinel;
pub use redis::wire::Reply;
pub use redis::{Redis, RedisOptions};
