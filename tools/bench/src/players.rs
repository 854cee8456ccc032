//! What clients do.

pub(crate) mod bits;
pub(crate) mod claims;
mod course;
pub(crate) mod drain;
pub(crate) mod logins;
mod opening;
pub(crate) mod storm;
pub(crate) mod talk;
