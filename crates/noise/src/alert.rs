//! What a server says before it closes, outside the encryption (docs/protocol.md, section 2).

/// An alert: a frame of length zero, one byte of code, two bytes of detail.
///
/// Alerts are not authenticated. A client may use one for diagnosis, to wait, or to fall back from IK to XX, and for
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// 1: the opening names a version, pattern or suite that the server does not speak.
    Version,
    /// 2: the handshake failed.
    Handshake,
    /// 3: the server takes no more connections now.
    Overloaded {
        /// Seconds to wait before the next attempt.
        retry_after_s: u16,
    },
    /// 4: the IK message was not made for the server's present static key; use XX.
    UseXx,
    /// A code that this version does not know: like [`Alert::Handshake`] for whoever gets it.
    Unknown {
        /// The code on the wire.
        code: u8,
        /// The detail on the wire.
        detail: u16,
    },
}

impl Alert {
    /// Bytes of an alert on the wire.
    pub const LEN: usize = 5;

    /// The five bytes on the wire: length zero, code, detail (big-endian).
    pub const fn encode(self) -> [u8; Self::LEN] {
        let (code, detail) = match self {
            Self::Version => (1, 0),
            Self::Handshake => (2, 0),
            Self::Overloaded { retry_after_s } => (3, retry_after_s),
            Self::UseXx => (4, 0),
            Self::Unknown { code, detail } => (code, detail),
        };
        let [high, low] = detail.to_be_bytes();
        [0, 0, code, high, low]
    }

    /// The alert with this code and detail. Detail that a known code does not define is ignored.
    pub const fn decode(code: u8, detail: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Handshake,
            3 => Self::Overloaded { retry_after_s: detail },
            4 => Self::UseXx,
            code => Self::Unknown { code, detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_survives_the_wire() {
        for alert in [
            Alert::Version,
            Alert::Handshake,
            Alert::Overloaded { retry_after_s: 0x1234 },
            Alert::UseXx,
            Alert::Unknown { code: 9, detail: 7 },
        ] {
            let [a, b, code, high, low] = alert.encode();
            assert_eq!((a, b), (0, 0));
            assert_eq!(Alert::decode(code, u16::from_be_bytes([high, low])), alert);
        }
        assert_eq!(Alert::Overloaded { retry_after_s: 258 }.encode(), [0, 0, 3, 1, 2]);
    }
}
