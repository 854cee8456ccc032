//! The ledger test: load, faults on purpose, and the checker of the delivery contract.

pub mod events;
