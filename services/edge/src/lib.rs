//! Client connections: Noise, token check, sessions, flow control
