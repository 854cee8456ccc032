//! Protobuf's wire format: tags, varints and lengths; no copies.

use crate::error::Problem;

/// One field as it stands in a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) number: u32,
    pub(crate) value: RawValue<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum RawValue<'a> {
    Varint(u64),
    /// Eight bytes.
    Fixed64,
    /// Four bytes.
    Fixed32,
    /// A length, then as many bytes: text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

/// The fields of one message, in order. After an error it is over.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<Raw<'a>, Problem> {
        let key = varint(&mut self.rest)?;
        let number = u32::try_from(key >> 3).map_err(|_| Problem::Protobuf)?;
        if number == 0 || number >= 1 << 29 {
            return Err(Problem::Protobuf);
        }
        let value = match key & 7 {
            0 => RawValue::Varint(varint(&mut self.rest)?),
            1 => {
                take(&mut self.rest, 8)?;
                RawValue::Fixed64
            }
            2 => {
                let length = varint(&mut self.rest)?;
                RawValue::Bytes(take(&mut self.rest, length)?)
            }
            3 | 4 => return Err(Problem::Group),
            5 => {
                take(&mut self.rest, 4)?;
                RawValue::Fixed32
            }
            _ => return Err(Problem::Protobuf),
        };
        Ok(Raw { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Raw<'a>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Packed numbers.
pub(crate) struct Packed<'a> {
    rest: &'a [u8],
}

impl<'a> Packed<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Packed<'_> {
    type Item = Result<u64, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = varint(&mut self.rest);
        if number.is_err() {
            self.rest = &[];
        }
        Some(number)
    }
}

/// Reads a varint of at most 10 bytes and 64 bits.
fn varint(rest: &mut &[u8]) -> Result<u64, Problem> {
    let mut value = 0;
    for (index, byte) in rest.iter().copied().enumerate().take(10) {
        // The tenth byte has room for one bit.
        if index == 9 && byte > 1 {
            return Err(Problem::Protobuf);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(Problem::Protobuf)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Problem> {
    let length = usize::try_from(length).map_err(|_| Problem::Protobuf)?;
    let (taken, left) = rest.split_at_checked(length).ok_or(Problem::Protobuf)?;
    *rest = left;
    Ok(taken)
}

/// Writes fields, each in full: zeros are not left out.
pub(crate) mod write {
    use prost::encoding::{WireType, encode_key, encode_varint};

    pub(crate) fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }

    pub(crate) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
        encode_key(number, WireType::LengthDelimited, out);
        encode_varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}
