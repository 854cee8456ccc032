//! Records: any plaintext in pieces of any size gives the same records and the same error.
//!
//! Input: size of the pieces, limit of a record (256 times this many bytes), then the plaintext.
#![no_main]

use causeway_noise::testing::records;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [size, limit, plaintext @ ..] = data else { return };
    let limit = 256 * usize::from(*limit);
    let (whole, error) = records(plaintext, plaintext.len(), limit);
    assert!(whole.iter().all(|record| (1..=limit).contains(&record.len())));
    assert!(whole.iter().map(|record| 1 + record.len()).sum::<usize>() <= plaintext.len());
    assert_eq!(records(plaintext, usize::from(*size), limit), (whole, error));
});
