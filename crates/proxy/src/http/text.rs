//! Short texts for header fields: numbers, addresses, identifiers.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    str,
};

use sluis_rules::Address;

/// The socket address that an address is, if it is one.
pub(super) fn address(of: &Address) -> Option<SocketAddr> {
    match of {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) | Address::Internal(_) => None,
    }
}

/// Writes a number alone into `text`.
pub(super) fn number(value: u64, text: &mut Vec<u8>) {
    text.clear();
    text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(super) fn ip(address: IpAddr, text: &mut Vec<u8>) {
    text.clear();
    write_ip(address, text);
}

pub(super) fn write_ip(address: IpAddr, text: &mut Vec<u8>) {
    let IpAddr::V4(address) = address else {
        // Writing to a Vec cannot fail.
        let _ = write!(text, "{address}");
        return;
    };
    // For every request: formatting by the library costs more than reading the head.
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
}

pub(super) fn uuid(bits: u128, text: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // Where each byte's two digits stand, with hyphens between the groups.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut digits = [b'-'; 36];
    for (byte, at) in bits.to_be_bytes().into_iter().zip(PLACES) {
        digits[at] = HEX[usize::from(byte >> 4)];
        digits[at + 1] = HEX[usize::from(byte & 15)];
    }
    text.clear();
    text.extend_from_slice(&digits);
}

/// Lower-case text of a short ASCII value.
pub(super) fn lower(value: &[u8]) -> String {
    str::from_utf8(value).unwrap_or_default().to_ascii_lowercase()
}
