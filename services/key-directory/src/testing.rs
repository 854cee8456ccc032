//! What tests of this crate share: keys as a phone makes them, a provider on real HTTP, a directory behind real gRPC.

mod deployment;
mod phone;
mod provider;

pub(crate) use deployment::{Deployment, error_of, refusal};
pub(crate) use phone::Phone;
pub(crate) use provider::{Mood, TestProvider};

/// Encodings of points of low order (RFC 7748, section 7): canonical ones, and p and p+1.
pub(crate) fn low_order_points() -> Vec<[u8; 32]> {
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    let with_first = |first: u8, mut bytes: [u8; 32]| {
        bytes[0] = first;
        bytes
    };
    let order_eight = |text: &str| hex::decode(text).expect("hex").try_into().expect("32 bytes");
    vec![
        [0; 32],
        with_first(1, [0; 32]),
        order_eight("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        order_eight("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        with_first(0xec, p),
        p,
        with_first(0xee, p),
    ]
}
