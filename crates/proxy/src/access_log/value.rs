//! What an operator says, written safely.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use smallvec::SmallVec;

use super::time::TimeFormat;

/// How values are made safe for where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// For a line of text: controls, quotes, backslashes and non-ASCII as `\xHH`.
    Log,
    /// For a header value: as they are; the header block refuses what cannot be in one.
    Raw,
}

/// One value, without a copy where there is something to borrow.
#[derive(Clone, Debug)]
pub(super) enum Value<'r> {
    Absent,
    Number(u64),
    Bytes(&'r [u8]),
    /// Names of ours, joined by commas; none is absent.
    List(SmallVec<[&'static str; 4]>),
    Socket(SocketAddr),
    Host(IpAddr),
    Time(&'r TimeFormat, SystemTime),
    Built(Box<[u8]>),
}

impl<'r> Value<'r> {
    /// A text; the empty one is absent.
    pub(super) fn text(text: Option<&'r str>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self::Bytes(text.as_bytes()),
            _ => Self::Absent,
        }
    }

    /// An empty list is absent.
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::List(list) => list.is_empty(),
            _ => false,
        }
    }

    /// Appends the value; of text at most `length_max` bytes.
    pub(super) fn write(&self, escape: Escape, length_max: Option<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Absent => {}
            Self::Number(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
            }
            Self::Bytes(bytes) => text(bytes, escape, length_max, out),
            Self::Built(bytes) => text(bytes, escape, length_max, out),
            Self::List(list) if list.is_empty() => out.push(b'-'),
            Self::List(list) => {
                for (at, name) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(name.as_bytes());
                }
            }
            Self::Socket(address) => socket(*address, out),
            Self::Host(ip) => host(*ip, out),
            Self::Time(format, time) => format.write(*time, out),
        }
    }

    /// The bytes of a value that is not a number, for encoders of their own.
    pub(super) fn raw(&self, length_max: Option<usize>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(Escape::Raw, length_max, &mut out);
        out
    }
}

fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V4(v4) => {
            host(IpAddr::V4(*v4.ip()), out);
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
        }
        // Writing to a Vec cannot fail.
        SocketAddr::V6(_) => drop(write!(out, "{address}")),
    }
}

fn host(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(_) => drop(write!(out, "{ip}")),
    }
}

fn text(bytes: &[u8], escape: Escape, length_max: Option<usize>, out: &mut Vec<u8>) {
    let bytes = &bytes[..length_max.unwrap_or(bytes.len()).min(bytes.len())];
    let is_plain = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\';
    // Without a way out in between many bytes are looked at by one instruction.
    let are_plain = || bytes.iter().fold(true, |all, &byte| all & is_plain(byte));
    if escape == Escape::Raw || are_plain() {
        out.extend_from_slice(bytes);
        return;
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            let high = HEX[usize::from(byte >> 4)];
            out.extend_from_slice(&[b'\\', b'x', high, HEX[usize::from(byte & 15)]]);
        }
    }
}
