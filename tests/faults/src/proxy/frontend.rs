//! Finds COMMITs in what a client says to PostgreSQL.

use std::collections::HashSet;
use std::ops::Range;

/// The state of one connection's stream, client to server.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    state: State,
    /// Type, length and the first bytes of the message that is being read.
    head: Vec<u8>,
    /// Bytes of this message that are still to come.
    left: usize,
    /// Where the message that is being read began, in bytes since the connection did.
    began: u64,
    /// Bytes that were read.
    read: u64,
    /// Prepared statements and portals that are a COMMIT.
    statements: HashSet<Vec<u8>>,
    portals: HashSet<Vec<u8>>,
    /// Where an executed COMMIT began that waits for its Sync.
    executed: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Messages without a type: startup, or what is asked before it.
    #[default]
    Start,
    Messages,
    /// Encrypted, or no PostgreSQL.
    Unknown,
}

impl Frontend {
    /// Reads the next piece; gives where in it the first COMMIT is, Sync included. It begins at 0 if it began earlier.
    pub(super) fn read(&mut self, piece: &[u8]) -> Option<Range<usize>> {
        let before = self.read;
        let mut found = None;
        let mut rest = piece;
        while !rest.is_empty() && self.state != State::Unknown {
            if self.head.is_empty() {
                self.began = self.read;
            }
            let header = if self.state == State::Start { START_HEADER } else { HEADER };
            if self.head.len() < header {
                let taken = rest.len().min(header - self.head.len());
                self.take(&mut rest, taken);
                if self.head.len() < header {
                    break;
                }
                self.left = match self.length() {
                    // The length counts itself, not the type.
                    Some(length) => length,
                    None => {
                        self.state = State::Unknown;
                        break;
                    }
                };
            }
            let kept = self.left.min(HEAD.saturating_sub(self.head.len())).min(rest.len());
            self.take(&mut rest, kept);
            self.left -= kept;
            // The rest of a long message is of no interest.
            let skipped = if self.head.len() >= HEAD { self.left.min(rest.len()) } else { 0 };
            rest = &rest[skipped..];
            self.read += skipped as u64;
            self.left -= skipped;
            if self.left > 0 {
                break;
            }
            if let Some(began) = self.message()
                && found.is_none()
            {
                let relative = |position: u64| position.saturating_sub(before) as usize;
                found = Some(relative(began)..relative(self.read));
            }
            self.head.clear();
        }
        found
    }

    fn take(&mut self, rest: &mut &[u8], count: usize) {
        let (taken, left) = rest.split_at(count);
        self.head.extend_from_slice(taken);
        self.read += count as u64;
        *rest = left;
    }

    /// Of the message that `head` begins, without what of it is in the header.
    fn length(&self) -> Option<usize> {
        let at = usize::from(self.state != State::Start);
        let length = u32::from_be_bytes(self.head.get(at..at + 4)?.try_into().ok()?) as usize;
        (4..=MAX_MESSAGE).contains(&length).then_some(length - 4)
    }

    /// A message is complete; gives where a COMMIT began that it completes.
    fn message(&mut self) -> Option<u64> {
        if self.state == State::Start {
            let code = self.head.get(4..8).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
            self.state = match code {
                Some(STARTUP) => State::Messages,
                // Questions about encryption, answered with no.
                Some(SSL_REQUEST | GSS_REQUEST | CANCEL) => State::Start,
                _ => State::Unknown,
            };
            return None;
        }
        let (kind, body) = (self.head[0], self.head.get(HEADER..).unwrap_or_default());
        let mut words = body.split(|byte| *byte == 0);
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match kind {
            b'Q' if is_commit(first) => return Some(self.began),
            // Name, statement.
            b'P' => change(&mut self.statements, first, is_commit(second)),
            // Portal, name of the statement.
            b'B' => {
                let commits = self.statements.contains(second);
                change(&mut self.portals, first, commits);
            }
            b'E' if self.portals.contains(first) => self.executed = self.executed.or(Some(self.began)),
            b'S' => return self.executed.take(),
            _ => {}
        }
        None
    }
}

fn change(names: &mut HashSet<Vec<u8>>, name: &[u8], commits: bool) {
    if !commits {
        names.remove(name);
    } else if names.len() < MAX_NAMES {
        names.insert(name.to_vec());
    }
}

fn is_commit(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii();
    let begins = |word: &[u8]| sql.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    begins(b"COMMIT") || begins(b"END")
}

/// Type and length.
const HEADER: usize = 5;
/// Length only.
const START_HEADER: usize = 4;
/// So much of a message is looked at.
const HEAD: usize = 256;
const MAX_MESSAGE: usize = 1 << 30;
const MAX_NAMES: usize = 64;
const STARTUP: u32 = 196_608;
const CANCEL: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn start() -> Vec<u8> {
        let ssl = [&8_u32.to_be_bytes()[..], &SSL_REQUEST.to_be_bytes()].concat();
        let parameters = b"user\0causeway\0database\0test_1\0\0";
        let length = u32::try_from(parameters.len() + 8).unwrap();
        [&ssl[..], &length.to_be_bytes(), &STARTUP.to_be_bytes(), parameters].concat()
    }

    fn started() -> Frontend {
        let mut frontend = Frontend::default();
        assert_eq!(frontend.read(&start()), None);
        frontend
    }

    #[test]
    fn a_simple_commit_is_found_where_it_is() {
        let mut frontend = started();
        let other = message(b'Q', b"INSERT INTO t VALUES ('COMMIT')\0");
        let commit = message(b'Q', b"COMMIT\0");
        let piece = [&other[..], &commit, &other].concat();
        assert_eq!(frontend.read(&piece), Some(other.len()..other.len() + commit.len()));
        assert_eq!(frontend.read(&other), None);
    }

    #[test]
    fn an_executed_commit_ends_with_its_sync() {
        let mut frontend = started();
        let prepare = message(b'P', b"s1\0commit\0\0\0");
        let bind = message(b'B', b"\0s1\0\0\0\0\0\0\0");
        let execute = message(b'E', b"\0\0\0\0\0");
        let sync = message(b'S', b"");
        assert_eq!(frontend.read(&[&prepare[..], &sync].concat()), None);
        let piece = [&bind[..], &execute, &sync].concat();
        assert_eq!(frontend.read(&piece), Some(bind.len()..piece.len()));
        let bind_other = message(b'B', b"\0s2\0\0\0\0\0\0\0");
        assert_eq!(frontend.read(&[&bind_other[..], &execute, &sync].concat()), None);
    }

    #[test]
    fn long_messages_are_passed_over() {
        let mut frontend = started();
        let long = message(b'Q', &[b'x'; 100_000]);
        let commit = message(b'Q', b"COMMIT\0");
        assert_eq!(frontend.read(&long[..7]), None);
        assert_eq!(frontend.read(&long[7..]), None);
        assert_eq!(frontend.read(&commit), Some(0..commit.len()));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_say_the_same(sizes in proptest::collection::vec(1_usize..40, 1..200)) {
            let commit = message(b'Q', b"COMMIT\0");
            let other = message(b'Q', &[b'y'; 300]);
            let stream = [&start()[..], &other, &commit, &other, &commit].concat();
            let (mut frontend, mut position, mut ends) = (Frontend::default(), 0, Vec::new());
            for size in sizes.iter().cycle() {
                let piece = &stream[position..stream.len().min(position + size)];
                if let Some(range) = frontend.read(piece) {
                    ends.push(position + range.end);
                }
                position += piece.len();
                if position == stream.len() { break }
            }
            let first = start().len() + other.len() + commit.len();
            prop_assert_eq!(ends, [first, first + other.len() + commit.len()]);
        }

        #[test]
        fn anything_can_be_said(stream in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut frontend = Frontend::default();
            if let Some(range) = frontend.read(&stream) {
                prop_assert!(range.start <= range.end && range.end <= stream.len());
            }
        }
    }
}
