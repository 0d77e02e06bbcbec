//! Strings in HPACK's Huffman code (RFC 7541 §5.2).
//!
//! In:    octets, or bits of the code.
//! Out:   the other of the two.
//! Never: accepts EOS, or padding that is longer than seven bits or not all ones.

use super::constants::CODES;

/// The length of the shortest code, which bounds how far a string grows when it is decoded.
const SHORTEST: usize = 5;
/// The length of the longest code.
const LONGEST: usize = 30;
/// The number of a code's end among the characters.
const EOS: u16 = 256;
/// In [`SHORT`]: the code has more than eight bits. More than an accumulator ever holds.
const LONG: u8 = u8::MAX;

/// The character that begins with eight given bits, and its length; all that text is made of.
static SHORT: [(u8, u8); 256] = {
    let mut table = [(0, LONG); 256];
    let mut symbol: u8 = 0;
    loop {
        let (code, len) = CODES[symbol as usize];
        if len <= 8 {
            let first = (code << (8 - len)) as usize;
            let mut at = first;
            while at < first + (1 << (8 - len)) {
                table[at] = (symbol, len);
                at += 1;
            }
        }
        if symbol == u8::MAX {
            break;
        }
        symbol += 1;
    }
    table
};

/// The codes of one length: consecutive numbers, in the order of their characters.
#[derive(Clone, Copy)]
struct Class {
    /// The first code.
    first: u32,
    /// What a string of thirty bits is less than when it begins with a code of this length or less.
    limit: u32,
    /// The place of the first code's character in `SYMBOLS`.
    symbols: usize,
}

/// The characters by the length of their codes, then by number.
static SYMBOLS: [u16; 257] = classes().0;
/// The classes by length.
static CLASSES: [Class; LONGEST + 1] = classes().1;

const fn classes() -> ([u16; 257], [Class; LONGEST + 1]) {
    let mut symbols = [0; 257];
    let mut classes = [Class { first: 0, limit: 0, symbols: 0 }; LONGEST + 1];
    let mut filled = 0;
    let mut len = 1;
    while len <= LONGEST {
        classes[len].symbols = filled;
        let mut symbol: u16 = 0;
        while symbol <= EOS {
            let (code, bits) = CODES[symbol as usize];
            if bits as usize == len {
                if classes[len].symbols == filled {
                    classes[len].first = code;
                }
                classes[len].limit = (code + 1) << (LONGEST - len);
                symbols[filled] = symbol;
                filled += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    (symbols, classes)
}

/// The string is not a text in this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HuffmanError;

/// Appends the text of `input` to `out`, which grows by at most 8/5 of `input`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HuffmanError> {
    let start = out.len();
    out.resize(start + input.len() * 8 / SHORTEST, 0);
    let written = decode_into(input, &mut out[start..]);
    out.truncate(start + written.unwrap_or(0));
    written.map(|_| ())
}

/// Bits are taken from the top of a word that is filled again when it runs low.
fn decode_into(input: &[u8], out: &mut [u8]) -> Result<usize, HuffmanError> {
    let (mut rest, mut word, mut bits, mut written) = (input, 0_u64, 0_u32, 0);
    loop {
        (rest, word, bits) = refill(rest, word, bits);
        loop {
            let (symbol, len) = SHORT[(word >> 56) as usize];
            if u32::from(len) > bits {
                break;
            }
            *out.get_mut(written).ok_or(HuffmanError)? = symbol;
            written += 1;
            word <<= len;
            bits -= u32::from(len);
        }
        if rest.is_empty() && bits < 8 {
            return padding(word, bits).map(|()| written);
        }
        if bits < LONGEST as u32 && !rest.is_empty() {
            continue;
        }
        let (symbol, len) = long(word).ok_or(HuffmanError)?;
        if len > bits {
            return Err(HuffmanError);
        }
        *out.get_mut(written).ok_or(HuffmanError)? = symbol;
        written += 1;
        word <<= len;
        bits -= len;
    }
}

/// As many whole octets as fit. Bits of `word` below `bits` may already be those that come next:
/// they are the same when they are put there again.
#[inline]
fn refill(mut rest: &[u8], mut word: u64, mut bits: u32) -> (&[u8], u64, u32) {
    if let Some(next) = rest.first_chunk::<8>() {
        word |= u64::from_be_bytes(*next) >> bits;
        let octets = (63 - bits) / 8;
        return (&rest[octets as usize..], word, bits + octets * 8);
    }
    while let (true, Some((octet, tail))) = (bits <= 56, rest.split_first()) {
        word |= u64::from(*octet) << (56 - bits);
        bits += 8;
        rest = tail;
    }
    (rest, word, bits)
}

/// Fewer than eight bits at the end, all ones (RFC 7541 §5.2).
fn padding(word: u64, bits: u32) -> Result<(), HuffmanError> {
    if word.leading_ones() >= bits { Ok(()) } else { Err(HuffmanError) }
}

/// The character at the top of `word` whose code has more than eight bits; none for EOS.
#[cold]
fn long(word: u64) -> Option<(u8, u32)> {
    let window = (word >> (64 - LONGEST)) as u32;
    let len = (SHORTEST..=LONGEST).find(|&len| window < CLASSES[len].limit)?;
    let class = CLASSES[len];
    let nth = (window >> (LONGEST - len)) - class.first;
    let symbol = SYMBOLS[class.symbols + nth as usize];
    Some((u8::try_from(symbol).ok()?, len as u32))
}

/// How many octets the text takes in this code.
#[inline]
pub(super) fn encoded_len(input: &[u8]) -> usize {
    let bits: usize = input.iter().map(|&octet| usize::from(CODES[usize::from(octet)].1)).sum();
    bits.div_ceil(8)
}

/// Appends the text in this code, padded by ones.
pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    let (mut word, mut bits) = (0_u64, 0_u32);
    for &octet in input {
        let (code, len) = CODES[usize::from(octet)];
        word = word << len | u64::from(code);
        bits += u32::from(len);
        if bits >= 32 {
            bits -= 32;
            out.extend_from_slice(&((word >> bits) as u32).to_be_bytes());
        }
    }
    let padding = bits.wrapping_neg() % 8;
    word = word << padding | ((1 << padding) - 1);
    bits += padding;
    while bits > 0 {
        bits -= 8;
        out.push((word >> bits) as u8);
    }
}
