//! Which of several routings is responsible for an address: eight of them, and addresses that were seen before.

use std::collections::BTreeMap;
use std::hint::black_box;

use anyhow::Context as _;
use causeway_edge::rendezvous::Chosen;

const REPLICAS: u32 = 8;
const ADDRESSES: u32 = 64;

/// Looks `count` times.
pub(super) fn look_up(count: u32) -> anyhow::Result<()> {
    let names: BTreeMap<u32, String> = (1..=REPLICAS).map(|id| (id, format!("http://routing-{id}:7451"))).collect();
    let addresses: Vec<String> = (0..ADDRESSES).map(|n| format!("user{n}@birdy.example")).collect();
    let chosen = Chosen::default();
    for address in addresses.iter().cycle().take(count as usize) {
        let found = chosen.choose(&names, |name| Some(name.as_str()), black_box(address));
        black_box(found.context("nobody is responsible")?);
    }
    Ok(())
}
