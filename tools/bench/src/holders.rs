//! Sessions that further processes of this program hold: one process may have fewer descriptors than a scenario wants sessions.
//!
//! Such a process (`causeway-bench hold`, which no help names) gets its clients on its standard input, opens their sessions as any
//! player does, says on its standard output how far it is, and leaves when its standard input closes ([`lines`] has the format).

mod child;
mod lines;
mod parent;

use anyhow::ensure;
use rustix::process::{Resource, getrlimit};

pub(crate) use self::child::hold;
pub(crate) use self::lines::orders;
pub(crate) use self::parent::job;

/// Descriptors of a process that are not for sessions.
const SPARE: u64 = 500;

/// How many sessions one process can have here, whichever side it is on.
pub(crate) fn room() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(SPARE)).unwrap_or(usize::MAX).max(1)
}

/// How many processes are to have so many sessions, if each has this room; an error if those that are wanted are too few.
pub(crate) fn number(sessions: usize, room: usize, wanted: Option<usize>) -> anyhow::Result<usize> {
    let least = sessions.div_ceil(room).max(1);
    let number = wanted.unwrap_or(least);
    ensure!(number >= least, "{sessions} sessions need --generators {least}: a process has descriptors for {room}");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_it_takes() {
        let number = |sessions, wanted| number(sessions, 19_500, wanted).ok();
        assert_eq!(
            [0, 5_000, 19_500, 19_501, 100_000].map(|sessions| number(sessions, None)),
            [1, 1, 1, 2, 6].map(Some)
        );
        assert_eq!([3, 6].map(|wanted| number(5_000, Some(wanted))), [3, 6].map(Some));
        assert_eq!(number(100_000, Some(5)), None);
    }
}
