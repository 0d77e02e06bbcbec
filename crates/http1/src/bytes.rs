//! What bytes are, and where some of them stand, eight looked at by one step.
//!
//! In:    bytes of a head.
//! Out:   whether one may stand in a token; the place of the first that ends a text, or of a colon.
//! Never: judges what a head means.

/// Longest field name in which a colon is looked for.
pub(crate) const NAME_BYTES_MAX: usize = 128;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// `tchar` of RFC 9110 §5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

pub(crate) const TOKEN_BYTES: [bool; 256] = {
    let marks = b"!#$%&'*+-.^_`|~";
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Eight bytes from `at` on, the first one lowest.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// The high bit of each byte that is `wanted`. Only the lowest is sure: it may lend to those above.
fn equal(word: u64, wanted: u8) -> u64 {
    let differs = word ^ (LOW * u64::from(wanted));
    differs.wrapping_sub(LOW) & !differs & HIGH
}

/// The same for each byte below `floor`, which is ASCII.
fn below(word: u64, floor: u8) -> u64 {
    word.wrapping_sub(LOW * u64::from(floor)) & !word & HIGH
}

/// The first place from `at` on with a byte below `floor` or with DEL; else the end.
pub(crate) fn end_of_text(bytes: &[u8], mut at: usize, floor: u8) -> usize {
    while let Some(word) = word(bytes, at) {
        let found = below(word, floor) | equal(word, 0x7f);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let is_end = |byte: &u8| *byte < floor || *byte == 0x7f;
    at + rest.iter().position(is_end).unwrap_or(rest.len())
}

/// The first colon from `at` on, unless it is far.
pub(crate) fn colon(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(word) = word(bytes, at) {
        let found = equal(word, b':');
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
        if at - start > NAME_BYTES_MAX {
            return None;
        }
    }
    Some(at + bytes.get(at..)?.iter().position(|byte| *byte == b':')?)
}
