//! Whether Redis may forget what a part needs it to keep.

use std::time::Duration;

use redis::Value;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::handle::Holds;

/// What the operator has been told already.
#[derive(Debug, Default)]
pub(crate) struct Advice {
    evicts: bool,
    forgets: bool,
}

/// What a server says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) evicts: bool,
    pub(crate) forgets: bool,
}

impl Advice {
    /// Asks the server and warns, each thing once. A server that does not tell is not asked again before the next
    /// connection.
    pub(crate) async fn look(&mut self, connection: &Connection, part: &'static str, holds: Holds, wait: Duration) {
        if holds == Holds::Hints {
            return;
        }
        let mut seen = Seen::default();
        // Of a Cluster any of the nodes may answer: they should be set alike.
        for section in ["memory", "persistence"] {
            if let Ok(Ok(answer)) = timeout(wait, connection.info(section)).await {
                seen = Seen::of(&plain(answer)).or(&seen);
            }
        }
        if seen.evicts && !self.evicts {
            self.evicts = true;
            tracing::warn!(part, "redis may evict what must be remembered: set maxmemory-policy to noeviction");
        }
        if seen.forgets && !self.forgets {
            self.forgets = true;
            tracing::warn!(part, "redis forgets what is spent when it starts again: set appendonly to yes");
        }
    }
}

impl Seen {
    /// Either of the two.
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self { evicts: self.evicts || other.evicts, forgets: self.forgets || other.forgets }
    }

    pub(crate) fn of(info: &str) -> Self {
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim)
        };
        let bounded = field("maxmemory").is_some_and(|bytes| bytes != "0");
        let evicts = bounded && field("maxmemory_policy").is_some_and(|policy| policy != "noeviction");
        Self { evicts, forgets: field("aof_enabled") == Some("0") }
    }
}

pub(crate) fn plain(answer: Value) -> String {
    match answer {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_and_a_missing_log_are_seen() {
        let quiet = "# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n";
        assert_eq!(Seen::of(quiet), Seen::default(), "without a bound nothing is evicted");
        let evicts = "maxmemory:1048576\r\nmaxmemory_human:1.00M\r\nmaxmemory_policy:volatile-ttl\r\naof_enabled:0\r\n";
        assert_eq!(Seen::of(evicts), Seen { evicts: true, forgets: true });
        let kept = "maxmemory:1048576\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        assert_eq!(Seen::of(kept), Seen::default());
        assert_eq!(Seen::of("nothing is told"), Seen::default());
    }
}
