//! What clients do.

pub(crate) mod bits;
pub(crate) mod claims;
pub(crate) mod drain;
pub(crate) mod logins;
mod opening;
pub(crate) mod storm;
pub(crate) mod talk;
