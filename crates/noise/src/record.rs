//! Records: an unsigned varint length and that many bytes, in the stream that the plaintexts of one direction form
//! (docs/protocol.md, section 5). Records share Noise messages or span them; the boundaries mean nothing.

use bytes::{Buf, Bytes, BytesMut};

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A record of at least one byte: a stanza. Its memory is its own and hardly larger than it is.
    Record(Bytes),
    /// One or several empty records.
    KeepAlive,
}

/// Why a stream of records ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The announced length is over the limit, which is in bytes.
    #[error("a record is longer than {limit} bytes")]
    TooLarge {
        /// Largest record accepted, in bytes.
        limit: usize,
    },
    /// The length is not in its shortest form.
    #[error("a record's length is not in its shortest form")]
    NotMinimal,
}

/// Cuts a stream of plaintext into records.
#[derive(Debug)]
pub(crate) struct RecordReader {
    arrived: BytesMut,
    /// Something has been taken from `arrived`: its memory is larger than its capacity tells.
    taken: bool,
    limit: usize,
}

impl RecordReader {
    pub(crate) fn new(limit: usize) -> Self {
        Self { arrived: BytesMut::new(), taken: false, limit: limit.min(LARGEST_LIMIT) }
    }

    /// Where the next plaintext is appended.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.arrived
    }

    /// A record has begun and is not complete.
    pub(crate) fn is_partial(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// The next complete record, if there is one. A wrong length is an error as soon as it shows.
    pub(crate) fn next(&mut self) -> Result<Option<Received>, RecordError> {
        let empty_records = self.arrived.iter().take_while(|byte| **byte == 0).count();
        if empty_records > 0 {
            self.take(empty_records);
            return Ok(Some(Received::KeepAlive));
        }
        let Some((len, header)) = read_length(&self.arrived, self.limit)? else { return Ok(None) };
        let Some(record) = self.arrived.get(header..header + len) else { return Ok(None) };
        if !self.taken && self.arrived.len() == header + len && self.arrived.capacity() <= header + len + SPARE {
            // One record in one message, which is what most are: the buffer itself is handed out.
            self.arrived.advance(header);
            return Ok(Some(Received::Record(std::mem::take(&mut self.arrived).freeze())));
        }
        // Copied, not shared: a short record that is kept for long must not keep a whole message's buffer alive.
        let record = Bytes::copy_from_slice(record);
        self.take(header + len);
        Ok(Some(Received::Record(record)))
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.arrived.capacity()
    }

    /// Lets go of what has been read. An idle reader holds nothing.
    fn take(&mut self, len: usize) {
        self.arrived.advance(len);
        self.taken = !self.arrived.is_empty();
        if !self.taken {
            self.arrived = BytesMut::new();
        }
    }
}

/// Appends a record to `out`; an empty one is a keep-alive.
#[cfg(test)]
pub(crate) fn write(out: &mut BytesMut, record: &[u8]) {
    write_with(out, record.len(), |out| out.extend_from_slice(record));
}

/// Appends a record of `len` bytes, which `write` appends.
pub(crate) fn write_with(out: &mut BytesMut, len: usize, write: impl FnOnce(&mut BytesMut)) {
    out.reserve(MAX_HEADER + len);
    let mut rest = len;
    while rest >= 0x80 {
        out.extend_from_slice(&[(rest & 0x7f) as u8 | 0x80]);
        rest >>= 7;
    }
    out.extend_from_slice(&[rest as u8]);
    let end = out.len() + len;
    write(out);
    // Whatever was written, the next record begins where this one says.
    out.resize(end, 0);
}

/// The length at the front and the bytes it takes, `None` while its last byte is missing.
fn read_length(bytes: &[u8], limit: usize) -> Result<Option<(usize, usize)>, RecordError> {
    let mut len = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let shift = 7 * index;
        let bits = usize::from(byte & 0x7f);
        // A further byte is at least one, so the length is already known to be this much.
        let last = byte & 0x80 == 0;
        let at_least = if last { bits << shift } else { (bits << shift).max(0x80 << shift) };
        if len + at_least > limit {
            return Err(RecordError::TooLarge { limit });
        }
        if last && bits == 0 && index > 0 {
            return Err(RecordError::NotMinimal);
        }
        len += bits << shift;
        if last {
            return Ok(Some((len, index + 1)));
        }
    }
    Ok(None)
}

/// No limit is larger, so that the arithmetic on lengths never is.
const LARGEST_LIMIT: usize = 1 << 30;

/// Bytes of the largest length.
pub(crate) const MAX_HEADER: usize = 10;

/// Memory that a record may have beyond its bytes.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 262_144;

    #[test]
    fn the_limit_is_accepted_and_one_more_is_not() {
        let mut out = BytesMut::new();
        write(&mut out, &vec![1; LIMIT]);
        let mut reader = RecordReader::new(LIMIT);
        reader.buffer().extend_from_slice(&out);
        assert_eq!(reader.next(), Ok(Some(Received::Record(Bytes::from(vec![1; LIMIT])))));
        assert_eq!(reader.held(), 0, "what a burst needed is given back");
        for len in [LIMIT + 1, 1 << 21, 1 << 32, 1 << 62] {
            let mut reader = RecordReader::new(LIMIT);
            let mut rest = len;
            while rest >= 0x80 {
                reader.buffer().extend_from_slice(&[(rest & 0x7f) as u8 | 0x80]);
                rest >>= 7;
            }
            reader.buffer().extend_from_slice(&[rest as u8]);
            assert_eq!(reader.next(), Err(RecordError::TooLarge { limit: LIMIT }), "{len}");
        }
    }

    #[test]
    fn a_length_has_one_spelling_and_no_endless_one() {
        for (bytes, expected) in [
            (&[0x81, 0x00][..], Err(RecordError::NotMinimal)),
            (&[0x80, 0x00], Err(RecordError::NotMinimal)),
            (&[0xff, 0x80, 0x00], Err(RecordError::NotMinimal)),
            (&[0x80; 3], Err(RecordError::TooLarge { limit: LIMIT })),
            (&[0x80; 10], Err(RecordError::TooLarge { limit: LIMIT })),
            (&[0xff; 11], Err(RecordError::TooLarge { limit: LIMIT })),
            (&[0x80, 0x80], Ok(None)),
            (&[0x80, 0x80, 0x10], Ok(Some((LIMIT, 3)))),
            (&[0x81, 0x80, 0x10], Err(RecordError::TooLarge { limit: LIMIT })),
        ] {
            assert_eq!(read_length(bytes, LIMIT), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn no_limit_makes_the_arithmetic_overflow() {
        for limit in [0, 1, 127, 128, u32::MAX as usize, usize::MAX] {
            for bytes in [[0xff; 16], [0x80; 16], [0x81; 16]] {
                let mut reader = RecordReader::new(limit);
                reader.buffer().extend_from_slice(&bytes);
                assert_eq!(reader.next(), Err(RecordError::TooLarge { limit: limit.min(LARGEST_LIMIT) }));
            }
        }
    }

    #[test]
    fn a_record_alone_in_its_message_is_not_copied_and_others_keep_no_buffer_alive() {
        let (mut alone, mut two) = (BytesMut::new(), BytesMut::new());
        write(&mut alone, &[1; 300]);
        write(&mut two, &[1; 60_000]);
        write(&mut two, &[2; 100]);

        let mut reader = RecordReader::new(LIMIT);
        reader.buffer().extend_from_slice(&alone);
        let at = reader.buffer()[2..].as_ptr();
        let Ok(Some(Received::Record(record))) = reader.next() else { panic!("a record is due") };
        assert_eq!((record.as_ptr(), reader.held()), (at, 0));

        reader.buffer().extend_from_slice(&two);
        let buffer = reader.buffer().as_ptr_range();
        for len in [60_000, 100] {
            let Ok(Some(Received::Record(record))) = reader.next() else { panic!("a record is due") };
            assert!(record.len() == len && !buffer.contains(&record.as_ptr()), "{len}");
        }
        assert_eq!(reader.held(), 0);

        // Neither does one after a keep-alive, nor is one copied that comes after them.
        reader.buffer().extend_from_slice(&[0; 60_000]);
        reader.buffer().extend_from_slice(&alone);
        let buffer = reader.buffer().as_ptr_range();
        assert_eq!(reader.next(), Ok(Some(Received::KeepAlive)));
        let Ok(Some(Received::Record(record))) = reader.next() else { panic!("a record is due") };
        assert!(!buffer.contains(&record.as_ptr()));
        reader.buffer().extend_from_slice(&alone);
        let at = reader.buffer()[2..].as_ptr();
        let Ok(Some(Received::Record(record))) = reader.next() else { panic!("a record is due") };
        assert_eq!(record.as_ptr(), at);
    }

    #[test]
    fn keep_alives_in_a_row_are_one() {
        let mut reader = RecordReader::new(LIMIT);
        reader.buffer().extend_from_slice(&[0; 5000]);
        reader.buffer().extend_from_slice(&[1, 9]);
        assert_eq!(reader.next(), Ok(Some(Received::KeepAlive)));
        assert_eq!(reader.next(), Ok(Some(Received::Record(Bytes::from_static(&[9])))));
        assert_eq!(reader.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_records(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..12),
            cut in 1_usize..200,
        ) {
            let mut stream = BytesMut::new();
            for record in &records {
                write(&mut stream, record);
            }
            let mut reader = RecordReader::new(300);
            let mut read = Vec::new();
            for piece in stream.chunks(cut) {
                reader.buffer().extend_from_slice(piece);
                while let Some(received) = reader.next().unwrap() {
                    read.push(received);
                }
            }
            prop_assert!(!reader.is_partial());
            let expected: Vec<_> = records.into_iter().map(|r| Received::Record(r.into())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut reader = RecordReader::new(64);
            reader.buffer().extend_from_slice(&bytes);
            while let Ok(Some(_)) = reader.next() {}
            prop_assert!(reader.buffer().len() <= bytes.len());
        }
    }
}
