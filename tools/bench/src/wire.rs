//! Stanzas as the load needs them: made beforehand, and read no further than what is measured.

pub(crate) mod glance;
pub(crate) mod mark;
pub(crate) mod template;
