//! Payloads of the handshake: what is accepted is written and read again as the same.
#![no_main]

use causeway_stanza::hello::failure_reason;
use causeway_stanza::{ClientHello, ServerHello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match ClientHello::decode(data) {
        Ok(hello) => assert_eq!(ClientHello::decode(&hello.clone().encode()), Ok(hello)),
        Err(error) => {
            failure_reason(&error);
        }
    }
    if let Ok(hello) = ServerHello::decode(data) {
        assert_eq!(ServerHello::decode(&hello.clone().encode()), Ok(hello));
    }
});
