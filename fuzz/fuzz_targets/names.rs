//! Addresses and domains: an accepted one has one spelling, which is accepted as itself.
#![no_main]

use causeway_identity::{Address, DeviceAddress, Domain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = text.parse::<Domain>() {
        assert_eq!(domain.as_str().parse(), Ok(domain));
    }
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.as_str().parse(), Ok(address));
    }
    if let Ok(address) = text.parse::<DeviceAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
});
