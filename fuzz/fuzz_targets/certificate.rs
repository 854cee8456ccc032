//! Server certificates: nothing verifies but what the root signed.
#![no_main]

use causeway_fuzz::{AUDIENCE, Provider, now};
use causeway_identity::{RootKey, ServerCertificate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(certificate) = ServerCertificate::from_bytes(data) else { return };
    let again = ServerCertificate::from_bytes(&certificate.to_bytes());
    assert_eq!(again.as_ref(), Ok(&certificate));
    let root = RootKey::from_seed([5; 32]).public();
    let verified = certificate.verify(&[root], AUDIENCE, &Provider::default().noise_key, now());
    // The seeds hold the only body that this root has signed; protobuf has no second spelling of it that is signed.
    if verified.is_ok() {
        let honest = include_bytes!("../corpus/certificate/signed");
        assert_eq!(ServerCertificate::from_bytes(honest), Ok(certificate));
    }
});
