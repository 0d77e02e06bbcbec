//! Integers with a prefix (RFC 7541 §5.1), of at most 32 bits.

/// Five octets of seven bits hold every number below 2^35; more can only be padding by zeros.
const CONTINUATIONS_MAX: u32 = 5;

/// Why an integer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegerError {
    Truncated,
    TooLarge,
}

/// The integer that begins in the low `prefix` bits of `block[*at]`; `at` moves behind it.
#[inline]
pub(super) fn decode(block: &[u8], at: &mut usize, prefix: u32) -> Result<u32, IntegerError> {
    let first = *block.get(*at).ok_or(IntegerError::Truncated)?;
    *at += 1;
    let most = (1_u32 << prefix) - 1;
    let value = u32::from(first) & most;
    if value < most { Ok(value) } else { decode_rest(block, at, most) }
}

fn decode_rest(block: &[u8], at: &mut usize, prefix: u32) -> Result<u32, IntegerError> {
    let mut value = u64::from(prefix);
    for position in 0..CONTINUATIONS_MAX {
        let octet = *block.get(*at).ok_or(IntegerError::Truncated)?;
        *at += 1;
        value += u64::from(octet & 0x7f) << (7 * position);
        if octet & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| IntegerError::TooLarge);
        }
    }
    Err(IntegerError::TooLarge)
}

/// Writes `value` behind the bits of `first` that stand above the prefix.
#[inline]
pub(super) fn encode(value: usize, prefix: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1_usize << prefix) - 1;
    if value < most {
        out.push(first | u8::try_from(value).expect("less than a prefix of eight bits"));
    } else {
        encode_rest(value - most, first | u8::try_from(most).expect("at most eight bits"), out);
    }
}

fn encode_rest(mut value: usize, first: u8, out: &mut Vec<u8>) {
    out.push(first);
    while value >= 0x80 {
        out.push(0x80 | u8::try_from(value & 0x7f).expect("seven bits"));
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}
