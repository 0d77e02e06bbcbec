//! Tests of HPACK: the RFC's examples, malformed blocks, round trips.

mod blocks;
mod examples;
mod policy;
mod round_trips;

use super::{DecodeError, Decoder, Section};

/// A list limit that no test reaches unless it means to.
const LIST_BYTES_MAX: usize = 1 << 16;

/// Octets from hex digits, spaces between them.
fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The fields of a section as text, `name: value`, with `!` before one that is never indexed.
fn lines(section: &Section) -> Vec<String> {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    section
        .iter()
        .map(|(name, value, never)| {
            format!("{}{}: {}", if never { "!" } else { "" }, text(name), text(value))
        })
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut section = Section::new();
    decoder.decode(block, LIST_BYTES_MAX, &mut section).map(|()| lines(&section))
}
