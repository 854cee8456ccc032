//! Depth, counted while the bytes of a record are still coming in.

use super::MAX_DEPTH;
use crate::error::{Problem, StanzaError};

/// Watches the bytes of one XML record as they arrive, in pieces of any size, so that a flood of start tags is refused
/// at the 17th and not after 256 KiB of them. It judges nothing else: the record still has to be parsed.
#[derive(Debug, Default)]
pub struct DepthWatch {
    depth: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Between tags.
    #[default]
    Text,
    /// Behind a `<`.
    Opening,
    /// In a start tag; the last byte was a `/`.
    Start { slash: bool },
    /// In an attribute value.
    Quoted(u8),
    /// In an end tag.
    End,
}

impl DepthWatch {
    /// Takes the next bytes of the record.
    ///
    /// # Errors
    /// [`Problem::Depth`] as soon as the 17th start tag inside each other begins; [`Problem::Doctype`] and
    /// [`Problem::Instruction`] at a `<!` or `<?`, which no stanza has.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), StanzaError> {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Text, b'<') => State::Opening,
                (State::Text, _) => State::Text,
                (State::Opening, b'/') => State::End,
                (State::Opening, b'!') => return Err(Problem::Doctype.into()),
                (State::Opening, b'?') => return Err(Problem::Instruction.into()),
                (State::Opening, _) => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(Problem::Depth.into());
                    }
                    State::Start { slash: false }
                }
                (State::Start { slash }, b'>') => {
                    if slash {
                        self.depth -= 1;
                    }
                    State::Text
                }
                (State::Start { .. }, quote @ (b'"' | b'\'')) => State::Quoted(quote),
                (State::Start { .. }, b'/') => State::Start { slash: true },
                (State::Start { .. }, _) => State::Start { slash: false },
                (State::Quoted(quote), byte) if byte == quote => State::Start { slash: false },
                (quoted @ State::Quoted(_), _) => quoted,
                (State::End, b'>') => {
                    self.depth = self.depth.saturating_sub(1);
                    State::Text
                }
                (State::End, _) => State::End,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed_each(text: &str) -> Result<usize, (usize, Problem)> {
        let mut watch = DepthWatch::default();
        for (index, byte) in text.bytes().enumerate() {
            watch.feed(&[byte]).map_err(|error| (index, error.problem()))?;
        }
        Ok(watch.depth)
    }

    #[test]
    fn the_seventeenth_start_tag_is_refused_when_it_begins() {
        assert_eq!(feed_each(&"<a>".repeat(16)), Ok(16));
        assert_eq!(feed_each(&"<a>".repeat(30_000)), Err((16 * 3 + 1, Problem::Depth)));
        assert_eq!(feed_each("<?xml?>"), Err((1, Problem::Instruction)));
        assert_eq!(feed_each("<!DOCTYPE"), Err((1, Problem::Doctype)));
    }

    #[test]
    fn closed_elements_do_not_count() {
        assert_eq!(feed_each(&"<a></a>".repeat(100)), Ok(0));
        assert_eq!(feed_each(&"<a b='/>' c=\"<\" />".repeat(100)), Ok(0));
        assert_eq!(feed_each("</a></a><b>"), Ok(1));
    }
}
