//! Packets of MQTT 3.1.1.

use crate::engine::Ended;

/// Bytes that a packet has at most.
pub(super) const MOST: usize = 64 * 1024;

/// What a server sends, as far as a client needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'b> {
    /// The answer to a login.
    Connected {
        /// The server has kept what this client had subscribed to.
        kept: bool,
        /// 0: it is let in.
        code: u8,
    },
    /// The answer to a subscription; the quality of service that is given, or 0x80.
    Subscribed(u8),
    /// A message that was published at least once has come.
    Acknowledged(u16),
    /// A message.
    Published {
        /// To be acknowledged under this number, unless it is sent at most once.
        number: Option<u16>,
        /// What is in it.
        payload: &'b [u8],
    },
    /// Nothing to act on.
    Other,
}

/// The first packet of what came, and its length; `None` until more comes.
pub(super) fn packet(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Ended> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    let Some((length, digits)) = length(rest)? else { return Ok(None) };
    if length > MOST {
        return Err(Ended::Broken("the server's MQTT: a packet is too long".to_owned()));
    }
    let Some(body) = rest.get(digits..digits + length) else { return Ok(None) };
    let packet = read(*first, body).ok_or_else(|| Ended::Broken(format!("the server's MQTT: packet {first:#x}")))?;
    Ok(Some((packet, 1 + digits + length)))
}

fn read(first: u8, body: &[u8]) -> Option<Packet<'_>> {
    Some(match (first >> 4, body) {
        (2, [kept, code]) => Packet::Connected { kept: kept & 1 == 1, code: *code },
        (9, [_, _, given]) => Packet::Subscribed(*given),
        (4, [high, low]) => Packet::Acknowledged(u16::from_be_bytes([*high, *low])),
        (3, _) => {
            let (length, rest) = body.split_first_chunk()?;
            let (_topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            match (first >> 1) & 3 {
                0 => Packet::Published { number: None, payload: rest },
                1 => {
                    let (number, payload) = rest.split_first_chunk()?;
                    Packet::Published { number: Some(u16::from_be_bytes(*number)), payload }
                }
                _ => return None,
            }
        }
        (13, []) => Packet::Other,
        _ => return None,
    })
}

/// How long the rest of a packet is, and in how many bytes that is said.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Ended> {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Ended::Broken("the server's MQTT: a length".to_owned())) }
}

/// Writes a packet of this first byte and these parts.
pub(super) fn write(first: u8, parts: &[&[u8]], goes: &mut Vec<u8>) {
    goes.push(first);
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        goes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    for part in parts {
        goes.extend_from_slice(part);
    }
}

/// A text with its length before it; one that is too long for that is cut.
pub(super) fn text(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &text[..usize::from(length)]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_when_they_are_whole() {
        let mut bytes = Vec::new();
        write(0x20, &[&[1, 0]], &mut bytes);
        write(0x90, &[&[0, 1, 1]], &mut bytes);
        write(0x40, &[&[0x12, 0x34]], &mut bytes);
        write(0x32, &[&text(b"r7"), &[0, 9], &[5; 300]], &mut bytes);
        write(0x30, &[&text(b"s1"), &[6; 16]], &mut bytes);
        write(0xd0, &[], &mut bytes);
        let expected = [
            Packet::Connected { kept: true, code: 0 },
            Packet::Subscribed(1),
            Packet::Acknowledged(0x1234),
            Packet::Published { number: Some(9), payload: &[5; 300] },
            Packet::Published { number: None, payload: &[6; 16] },
            Packet::Other,
        ];
        for cut in 0..=bytes.len() {
            let (mut rest, mut seen) = (&bytes[..cut], 0);
            while let Some((packet, length)) = packet(rest).unwrap() {
                assert_eq!(packet, expected[seen]);
                rest = &rest[length..];
                seen += 1;
            }
            assert!(seen < expected.len() || cut == bytes.len(), "{cut}");
        }
    }

    #[test]
    fn anything_else_is_an_error_and_no_panic() {
        let long = [0x30, 0xff, 0xff, 0xff, 0x7f];
        let no_end = [0x30, 0xff, 0xff, 0xff, 0xff];
        let topic = [0x30, 2, 0, 9];
        let twice = [0x34, 2, 0, 0];
        for bytes in [&long[..], &no_end, &topic, &twice, &[0x20, 1, 0], &[0x10, 0], &[0x32, 3, 0, 0, 1]] {
            assert!(packet(bytes).is_err(), "{bytes:?}");
        }
        for first in 0..=255 {
            for length in 0..20 {
                let _any = packet(&[&[first, length][..], &[first ^ length; 20]].concat());
            }
        }
        assert_eq!(text(&[1; 70_000]).len(), 2 + usize::from(u16::MAX));
    }
}
