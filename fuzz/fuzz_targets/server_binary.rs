//! What a server sends, in BINARY: whatever is accepted means the same in both encodings.
#![no_main]

use causeway_fuzz::server_agrees;
use causeway_stanza::{Encoding, decode_server};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(stanza) = decode_server(Encoding::Binary, data) {
        server_agrees(&stanza);
    }
});
