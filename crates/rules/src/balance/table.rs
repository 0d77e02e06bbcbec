//! Tables that place endpoints by hash: a ring (ketama), and Maglev's.
//!
//! Both are filled exactly as Envoy fills them, so that every proxy sends a key to the same
//! endpoint.

use crate::{
    Endpoints, HashFunction, LbPolicy,
    hash::{murmur2, xx64, xx64_seeded},
};

/// A table of places in a cluster's list.
#[derive(Clone, Debug)]
pub(super) enum Table {
    /// Hashes in order, each with its endpoint.
    Ring(Vec<(u64, u32)>),
    /// Endpoints by remainder.
    Maglev(Vec<u32>),
}

impl Table {
    /// The table of a policy that chooses by hash. `shares` add up to 1.
    pub(super) fn new(
        policy: LbPolicy,
        endpoints: &Endpoints,
        shares: &[(u32, f64)],
    ) -> Option<Self> {
        Some(match policy {
            LbPolicy::RingHash { min, max, function, by_hostname } => {
                let key = |place| key(endpoints, place, by_hostname);
                Self::Ring(ring(shares, (min, max), function, key))
            }
            LbPolicy::Maglev { slots, by_hostname } => {
                let key = |place| key(endpoints, place, by_hostname);
                Self::Maglev(maglev(shares, slots, key))
            }
            _ => return None,
        })
    }

    /// The endpoint of a hash; further attempts give others.
    pub(super) fn find(&self, hash: u64, attempt: u32) -> Option<u32> {
        match self {
            Self::Ring(ring) => {
                let at = ring.partition_point(|(place, _)| *place < hash);
                let at = if at == ring.len() { 0 } else { at };
                ring.get((at + attempt as usize) % ring.len().max(1)).map(|(_, place)| *place)
            }
            Self::Maglev(slots) => {
                let hash = match attempt {
                    0 => hash,
                    attempt => hash ^ (u64::MAX - u64::from(attempt) + 1),
                };
                let at = hash.checked_rem(slots.len() as u64)?;
                slots.get(at as usize).copied()
            }
        }
    }
}

/// What an endpoint is placed by.
fn key(endpoints: &Endpoints, place: u32, by_hostname: bool) -> String {
    let endpoint = &endpoints.list[place as usize];
    if let Some(key) = endpoint.hash_key.as_ref().filter(|key| !key.is_empty()) {
        return key.to_string();
    }
    match (&endpoint.hostname, &endpoint.address) {
        (Some(name), _) if by_hostname => name.to_string(),
        (_, crate::EndpointAddress::Fixed(address)) => address.to_string(),
        (_, crate::EndpointAddress::Name { host, port }) => format!("{host}:{port}"),
    }
}

fn ring(
    shares: &[(u32, f64)],
    (min, max): (u64, u64),
    function: HashFunction,
    key: impl Fn(u32) -> String,
) -> Vec<(u64, u32)> {
    let Some(least) = shares.iter().map(|(_, share)| *share).reduce(f64::min) else {
        return Vec::new();
    };
    // The lightest gets a whole number of places; the others need not.
    let scale = ((least.min(1.0) * min as f64).ceil() / least.min(1.0)).min(max as f64);
    let mut ring = Vec::with_capacity(scale.ceil() as usize);
    let (mut made, mut wanted) = (0.0, 0.0);
    let mut text = String::new();
    for (place, share) in shares {
        let key = key(*place);
        wanted += scale * share;
        let mut index = 0_u64;
        while made < wanted {
            use std::fmt::Write as _;
            text.clear();
            // Writing to a String cannot fail.
            let _ = write!(text, "{key}_{index}");
            let hash = match function {
                HashFunction::Xx => xx64(text.as_bytes()),
                HashFunction::Murmur2 => murmur2(text.as_bytes()),
            };
            ring.push((hash, *place));
            index += 1;
            made += 1.0;
        }
    }
    ring.sort_by_key(|(hash, _)| *hash);
    ring
}

fn maglev(shares: &[(u32, f64)], slots: u64, key: impl Fn(u32) -> String) -> Vec<u32> {
    struct Row {
        place: u32,
        offset: u64,
        skip: u64,
        share: f64,
        target: f64,
        next: u64,
    }
    let Some(most) = shares.iter().map(|(_, share)| *share).reduce(f64::max) else {
        return Vec::new();
    };
    // In the order of their keys, so that the order of the list does not matter.
    let mut keyed: Vec<(String, u32, f64)> =
        shares.iter().map(|(place, share)| (key(*place), *place, *share)).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut rows: Vec<Row> = keyed
        .iter()
        .map(|(key, place, share)| Row {
            place: *place,
            offset: xx64(key.as_bytes()) % slots,
            skip: xx64_seeded(key.as_bytes(), 1) % (slots - 1) + 1,
            share: *share,
            target: 0.0,
            next: 0,
        })
        .collect();
    const FREE: u32 = u32::MAX;
    let mut table = vec![FREE; slots as usize];
    let mut filled = 0;
    let mut iteration = 1_u32;
    while filled < slots {
        for row in &mut rows {
            if filled == slots {
                break;
            }
            // The heaviest has a turn each time, one of a third of its weight each third time.
            if f64::from(iteration) * row.share < row.target {
                continue;
            }
            row.target += most;
            let slot = loop {
                let slot = (row.offset + row.skip.wrapping_mul(row.next)) % slots;
                row.next += 1;
                if table[slot as usize] == FREE {
                    break slot;
                }
            };
            table[slot as usize] = row.place;
            filled += 1;
        }
        iteration = iteration.saturating_add(1);
    }
    table
}
