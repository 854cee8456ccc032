//! The frame reader: any split of a stream gives the same frames, and memory follows what has arrived.
#![no_main]

use causeway_noise::{Frame, FrameReader, MAX_MESSAGE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    let pieces = read(stream, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
});

fn read(stream: &[u8], size: usize) -> (Vec<Frame>, usize) {
    let mut reader = FrameReader::default();
    let mut frames = Vec::new();
    for piece in stream.chunks(size) {
        reader.feed(piece);
        while let Some(frame) = reader.next() {
            frames.push(frame);
        }
        assert!(reader.buffered() < 2 + MAX_MESSAGE);
    }
    (frames, reader.buffered())
}
