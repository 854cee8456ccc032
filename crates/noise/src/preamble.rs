//! The eight bytes that open a connection (docs/protocol.md, section 2). They are also the Noise prologue, so whoever
//! changes them on the way breaks the handshake.
//!
//! A new pattern or suite is a variant here, a byte in its two tables, and a name in [`noise_name`].

/// Which handshake the client starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// First contact: the client learns the server's static key.
    Xx,
    /// The client knows the server's static key and sends its hello at once.
    Ik,
}

/// Which cipher a session uses. The hash is SHA-256 in both, because one static key must not serve two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Suite {
    /// `25519_AESGCM_SHA256`
    #[default]
    AesGcm,
    /// `25519_ChaChaPoly_SHA256`
    ChaChaPoly,
}

/// The opening of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preamble {
    /// The handshake pattern.
    pub pattern: Pattern,
    /// The cipher suite.
    pub suite: Suite,
}

/// The opening is none that this version speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// The first four bytes are not `CWAY`: another protocol.
    #[error("the connection does not open with CWAY")]
    Magic,
    /// Another version than 1.
    #[error("protocol version {0} is not supported")]
    Version(u8),
    /// An unknown handshake pattern.
    #[error("handshake pattern {0} is not supported")]
    Pattern(u8),
    /// An unknown cipher suite.
    #[error("cipher suite {0} is not supported")]
    Suite(u8),
    /// Flags are set, and none is defined.
    #[error("flags {0:#04x} are not supported")]
    Flags(u8),
}

impl Preamble {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// The eight bytes on the wire.
    pub const fn encode(self) -> [u8; Self::LEN] {
        let pattern = match self.pattern {
            Pattern::Xx => XX,
            Pattern::Ik => IK,
        };
        let suite = match self.suite {
            Suite::AesGcm => AES_GCM,
            Suite::ChaChaPoly => CHACHA_POLY,
        };
        let [c, w, a, y] = MAGIC;
        [c, w, a, y, VERSION, pattern, suite, NO_FLAGS]
    }

    /// Reads the opening from what has arrived so far; `None` while bytes are missing and those that are there are good.
    ///
    /// # Errors
    /// At the first byte that is wrong, without waiting for the rest: whoever speaks another protocol may never send
    /// eight bytes.
    pub fn decode(arrived: &[u8]) -> Result<Option<Self>, PreambleError> {
        let magic_len = arrived.len().min(MAGIC.len());
        if arrived[..magic_len] != MAGIC[..magic_len] {
            return Err(PreambleError::Magic);
        }
        if let Some(&version) = arrived.get(4)
            && version != VERSION
        {
            return Err(PreambleError::Version(version));
        }
        let pattern = match arrived.get(5) {
            None => return Ok(None),
            Some(&XX) => Pattern::Xx,
            Some(&IK) => Pattern::Ik,
            Some(&other) => return Err(PreambleError::Pattern(other)),
        };
        let suite = match arrived.get(6) {
            None => return Ok(None),
            Some(&AES_GCM) => Suite::AesGcm,
            Some(&CHACHA_POLY) => Suite::ChaChaPoly,
            Some(&other) => return Err(PreambleError::Suite(other)),
        };
        match arrived.get(7) {
            None => Ok(None),
            Some(&NO_FLAGS) => Ok(Some(Self { pattern, suite })),
            Some(&flags) => Err(PreambleError::Flags(flags)),
        }
    }
}

/// The Noise protocol name of a pattern in a suite.
pub(crate) const fn noise_name(pattern: Pattern, suite: Suite) -> &'static str {
    match (pattern, suite) {
        (Pattern::Xx, Suite::AesGcm) => "Noise_XX_25519_AESGCM_SHA256",
        (Pattern::Xx, Suite::ChaChaPoly) => "Noise_XX_25519_ChaChaPoly_SHA256",
        (Pattern::Ik, Suite::AesGcm) => "Noise_IK_25519_AESGCM_SHA256",
        (Pattern::Ik, Suite::ChaChaPoly) => "Noise_IK_25519_ChaChaPoly_SHA256",
    }
}

const MAGIC: [u8; 4] = *b"CWAY";
const VERSION: u8 = 1;
const XX: u8 = 0;
const IK: u8 = 1;
const AES_GCM: u8 = 0;
const CHACHA_POLY: u8 = 1;
const NO_FLAGS: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const ALL: [Preamble; 4] = [
        Preamble { pattern: Pattern::Xx, suite: Suite::AesGcm },
        Preamble { pattern: Pattern::Xx, suite: Suite::ChaChaPoly },
        Preamble { pattern: Pattern::Ik, suite: Suite::AesGcm },
        Preamble { pattern: Pattern::Ik, suite: Suite::ChaChaPoly },
    ];

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let preamble = Preamble { pattern: Pattern::Ik, suite: Suite::ChaChaPoly };
        assert_eq!(preamble.encode(), [0x43, 0x57, 0x41, 0x59, 1, 1, 1, 0]);
    }

    #[test]
    fn what_is_written_is_read_in_any_number_of_pieces() {
        for preamble in ALL {
            let bytes = preamble.encode();
            for arrived in 0..Preamble::LEN {
                assert_eq!(Preamble::decode(&bytes[..arrived]), Ok(None));
            }
            assert_eq!(Preamble::decode(&bytes), Ok(Some(preamble)));
        }
    }

    #[test]
    fn every_other_value_of_every_byte_is_refused_at_that_byte() {
        let good = ALL[0].encode();
        for at in 0..Preamble::LEN {
            for value in 0..=255 {
                let mut bytes = good;
                bytes[at] = value;
                let known = value == good[at] || ((at == 5 || at == 6) && value == 1);
                assert_eq!(Preamble::decode(&bytes[..=at]).is_ok(), known, "byte {at} is {value}");
            }
        }
    }
}
