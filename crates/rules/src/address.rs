//! Where a listener listens and where an endpoint is.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

/// An address that can be bound or connected to as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A Unix domain socket; a path that starts with `@` is in the abstract namespace.
    Pipe(Arc<Path>),
    /// A listener of this proxy by its name; no socket leads there.
    Internal(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Pipe(path) => path.display().fmt(f),
            // As Envoy writes it.
            Self::Internal(name) => write!(f, "envoy://{name}/"),
        }
    }
}

/// A range of IP addresses. IPv4 and IPv6 ranges never contain each other's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Makes a range of the first `bits` bits of `address`; the other bits are cleared.
    ///
    /// Returns `None` when there are more bits than the address has.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        (bits <= width).then(|| Self { network: masked(address, bits), bits })
    }

    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4() && masked(address, self.bits) == self.network
    }

    /// The first address of the range.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many leading bits are fixed.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

/// The address with all but its first `bits` bits cleared.
pub(crate) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: (&str, u8), address: &str, inside: bool) {
        let cidr = Cidr::new(range.0.parse().unwrap(), range.1).unwrap();
        assert_eq!(cidr.contains(address.parse().unwrap()), inside, "{cidr} and {address}");
    }

    #[test]
    fn a_range_holds_the_addresses_that_share_its_bits() {
        check(("10.1.2.3", 8), "10.200.0.1", true);
        check(("10.1.2.3", 8), "11.0.0.1", false);
        check(("0.0.0.0", 0), "255.1.1.1", true);
        check(("10.0.0.1", 32), "10.0.0.1", true);
        check(("10.0.0.1", 32), "10.0.0.2", false);
        check(("fd00::", 8), "fdff::1", true);
        check(("::", 0), "10.0.0.1", false);
        check(("0.0.0.0", 0), "::1", false);
    }

    #[test]
    fn a_range_has_no_more_bits_than_its_address() {
        assert!(Cidr::new("10.0.0.0".parse().unwrap(), 33).is_none());
        assert!(Cidr::new("::".parse().unwrap(), 128).is_some());
    }
}
