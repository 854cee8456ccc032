//! The core paths. Each is done by way of public interfaces, so that a figure stays comparable however the inside changes.

mod claims;
mod logins;
mod lookups;
mod messages;
mod records;
mod routed;
mod stanzas;

use anyhow::Context as _;

/// Something that Causeway does very often.
pub(crate) struct CorePath {
    /// Short, in figures.toml.
    pub(crate) name: &'static str,
    /// Operations until everything is in place.
    pub(crate) warm_up: u32,
    /// Operations that are counted.
    pub(crate) counted: u32,
    run: fn(u32) -> anyhow::Result<()>,
}

impl CorePath {
    /// Sets up what is needed and does so many operations.
    pub(crate) fn run(&self, operations: u32) -> anyhow::Result<()> {
        (self.run)(operations)
    }
}

/// All of them; the counts of operations are multiples of what is done together.
pub(crate) const ALL: &[CorePath] = &[
    path("record-alone", 64, 1_024, |count| records::pass(count, 1)),
    path("record-of-32", 64, 1_024, |count| records::pass(count, 32)),
    path("stanzas-binary", 32, 256, stanzas::binary),
    path("stanzas-xml", 32, 256, stanzas::xml),
    path("look-up", 256, 4_096, lookups::look_up),
    path("routed-alone", 32, 512, |count| routed::delivered(count, 1)),
    path("routed-of-32", 64, 512, |count| routed::delivered(count, 32)),
    path("stored-of-32", 64, 512, |count| routed::stored(count, 32)),
    path("message-alone", 32, 512, |count| messages::exchange(count, 1)),
    path("message-of-32", 64, 512, |count| messages::exchange(count, 32)),
    path("login", 4, 32, logins::log_in),
    path("claim", 16, 160, claims::claim),
];

const fn path(name: &'static str, warm_up: u32, counted: u32, run: fn(u32) -> anyhow::Result<()>) -> CorePath {
    CorePath { name, warm_up, counted, run }
}

/// The path with this name.
pub(crate) fn find(name: &str) -> anyhow::Result<&'static CorePath> {
    let names: Vec<&str> = ALL.iter().map(|path| path.name).collect();
    ALL.iter().find(|path| path.name == name).with_context(|| format!("no path {name}: there are {}", names.join(", ")))
}
