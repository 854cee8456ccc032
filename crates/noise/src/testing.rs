//! The record reader without a session around it, for the fuzz targets: a handshake for each input would leave them no
//! time for records.

use crate::record::{Received, RecordError, RecordReader};

/// Feeds plaintext in pieces of `size` bytes to a record reader, and returns what it read and the error that ended it,
/// if one did. Keep-alives are left out, because those that arrive together count as one.
pub fn records(plaintext: &[u8], size: usize, limit: usize) -> (Vec<bytes::Bytes>, Option<RecordError>) {
    let mut reader = RecordReader::new(limit);
    let mut records = Vec::new();
    for piece in plaintext.chunks(size.max(1)) {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(Some(Received::Record(record))) => records.push(record),
                Ok(Some(Received::KeepAlive)) => {}
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
    }
    (records, None)
}
