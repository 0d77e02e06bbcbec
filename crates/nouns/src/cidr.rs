//! Ranges of IP addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and the length of its prefix in bits. The address is kept as written.
///
/// A lone address is a range of one, and prints without its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Makes the range that holds one address.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, prefix: bits(addr) }
    }

    /// Returns the address, as written: bits behind the prefix may be set.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Returns the length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Returns whether the range is a single address.
    pub fn is_host(&self) -> bool {
        self.prefix == bits(self.addr)
    }

    /// Returns whether the address lies in the range. IPv4 and IPv6 never match each other.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(range), IpAddr::V4(addr)) => {
                let drop = u32::from(32 - self.prefix);
                let keep = |bits: u32| bits.checked_shr(drop).unwrap_or(0);
                keep(range.to_bits()) == keep(addr.to_bits())
            }
            (IpAddr::V6(range), IpAddr::V6(addr)) => {
                let drop = u32::from(128 - self.prefix);
                let keep = |bits: u128| bits.checked_shr(drop).unwrap_or(0);
                keep(range.to_bits()) == keep(addr.to_bits())
            }
            _ => false,
        }
    }
}

/// Returns how many bits an address has.
fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or a lone address.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let refused = || CidrError(text.to_owned());
        let Some((addr, prefix)) = text.split_once('/') else {
            return Ok(Self::host(text.parse().map_err(|_| refused())?));
        };
        let addr: IpAddr = addr.parse().map_err(|_| refused())?;
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        match prefix.parse() {
            Ok(prefix) if digits && prefix <= bits(addr) => Ok(Self { addr, prefix }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            write!(f, "{}", self.addr)
        } else {
            write!(f, "{}/{}", self.addr, self.prefix)
        }
    }
}

/// Text that is neither an address nor a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a range such as 10.0.0.0/8")]
pub struct CidrError(String);

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn a_range_contains_the_addresses_under_its_prefix() {
        let check = |range: &str, addr: &str, expected: bool| {
            let range: Cidr = range.parse().unwrap();
            assert_eq!(range.contains(addr.parse().unwrap()), expected, "{range} {addr}");
        };
        check("10.0.0.0/8", "10.9.8.7", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("0.0.0.0/0", "8.8.8.8", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "::1", true);
        check("2001:db8::/32", "2001:db8:1::", true);
        check("1.2.3.4", "1.2.3.4", true);
        check("1.2.3.4", "1.2.3.5", false);
    }

    #[test]
    fn malformed_ranges_are_refused() {
        for text in ["", "1.2.3", "1.2.3.4/33", "1.2.3.4/+8", "1.2.3.4/", "::/129", "a/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
