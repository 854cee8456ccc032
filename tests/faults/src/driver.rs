//! Who takes part in a run: providers, accounts, devices; and the phases that it goes through.

pub mod controls;
pub mod providers;
pub mod world;
