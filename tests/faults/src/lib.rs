//! The ledger test: load, faults on purpose, and the checker of the delivery contract.

pub mod client;
pub mod driver;
pub mod events;
pub mod ledger;
pub mod proxy;
pub mod workload;
