//! Who takes part in a run: providers, accounts, devices; and the phases that it goes through.

pub mod clustered;
pub mod controls;
pub mod plain;
pub mod providers;
pub mod run;
pub mod settings;
pub mod world;
