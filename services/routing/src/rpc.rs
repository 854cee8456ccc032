//! The calls that routing serves, a file each, and the conversions between generated and own types.

mod decode;
pub(crate) mod encode;
pub(crate) mod link;
pub(crate) mod peers;
pub(crate) mod traces;
