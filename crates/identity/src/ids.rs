//! Opaque identifiers. Each is a type of its own, so that one cannot be taken for another.

use std::fmt;
use std::str::FromStr;

/// Why bytes or text are not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Binary ids are exactly 16 bytes.
    #[error("an id must be 16 bytes, got {0}")]
    Length(usize),
    /// Textual ids are exactly 32 lower-case hex digits.
    #[error("an id must be 32 lower-case hex digits")]
    Hex,
    /// Device ids are 1..=2^31-1.
    #[error("a device id must be between 1 and 2147483647")]
    Device,
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes, as they stand on the wire and in stores.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::Length(bytes.len()))
            }
        }

        /// Parses 32 lower-case hex digits: one id has one spelling.
        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let canonical = text.len() == 32
                    && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !canonical {
                    return Err(IdError::Hex);
                }
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::Hex)?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }
    };
}

id16! {
    /// An account, as stores, logs and Signal sessions know it: assigned at enlistment, never used again.
    AccountId
}
id16! {
    /// A message: 16 random bytes made by its sender.
    MessageId
}
id16! {
    /// One connection of one device, from login to end.
    SessionId
}
id16! {
    /// A provider, as stores and logs know it.
    ProviderId
}

/// A device of an account: 1..=2^31-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(u32);

impl DeviceId {
    /// At most this many devices belong to an account at a time.
    pub const MAX_PER_ACCOUNT: usize = 16;

    /// The device id with this number.
    ///
    /// # Errors
    /// [`IdError::Device`] for 0 and above 2^31-1.
    pub const fn new(number: u32) -> Result<Self, IdError> {
        if number == 0 || number > i32::MAX as u32 {
            return Err(IdError::Device);
        }
        Ok(Self(number))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for DeviceId {
    type Error = IdError;

    fn try_from(number: u32) -> Result<Self, IdError> {
        Self::new(number)
    }
}

/// Parses decimal digits without sign or leading zero.
impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let canonical =
            !text.is_empty() && text.len() <= 10 && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        if !canonical {
            return Err(IdError::Device);
        }
        text.parse().map_err(|_| IdError::Device).and_then(Self::new)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id: MessageId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
        for wrong in ["", "00", "000102030405060708090A0B0C0D0E0F", "000102030405060708090a0b0c0d0e0g"] {
            assert_eq!(wrong.parse::<MessageId>(), Err(IdError::Hex), "{wrong}");
        }
        assert_eq!(MessageId::try_from(&[0_u8; 15][..]), Err(IdError::Length(15)));
    }

    #[test]
    fn device_ids_are_canonical_decimals_in_range() {
        assert_eq!("2147483647".parse::<DeviceId>().unwrap().get(), 2_147_483_647);
        for wrong in ["", "0", "01", "-1", "+1", " 1", "1 ", "1e0", "2147483648", "99999999999", "١"] {
            assert_eq!(wrong.parse::<DeviceId>(), Err(IdError::Device), "{wrong}");
        }
    }
}
