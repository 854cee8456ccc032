//! What Causeway promises, tested on the whole of it: a file per scenario.

mod burst;
mod command_lines;
mod consent;
mod conversation;
mod delivery_trace;
mod dependency_rules;
mod devices;
mod encodings;
mod garbage;
mod interop;
mod login;
mod media;
mod mutual_tls;
mod network;
mod offline;
mod operators_view;
mod providers;
mod replicas;
mod restore;
mod rolling_restart;
mod stopping;
mod stores_lost;
mod telemetry;
mod upgrades;
