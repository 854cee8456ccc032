//! Claims, and headers, under a good signature: what a provider gone bad can send.
//!
//! Input: length of the header (big-endian u16; 0 is the usual one), the header, the claims.
#![no_main]

use causeway_fuzz::{ISSUER, Provider};
use causeway_identity::token::{MAX_LIFETIME, peek, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [high, low, rest @ ..] = data else { return };
    let header_len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (header, claims) = rest.split_at(header_len);
    let provider = Provider::default();
    let usual = provider.header();
    let token = provider.mint(if header.is_empty() { usual.as_bytes() } else { header }, claims);
    let head = peek(&token);
    if let Ok(verified) = verify(&token, &provider.keys, &provider.expected()) {
        assert!(head.is_ok_and(|head| head.issuer == ISSUER && head.kid == "k1"));
        assert_eq!(verified.address().provider(), "birdy.example");
        let lifetime = verified.expires_at().duration_since(verified.issued_at());
        assert!(lifetime.is_ok_and(|lifetime| lifetime <= MAX_LIFETIME));
    }
});
