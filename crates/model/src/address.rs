//! Addresses for services that have none: Istio's automatic ones out of 240.240.0.0/16 and 2001:2::/48.
//!
//! The address is a hash of namespace and host, so that it does not move when other services come and
//! go; two services with the same hash are told apart by double hashing, in a fixed order.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Addresses that end in .0 or .255 are left out: some clients refuse them.
const HOSTS_PER_THIRD_OCTET: u32 = 254;

/// How many addresses there are.
const SLOTS: u32 = 256 * HOSTS_PER_THIRD_OCTET;

/// The greatest prime below [`SLOTS`], for the step of the double hashing.
const PRIME: u32 = 65_011;

/// 2001:2::/48; the last 16 bits are those of the IPv4 address.
const V6_PREFIX: u128 = 0x2001_0002_0000_0000_0000_0000_0000_0000;

/// Gives out addresses, each once.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    taken: BTreeSet<u32>,
}

impl Allocator {
    /// An address of each family for a service, or `None` when all are taken.
    ///
    /// The answer depends on the services asked for before; ask in a fixed order.
    pub(crate) fn allocate(&mut self, namespace: &str, host: &str) -> Option<(Ipv4Addr, Ipv6Addr)> {
        if self.taken.len() >= SLOTS as usize {
            return None;
        }
        let hash = fnv1a(namespace, host);
        let step = PRIME - hash % PRIME;
        // PRIME and SLOTS have no common divisor only for odd steps; a full turn is tried with steps
        // of one when the double hashing returns to where it was.
        let hashed = (0..SLOTS).map(|turn| hash.wrapping_add(turn.wrapping_mul(step)) % SLOTS);
        let slot = hashed.chain(0..SLOTS).find(|slot| !self.taken.contains(slot))?;
        self.taken.insert(slot);
        let (third, fourth) = (slot / HOSTS_PER_THIRD_OCTET, slot % HOSTS_PER_THIRD_OCTET + 1);
        let v4 = Ipv4Addr::from_bits(0xF0F0_0000 | third << 8 | fourth);
        Some((v4, Ipv6Addr::from_bits(V6_PREFIX | u128::from(third << 8 | fourth))))
    }
}

/// The 32-bit FNV-1a hash of `namespace/host`.
fn fnv1a(namespace: &str, host: &str) -> u32 {
    let bytes = namespace.bytes().chain([b'/']).chain(host.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_depends_on_namespace_and_host_alone() {
        let alone = Allocator::default().allocate("egress", "api.data.local");
        let mut allocator = Allocator::default();
        allocator.allocate("egress", "other.data.local");
        assert_eq!(allocator.allocate("egress", "api.data.local"), alone);
        assert_ne!(Allocator::default().allocate("other", "api.data.local"), alone);
    }

    #[test]
    fn no_two_services_share_an_address_until_all_are_taken() {
        let mut allocator = Allocator::default();
        let mut seen = BTreeSet::new();
        for index in 0..SLOTS {
            let (address, v6) = allocator.allocate("n", &format!("h{index}.example.com")).unwrap();
            assert_eq!(v6.octets()[..4], [0x20, 1, 0, 2]);
            assert_eq!(v6.octets()[14..], address.octets()[2..]);
            assert!(seen.insert(address), "{address} twice");
            assert_eq!(address.octets()[..2], [240, 240]);
            assert!((1..=254).contains(&address.octets()[3]), "{address}");
        }
        assert_eq!(allocator.allocate("n", "one-more.example.com"), None);
    }
}
