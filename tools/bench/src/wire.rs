//! Wires: Causeway's, and those of servers to compare with.

pub(crate) mod causeway;
pub(crate) mod mark;
pub(crate) mod mqtt;
pub(crate) mod tls;
pub(crate) mod xmpp;
