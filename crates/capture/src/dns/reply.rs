//! Writes a reply (RFC 1035 §4.1, RFC 6891 §6.1).

use std::net::IpAddr;

use super::TTL_SECONDS;
use super::query::{CLASS_IN, Header, Question, TYPE_A, TYPE_AAAA};

pub(super) const SERVFAIL: u16 = 2;
pub(super) const NXDOMAIN: u16 = 3;
pub(super) const REFUSED: u16 = 5;
pub(super) const BADVERS: u16 = 16;
const NOERROR: u16 = 0;

/// The longest reply over UDP to a query without EDNS (RFC 1035 §4.2.1).
pub(super) const PLAIN_UDP_BYTES: usize = 512;

/// The longest reply over UDP that we offer: it fits any path unfragmented (DNS Flag Day 2020).
pub(super) const EDNS_UDP_BYTES: usize = 1232;

const FLAG_QR: u16 = 0x8000;
const FLAG_TC: u16 = 0x0200;
const FLAG_RD: u16 = 0x0100;
const FLAG_RA: u16 = 0x0080;

/// A pointer to the name of the question, which follows the header.
const NAME_OF_QUESTION: u16 = 0xc00c;

/// What to answer.
#[derive(Debug)]
pub(super) struct Reply {
    code: u16,
    addresses: Vec<IpAddr>,
}

impl Reply {
    pub(super) fn code(code: u16) -> Self {
        Self { code, addresses: Vec::new() }
    }

    pub(super) fn addresses(addresses: Vec<IpAddr>) -> Self {
        Self { code: NOERROR, addresses }
    }

    /// A header alone, for a query whose question could not be read.
    pub(super) fn bare(header: Header, code: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        put_header(&mut bytes, header, code, 0, [0; 4]);
        bytes
    }

    /// The whole reply; without its answers, and marked so, if it would be longer than `limit`.
    pub(super) fn encode(&self, question: &Question<'_>, limit: usize) -> Vec<u8> {
        let whole = self.write(question, &self.addresses, 0);
        if whole.len() <= limit { whole } else { self.write(question, &[], FLAG_TC) }
    }

    fn write(&self, question: &Question<'_>, addresses: &[IpAddr], flag: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PLAIN_UDP_BYTES);
        let answers = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
        let extra = u16::from(question.edns.is_some());
        put_header(&mut bytes, question.header, self.code, flag, [1, answers, 0, extra]);
        bytes.extend_from_slice(question.raw);
        for address in addresses {
            put_address(&mut bytes, *address);
        }
        if question.edns.is_some() {
            let offered = u16::try_from(EDNS_UDP_BYTES).unwrap_or(u16::MAX);
            bytes.push(0);
            put(&mut bytes, &[41, offered]);
            // The upper eight bits of the code, version 0, no flags, no options.
            bytes.push(u8::try_from(self.code >> 4).unwrap_or(u8::MAX));
            bytes.extend_from_slice(&[0; 5]);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, fields: &[u16]) {
    for field in fields {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
}

fn put_header(bytes: &mut Vec<u8>, header: Header, code: u16, flag: u16, counts: [u16; 4]) {
    let flags = FLAG_QR | FLAG_RA | (header.flags & FLAG_RD) | flag | (code & 0xf);
    put(bytes, &[header.id, flags]);
    put(bytes, &counts);
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    let kind = if address.is_ipv4() { TYPE_A } else { TYPE_AAAA };
    put(bytes, &[NAME_OF_QUESTION, kind, CLASS_IN]);
    bytes.extend_from_slice(&TTL_SECONDS.to_be_bytes());
    match address {
        IpAddr::V4(ip) => {
            put(bytes, &[4]);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put(bytes, &[16]);
            bytes.extend_from_slice(&ip.octets());
        }
    }
}
