//! Frames: a big-endian u16 length and that many bytes, which are one Noise message; length zero marks an alert
//! (docs/protocol.md, section 2).

use bytes::{Buf, BytesMut};

use crate::alert::Alert;

/// Largest Noise message, and so the largest body of a frame, in bytes.
pub const MAX_MESSAGE: usize = 65_535;

/// One frame from the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A Noise message of 1 to [`MAX_MESSAGE`] bytes.
    Message(BytesMut),
    /// An alert.
    Alert(Alert),
}

/// A complete frame that is still in its buffer.
pub(crate) enum Front<'a> {
    Message(&'a [u8]),
    Alert(Alert),
}

/// Cuts a byte stream into frames.
///
/// Memory follows the bytes received, never the length announced: an incomplete frame holds what has arrived of it.
#[derive(Debug, Default)]
pub struct FrameReader {
    arrived: BytesMut,
}

impl FrameReader {
    /// Takes bytes as they arrive, in pieces of any size. Call [`FrameReader::next`] until it has no more before
    /// feeding again, and at most one incomplete frame stays behind.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
    }

    /// The next complete frame, if there is one.
    #[expect(clippy::should_implement_trait, reason = "None means not yet, so this is no iterator")]
    pub fn next(&mut self) -> Option<Frame> {
        let frame = match self.front()? {
            Front::Message(message) => Frame::Message(BytesMut::from(message)),
            Front::Alert(alert) => Frame::Alert(alert),
        };
        self.skip();
        Some(frame)
    }

    /// The next complete frame where it lies; [`FrameReader::skip`] goes on behind it.
    pub(crate) fn front(&self) -> Option<Front<'_>> {
        let announced = self.announced()?;
        if announced == 0 {
            let &[_, _, code, high, low] = self.arrived.first_chunk::<{ Alert::LEN }>()?;
            return Some(Front::Alert(Alert::decode(code, u16::from_be_bytes([high, low]))));
        }
        self.arrived.get(HEADER..HEADER + announced).map(Front::Message)
    }

    /// Leaves the complete frame at the front behind, if there is one.
    pub(crate) fn skip(&mut self) {
        let len = match self.front() {
            None => return,
            Some(Front::Message(message)) => HEADER + message.len(),
            Some(Front::Alert(_)) => Alert::LEN,
        };
        self.arrived.advance(len);
        if self.arrived.is_empty() {
            // The buffer goes with its last message: most connections are idle, and must not hold what a burst needed.
            self.arrived = BytesMut::new();
        }
    }

    /// Length that the frame at the front announces; 0 is an alert. `None` until both bytes are there.
    pub fn announced(&self) -> Option<usize> {
        self.arrived.first_chunk::<HEADER>().map(|length| usize::from(u16::from_be_bytes(*length)))
    }

    /// Bytes that have arrived and are in no frame that was handed out.
    pub fn buffered(&self) -> usize {
        self.arrived.len()
    }

    /// The raw buffer, for the preamble before the first frame.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.arrived
    }
}

/// A message that no frame can carry: empty, or longer than [`MAX_MESSAGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame carries 1 to 65535 bytes, not {0}")]
pub struct FrameLength(pub usize);

/// Appends a frame with this message to `out`.
///
/// # Errors
/// [`FrameLength`] if no frame can carry it.
pub fn write(out: &mut BytesMut, message: &[u8]) -> Result<(), FrameLength> {
    let header = header(message.len()).ok_or(FrameLength(message.len()))?;
    out.extend_from_slice(&header);
    out.extend_from_slice(message);
    Ok(())
}

/// The header of a frame with a body of this many bytes.
pub(crate) fn header(message_len: usize) -> Option<[u8; HEADER]> {
    u16::try_from(message_len).ok().filter(|len| *len != 0).map(u16::to_be_bytes)
}

/// Bytes of a frame before its message.
pub(crate) const HEADER: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_1_to_65535_bytes() {
        let mut out = BytesMut::new();
        assert_eq!(write(&mut out, &[]), Err(FrameLength(0)));
        assert_eq!(write(&mut out, &[0; MAX_MESSAGE + 1]), Err(FrameLength(MAX_MESSAGE + 1)));
        assert!(out.is_empty());
        write(&mut out, &[7; MAX_MESSAGE]).unwrap();
        let mut reader = FrameReader::default();
        reader.feed(&out);
        assert_eq!(reader.next(), Some(Frame::Message(BytesMut::from(&[7; MAX_MESSAGE][..]))));
        assert_eq!((reader.next(), reader.buffered()), (None, 0));
        assert_eq!(reader.buffer().capacity(), 0, "what a burst needed is given back");
    }

    #[test]
    fn an_announcement_commits_no_memory() {
        let mut reader = FrameReader::default();
        reader.feed(&[0xff, 0xff, 1, 2, 3]);
        assert_eq!(reader.next(), None);
        assert!(reader.buffer().capacity() < 1024);
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            frames in prop::collection::vec(any_frame(), 0..8),
            cuts in prop::collection::vec(1_usize..300, 1..64),
        ) {
            let mut stream = BytesMut::new();
            for frame in &frames {
                match frame {
                    Frame::Message(message) => write(&mut stream, message).unwrap(),
                    Frame::Alert(alert) => stream.extend_from_slice(&alert.encode()),
                }
            }
            let mut reader = FrameReader::default();
            let mut read = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let piece = stream.split_to((*cuts.next().unwrap()).min(stream.len()));
                reader.feed(&piece);
                while let Some(frame) = reader.next() {
                    read.push(frame);
                }
                prop_assert!(reader.buffered() < HEADER + MAX_MESSAGE);
            }
            prop_assert_eq!(read, frames);
            prop_assert_eq!(reader.buffered(), 0);
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 1..700).prop_map(|m| Frame::Message(BytesMut::from(&m[..]))),
            1 => (any::<u8>(), 0_u16..400).prop_map(|(code, detail)| {
                let detail = if matches!(code, 1 | 2 | 4) { 0 } else { detail };
                Frame::Alert(Alert::decode(code, detail))
            }),
        ]
    }
}
