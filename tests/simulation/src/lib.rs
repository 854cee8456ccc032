//! Deterministic simulation of delivery: real edge and routing code, simulated network and time.
