//! The hashes by which Envoy places keys: XXH64, and MurmurHash 2 as libstdc++ has it.

/// Multiplier of MurmurHash64A.
const MUL: u64 = 0xc6a4_a793_5bd1_e995;

/// Seed of libstdc++'s hash table, which Envoy took over.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// XXH64 with seed 0, as Envoy hashes headers, cookies and addresses.
#[must_use]
pub fn xx64(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, 0)
}

/// XXH64 with another seed.
pub(crate) fn xx64_seeded(bytes: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, seed)
}

/// MurmurHash 2 (64 bits).
pub(crate) fn murmur2(bytes: &[u8]) -> u64 {
    let shift_mix = |value: u64| value ^ (value >> 47);
    let mut hash = MURMUR_SEED ^ (bytes.len() as u64).wrapping_mul(MUL);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("a chunk has 8 bytes"));
        hash ^= shift_mix(word.wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = hash.wrapping_mul(MUL);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    shift_mix(shift_mix(hash).wrapping_mul(MUL))
}

/// Joins the hash of a further policy to that of those before it.
#[must_use]
pub fn join(before: Option<u64>, next: u64) -> u64 {
    match before {
        Some(before) => before.rotate_left(1) ^ next,
        None => next,
    }
}
