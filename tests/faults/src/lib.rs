//! The ledger test: load, faults on purpose, and the checker of the delivery contract.

pub mod checker;
pub mod client;
pub mod cluster;
pub mod driver;
pub mod events;
pub mod ledger;
pub mod nemesis;
pub mod preload;
pub mod proxy;
pub mod report;
pub mod scan;
pub mod workload;
