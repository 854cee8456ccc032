//! What a server sends, in XML: whatever is accepted means the same in both encodings.
#![no_main]

use causeway_fuzz::server_agrees;
use causeway_stanza::{Encoding, decode_server};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(stanza) = decode_server(Encoding::Xml, data) {
        server_agrees(&stanza);
    }
});
