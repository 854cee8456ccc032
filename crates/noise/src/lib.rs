//! Noise handshakes, frames and records as state machines, and the thin tokio transport over them
