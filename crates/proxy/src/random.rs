//! Randomness of a worker: numbers for balancing, jitter and request ids, never for keys; and nonces,
//! which nobody can foresee.

use std::cell::{Cell, RefCell};

use aws_lc_rs::{error::Unspecified, rand};

/// Bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// Nonces that are made at once: one costs as much as all.
const NONCES: usize = 32;

/// `xoshiro256++`, seeded from the operating system.
#[derive(Debug)]
pub struct Random(Cell<[u64; 4]>);

impl Random {
    /// Seeds a generator from the operating system's randomness.
    #[must_use]
    pub fn from_os() -> Self {
        let mut seed = [0_u8; 32];
        rand::fill(&mut seed).expect("the operating system gives random bytes");
        let mut state = [0_u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        }
        state[0] |= 1; // The all-zero state is the one that never leaves itself.
        Self(Cell::new(state))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let mut s = self.0.get();
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        self.0.set(s);
        out
    }

    /// A number below `bound`, close enough to uniform for balancing. `bound` of 0 gives 0.
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of a product fits 64 bits")
    }

    /// A random (version 4) UUID, RFC 9562 §5.4: for `x-request-id`.
    pub fn uuid(&self) -> u128 {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
    }
}

/// Random bytes by the cryptographic library, some ahead of need; each is given out once.
#[derive(Default)]
pub struct Nonces(RefCell<Vec<[u8; NONCE_BYTES]>>);

impl Nonces {
    /// Bytes that were never given out before.
    ///
    /// # Errors
    ///
    /// When the library has none.
    pub fn next(&self) -> Result<[u8; NONCE_BYTES], Unspecified> {
        let mut ahead = self.0.borrow_mut();
        if let Some(nonce) = ahead.pop() {
            return Ok(nonce);
        }
        let mut bytes = [[0; NONCE_BYTES]; NONCES];
        rand::fill(bytes.as_flattened_mut())?;
        let [first, rest @ ..] = bytes;
        ahead.extend(rest);
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_is_given_out_twice() {
        let nonces = Nonces::default();
        let given: HashSet<_> = (0..3 * NONCES).map(|_| nonces.next().unwrap()).collect();
        assert_eq!(given.len(), 3 * NONCES);
        assert!(!given.contains(&[0; NONCE_BYTES]));
    }

    #[test]
    fn numbers_stay_below_their_bound_and_uuids_say_version_four() {
        let random = Random::from_os();
        for bound in [1, 2, 3, 1000] {
            assert!((0..100).all(|_| random.below(bound) < bound));
        }
        let uuid = random.uuid();
        assert_eq!((uuid >> 76) & 0xf, 4);
        assert_eq!((uuid >> 62) & 0x3, 2);
    }
}
