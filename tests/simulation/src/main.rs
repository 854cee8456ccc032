//! Deterministic simulation of delivery.
fn main() {}
