//! Whole tokens: any text. None verifies but one whose signature is the provider's.
#![no_main]

use causeway_fuzz::{AUDIENCE, Provider};
use causeway_identity::token::{peek, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(token) = std::str::from_utf8(data) else { return };
    let provider = Provider::default();
    let head = peek(token);
    if verify(token, &provider.keys, &provider.expected()).is_ok() {
        let honest = provider.mint(provider.header().as_bytes(), provider.claims().to_string().as_bytes());
        assert_eq!((token, AUDIENCE), (honest.as_str(), "home.example"));
        assert!(head.is_ok());
    }
});
