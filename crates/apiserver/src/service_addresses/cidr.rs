//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// A range of IPv4 addresses, as `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub(super) base: u32,
    prefix_bits: u8,
}

/// The text is no range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.96.0.0/16")]
pub struct ParseCidrError(String);

impl Cidr {
    /// The range whose addresses share their first bits with `base`. We give no IPv6 addresses: such a range is empty.
    pub fn new(base: impl Into<IpAddr>, prefix_bits: u8) -> Self {
        match base.into() {
            IpAddr::V4(base) => {
                let prefix_bits = prefix_bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
                Self { base: u32::from(base) & mask, prefix_bits }
            }
            IpAddr::V6(_) => Self { base: 0, prefix_bits: 32 },
        }
    }

    /// The first address that a Service can have: that of the `kubernetes` Service.
    pub fn first_address(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.base.wrapping_add(1)))
    }

    /// Whether the address lies in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ self.base).checked_shr(32 - u32::from(self.prefix_bits)).unwrap_or(0)
            == 0
    }

    pub(super) fn size(self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(u32::MAX)
    }

    /// Neither the base nor the broadcast address.
    pub(super) fn is_usable(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset >= 1 && offset < self.size().saturating_sub(1)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", Ipv4Addr::from(self.base), self.prefix_bits)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let read = || {
            let (base, bits) = text.split_once('/')?;
            let bits: u8 = bits.parse().ok().filter(|&bits| bits <= 32)?;
            Some(Self::new(base.parse::<Ipv4Addr>().ok()?, bits))
        };
        read().ok_or_else(|| ParseCidrError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_counted() {
        let range: Cidr = "10.96.7.9/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.first_address(), Ipv4Addr::new(10, 96, 0, 1));
        assert!(
            range.contains(Ipv4Addr::new(10, 96, 255, 1))
                && !range.contains(Ipv4Addr::new(10, 97, 0, 1))
        );
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "x".parse::<Cidr>().is_err());
    }
}
