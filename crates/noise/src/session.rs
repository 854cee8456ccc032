//! After the handshake: one [`Sender`] and one [`Receiver`] a side, which know of no socket.

use bytes::{Buf, BytesMut};

use crate::alert::Alert;
use crate::crypto::{Key, NoiseError, TAG};
use crate::frame::{self, FrameReader, Front, MAX_MESSAGE};
use crate::record::{self, Received, RecordError, RecordReader};

/// What a session may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest record accepted from the peer.
    pub receive_record: usize,
    /// Largest record sent to the peer.
    pub send_record: usize,
    /// Most bytes that wait to be written. A single record always fits into an empty queue.
    pub send_queue: usize,
}

impl Limits {
    /// What a server holds a session to by default: records of 256 KiB from the client, and twice that to it, because
    /// the same payload is larger when the recipient chose XML and gains the sender's address.
    pub const fn server() -> Self {
        Self { receive_record: 256 * 1024, send_record: 512 * 1024, send_queue: 1024 * 1024 }
    }

    /// The counterpart of [`Limits::server`] in a client.
    pub const fn client() -> Self {
        Self { receive_record: 512 * 1024, send_record: 256 * 1024, send_queue: 1024 * 1024 }
    }
}

/// The peer holds the private half of its static key now, and is no replay of an earlier connection: only the machines
/// of this crate make one, so what takes it cannot be done for a recording.
#[derive(Debug)]
pub struct Proved(());

/// Whether the peer's messages so far could be a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Live,
    /// A server after IK: only the client's next record shows that it is live.
    Replayable,
}

/// Why a session can receive no more. The first one is final: nothing that arrived after it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// A message did not authenticate: changed, repeated, left out or reordered on the way.
    #[error("a message did not authenticate")]
    Decrypt,
    /// The peer sent an alert, which is not authenticated.
    #[error("the peer sent an alert: {0:?}")]
    Alert(Alert),
    /// The stream of records is malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// This direction has used up its nonces.
    #[error("the session is used up")]
    Exhausted,
}

/// Why a record cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The record is longer than the peer accepts; the limit is in bytes.
    #[error("a record is longer than {limit} bytes")]
    TooLarge {
        /// [`Limits::send_record`].
        limit: usize,
    },
    /// [`Limits::send_queue`] is reached: write out what waits first.
    #[error("too much waits to be sent")]
    QueueFull,
    /// This direction has used up its nonces: start another session.
    #[error("the session is used up")]
    Exhausted,
}

/// Turns records into frames. Records queued between two calls of [`Sender::seal`] share as few Noise messages as
/// they fit into.
pub struct Sender {
    key: Key,
    nonce: u64,
    limits: Limits,
    /// Records that are not encrypted yet, less than a whole message, behind the room for a frame's header. Empty if there
    /// are none.
    plain: BytesMut,
    /// Frames that are not written yet.
    sealed: BytesMut,
}

impl Sender {
    pub(crate) fn new(key: Key, limits: Limits) -> Self {
        Self { key, nonce: 0, limits, plain: BytesMut::new(), sealed: BytesMut::new() }
    }

    /// Queues a record; an empty one is a keep-alive.
    ///
    /// # Errors
    /// [`SendError`]; after [`SendError::TooLarge`] and [`SendError::QueueFull`] nothing has changed.
    pub fn queue(&mut self, record: &[u8]) -> Result<(), SendError> {
        self.queue_with(record.len(), |room| room.extend_from_slice(record))
    }

    /// The same for a record of `len` bytes that `write` appends to what it is given: no copy is made of it. Should it
    /// append more or less, the record is cut or filled with zeros.
    ///
    /// # Errors
    /// As [`Sender::queue`]; then `write` is not called.
    pub fn queue_with(&mut self, len: usize, write: impl FnOnce(&mut BytesMut)) -> Result<(), SendError> {
        if len > self.limits.send_record {
            return Err(SendError::TooLarge { limit: self.limits.send_record });
        }
        let waiting = self.queued();
        if waiting > 0 && waiting + len > self.limits.send_queue {
            return Err(SendError::QueueFull);
        }
        if self.plain.is_empty() {
            // Records that share a message are more than one as a rule.
            self.plain.reserve((len + ROOM_AROUND).max(FIRST_ROOM));
            self.plain.extend_from_slice(&[0; frame::HEADER]);
        } else {
            self.plain.reserve(len + ROOM_AROUND);
        }
        record::write_with(&mut self.plain, len, write);
        while self.unsealed() >= MAX_PLAINTEXT {
            self.seal_first(MAX_PLAINTEXT)?;
        }
        Ok(())
    }

    /// Encrypts what is queued, so that [`Sender::sealed`] holds all of it.
    ///
    /// # Errors
    /// [`SendError::Exhausted`].
    pub fn seal(&mut self) -> Result<(), SendError> {
        match self.unsealed() {
            0 => Ok(()),
            len if !self.sealed.is_empty() => self.seal_first(len),
            len => {
                // Where it lies.
                let header = header(len);
                self.plain.reserve(TAG);
                self.key.seal(self.nonce, &mut self.plain, frame::HEADER).map_err(|_| SendError::Exhausted)?;
                self.plain[..frame::HEADER].copy_from_slice(&header);
                self.nonce += 1;
                self.sealed = std::mem::take(&mut self.plain);
                Ok(())
            }
        }
    }

    /// The bytes for the wire. Take from the front what was written.
    pub fn sealed(&mut self) -> &mut BytesMut {
        &mut self.sealed
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.unsealed() + self.sealed.len()
    }

    fn unsealed(&self) -> usize {
        self.plain.len().saturating_sub(frame::HEADER)
    }

    /// Gives memory back that an idle session does not need, and that it costs little to have again.
    pub fn rest(&mut self) {
        self.key.rest();
        self.shrink();
    }

    /// Sets the largest record that the peer accepts, in bytes, once it has said so.
    pub fn limit_records(&mut self, bytes: usize) {
        self.limits.send_record = bytes;
    }

    /// Gives the memory back once nothing waits to be written: an idle sender holds none.
    pub(crate) fn shrink(&mut self) {
        if self.sealed.is_empty() {
            self.sealed = BytesMut::new();
        }
    }

    /// Bytes of memory that its buffers hold.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.plain.capacity() + self.sealed.capacity()
    }

    fn seal_first(&mut self, bytes: usize) -> Result<(), SendError> {
        let start = self.sealed.len();
        self.sealed.reserve(frame::HEADER + bytes + TAG);
        self.sealed.extend_from_slice(&header(bytes));
        self.sealed.extend_from_slice(&self.plain[frame::HEADER..frame::HEADER + bytes]);
        if self.key.seal(self.nonce, &mut self.sealed, start + frame::HEADER).is_err() {
            // Only the nonce can be the reason.
            self.sealed.truncate(start);
            return Err(SendError::Exhausted);
        }
        self.nonce += 1;
        if bytes == self.unsealed() {
            self.plain = BytesMut::new();
        } else {
            // The end of what is sealed is the room before the rest.
            self.plain.advance(bytes);
        }
        Ok(())
    }
}

/// The header of a frame with a message of so much plaintext.
fn header(plaintext: usize) -> [u8; frame::HEADER] {
    frame::header(plaintext + TAG).expect("a limit on plaintext keeps every message within a frame")
}

/// What surrounds a record in its message at most: its length, and the message's tag.
const ROOM_AROUND: usize = frame::HEADER + record::MAX_HEADER + TAG;

/// Room for records that wait to be encrypted, at first.
const FIRST_ROOM: usize = 1024;

/// Turns frames into records.
pub struct Receiver {
    state: State,
}

enum State {
    Open(Box<Open>),
    Failed(ReceiveError, Peer),
}

struct Open {
    key: Key,
    nonce: u64,
    frames: FrameReader,
    records: RecordReader,
    peer: Peer,
}

impl Receiver {
    pub(crate) fn new(key: Key, frames: FrameReader, limits: Limits, peer: Peer) -> Self {
        let records = RecordReader::new(limits.receive_record);
        Self { state: State::Open(Box::new(Open { key, nonce: 0, frames, records, peer })) }
    }

    /// Takes bytes as they arrive, in pieces of any size. Call [`Receiver::next`] until it has no more before feeding
    /// again; then no more than one frame and one record wait here.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let State::Open(open) = &mut self.state {
            open.frames.feed(bytes);
        }
    }

    /// The next record, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// [`ReceiveError`]; the same one ever after.
    #[expect(clippy::should_implement_trait, reason = "None means not yet, so this is no iterator")]
    pub fn next(&mut self) -> Result<Option<Received>, ReceiveError> {
        let open = match &mut self.state {
            State::Open(open) => open,
            State::Failed(error, _) => return Err(*error),
        };
        let received = open.next();
        if let Err(error) = received {
            self.state = State::Failed(error, open.peer);
        }
        received
    }

    /// The proof that the peer is live: from the start, except for a server after IK, which has it from the client's
    /// first record on.
    pub fn proved(&self) -> Option<Proved> {
        let peer = match &self.state {
            State::Open(open) => open.peer,
            State::Failed(_, peer) => *peer,
        };
        match peer {
            Peer::Live => Some(Proved(())),
            Peer::Replayable => None,
        }
    }

    /// Gives memory back that an idle session does not need, and that it costs little to have again.
    pub fn rest(&mut self) {
        if let State::Open(open) = &mut self.state {
            open.key.rest();
        }
    }

    /// A frame or a record has begun and is not complete: its end deserves a deadline.
    pub fn is_partial(&self) -> bool {
        match &self.state {
            State::Open(open) => open.frames.buffered() > 0 || open.records.is_partial(),
            State::Failed(..) => false,
        }
    }

    /// Bytes of memory that its buffers hold.
    #[cfg(test)]
    pub(crate) fn held(&mut self) -> usize {
        match &mut self.state {
            State::Open(open) => open.frames.buffer().capacity() + open.records.held(),
            State::Failed(..) => 0,
        }
    }
}

impl Open {
    fn next(&mut self) -> Result<Option<Received>, ReceiveError> {
        loop {
            if let Some(received) = self.records.next()? {
                self.peer = Peer::Live;
                return Ok(Some(received));
            }
            let message = match self.frames.front() {
                None => return Ok(None),
                Some(Front::Alert(alert)) => return Err(ReceiveError::Alert(alert)),
                Some(Front::Message(message)) => message,
            };
            // From the frame's buffer into the record's: the cipher's pass is the only copy.
            self.key.open(self.nonce, message, self.records.buffer()).map_err(|error| match error {
                NoiseError::Exhausted => ReceiveError::Exhausted,
                _ => ReceiveError::Decrypt,
            })?;
            self.nonce += 1;
            self.frames.skip();
        }
    }
}

/// An established session.
pub struct Session {
    /// Our records to the peer.
    pub sender: Sender,
    /// The peer's records to us.
    pub receiver: Receiver,
}

/// Largest plaintext of one Noise message, in bytes.
const MAX_PLAINTEXT: usize = MAX_MESSAGE - TAG;

/// What the tests need: transport messages that are no records.
#[cfg(test)]
impl Session {
    pub(crate) fn seal_raw(&mut self, plaintext: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&header(plaintext.len())[..]);
        out.extend_from_slice(plaintext);
        self.sender.key.seal(self.sender.nonce, &mut out, frame::HEADER).unwrap();
        self.sender.nonce += 1;
        out
    }

    pub(crate) fn open_raw(&mut self, frame: &[u8]) -> BytesMut {
        let State::Open(open) = &mut self.receiver.state else { panic!("the session has failed") };
        let mut plaintext = BytesMut::new();
        open.key.open(open.nonce, &frame[2..], &mut plaintext).unwrap();
        open.nonce += 1;
        plaintext
    }

    pub(crate) fn set_nonces(&mut self, nonce: u64) {
        self.sender.nonce = nonce;
        let State::Open(open) = &mut self.receiver.state else { panic!("the session has failed") };
        open.nonce = nonce;
    }
}
