//! Networks that are allowed although they are not public.

use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    first: IpAddr,
    length: u8,
}

impl Network {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.length);
                first.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.length);
                first.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// `address/length`: the first address of a private block (RFC 1918, RFC 4193). Loopback and link-local addresses, where
/// machines keep what is for themselves, never are one.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, length) = text.split_once('/').ok_or(())?;
        let (first, length): (IpAddr, u8) = (first.parse().map_err(drop)?, length.parse().map_err(drop)?);
        let (own, aligned) = match first {
            IpAddr::V4(v4) => {
                let bits = v4.to_bits();
                (v4.is_private() && (8..=32).contains(&length), bits.trailing_zeros() >= 32 - u32::from(length.min(32)))
            }
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                (
                    v6.is_unique_local() && (7..=128).contains(&length),
                    bits.trailing_zeros() >= 128 - u32::from(length.min(128)),
                )
            }
        };
        if own && aligned { Ok(Self { first, length }) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_private_blocks_and_hold_what_is_in_them() {
        let network: Network = "172.28.0.0/24".parse().unwrap();
        for (address, inside) in [
            ("172.28.0.0", true),
            ("172.28.0.255", true),
            ("172.28.1.0", false),
            ("172.27.255.255", false),
            ("::ffff:172.28.0.1", false),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address}");
        }
        let six: Network = "fd00:1::/32".parse().unwrap();
        assert!(six.contains("fd00:1::5".parse().unwrap()) && !six.contains("fd00:2::5".parse().unwrap()));
        for good in ["10.0.0.0/8", "192.168.1.7/32", "fd12::1/128"] {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.0/8",
            "169.254.0.0/16",
            "169.254.169.254/32",
            "0.0.0.0/0",
            "8.8.8.0/24",
            "10.0.0.0/7",
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "::1/128",
            "fe80::/10",
            "::ffff:10.0.0.0/104",
            "2000::/3",
            "x/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
