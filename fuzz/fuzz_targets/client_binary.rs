//! What a client sends, in BINARY: whatever is accepted means the same in both encodings.
#![no_main]

use causeway_fuzz::client_agrees;
use causeway_stanza::{Encoding, decode_client};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(stanza) = decode_client(Encoding::Binary, data) {
        client_agrees(&stanza);
    }
});
