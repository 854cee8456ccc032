//! How a service of Causeway starts and stops. Mechanism only: no domain type enters this crate.
//!
//! - [`budget`]: a bound on what is held at a time;
//! - [`config`]: one typed, checked structure a service, from a TOML file and the environment;
//! - [`clock`]: time as an argument, so that tests can set it;
//! - [`health`]: what works, for probes and people;
//! - [`lifecycle`]: tracked tasks, drain, deadline;
//! - [`grpc`]: gRPC over TCP or, in one process, by plain calls, with the same client types;
//! - [`planted`]: bugs on purpose, in no release;
//! - [`rarely`]: waiting for what hardly ever happens;
//! - [`secret_file`]: secrets come from files that only their owner reads;
//! - [`sentence`]: failures as one sentence for a person;
//! - [`telemetry`]: logs to standard error;
//! - [`tls`]: who a process is, and what that lets it do.

pub mod budget;
pub mod clock;
pub mod config;
pub mod grpc;
pub mod health;
pub mod lifecycle;
pub mod planted;
pub mod rarely;
pub mod secret_file;
pub mod sentence;
pub mod telemetry;
pub mod tls;
