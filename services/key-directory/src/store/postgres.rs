//! [`Store`](super::Store) on PostgreSQL.

pub(crate) mod change_log;
