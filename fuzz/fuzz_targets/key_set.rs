//! A provider's key set: the document of the usable keys gives the same keys.
#![no_main]

use causeway_identity::KeySet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(document) = std::str::from_utf8(data) else { return };
    if let Ok(keys) = KeySet::from_jwks(document) {
        let written = keys.to_jwks();
        assert_eq!(KeySet::from_jwks(&written).map(|keys| keys.to_jwks()), Ok(written));
    }
});
