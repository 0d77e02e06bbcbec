//! Netlink messages: enough to bring loopback up, make every address local, and load a ruleset.
//!
//! In:    the fields of a message.
//! Out:   the kernel's word on it.
//! Never: an external program: `ip` and `nft` need not be installed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// The longest answer: an acknowledgement repeats at most the message it speaks of.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The index of loopback in a new network namespace: it is the first interface.
const LOOPBACK: u32 = 1;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// A netlink socket of one family.
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self { socket })
    }

    /// Sends messages in one write, and waits for as many acknowledgements as were asked for.
    pub(super) fn request(&self, messages: &[Message]) -> io::Result<()> {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.bytes.clone()).collect();
        let kernel = NetlinkAddr::new(0, 0);
        sendto(std::os::fd::AsRawFd::as_raw_fd(&self.socket), &bytes, &kernel, MsgFlags::empty())?;
        let mut expected = messages.iter().filter(|message| message.flags & ACK != 0).count();
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        while expected > 0 {
            let raw = std::os::fd::AsRawFd::as_raw_fd(&self.socket);
            let length = recv(raw, &mut buffer, MsgFlags::empty())?;
            expected = expected.saturating_sub(acknowledged(&buffer[..length])?);
        }
        Ok(())
    }
}

/// Counts the acknowledgements in an answer; the first error in it is the answer's.
fn acknowledged(mut answer: &[u8]) -> io::Result<usize> {
    let short = || io::Error::from(io::ErrorKind::InvalidData);
    let mut count = 0;
    while answer.len() >= HEADER_BYTES {
        let length = u32::from_ne_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let body = answer.get(HEADER_BYTES..length).ok_or_else(short)?;
        if kind == NLMSG_ERROR {
            let code = i32::from_ne_bytes(*body.first_chunk().ok_or_else(short)?);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            count += 1;
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}

/// One message, being written.
#[derive(Clone)]
pub(super) struct Message {
    bytes: Vec<u8>,
    flags: u16,
}

impl Message {
    /// A message of this kind, with its fixed part.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes, flags }.sealed()
    }

    /// Adds attributes.
    pub(super) fn with(mut self, attributes: &Attributes) -> Self {
        self.bytes.extend_from_slice(&attributes.0);
        self.sealed()
    }

    /// Pads to four bytes and writes the length into the header.
    fn sealed(mut self) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// Attributes (type, length, value), being written.
#[derive(Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

impl Attributes {
    /// Adds bytes.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number in network order, as nftables has them.
    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a number in the machine's order, as routing has them.
    pub(super) fn ne32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds text with a final zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds attributes as one.
    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Brings loopback up.
pub(super) fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const IFF_UP: u32 = 1;
    let mut fixed = vec![0; 4]; // ifinfomsg: any family, any type
    fixed.extend_from_slice(&LOOPBACK.to_ne_bytes());
    fixed.extend_from_slice(&IFF_UP.to_ne_bytes()); // flags …
    fixed.extend_from_slice(&IFF_UP.to_ne_bytes()); // … and which of them to change
    Netlink::open(SockProtocol::NetlinkRoute)?.request(&[Message::new(RTM_NEWLINK, ACK, &fixed)])
}

/// Makes every address of a family local: `ip route add local 0.0.0.0/0 dev lo src 127.0.0.1`.
pub(super) fn every_address_is_local(source: IpAddr) -> io::Result<()> {
    const RTM_NEWROUTE: u16 = 24;
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    const RTA_OIF: u16 = 4;
    const RTA_PREFSRC: u16 = 7;
    let (family, source) = match source {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let family = u8::try_from(family).map_err(io::Error::other)?;
    // rtmsg: family, both prefixes of length 0, no type of service; then 32 bits of flags.
    let fixed = [family, 0, 0, 0, TABLE_LOCAL, PROTOCOL_STATIC, SCOPE_HOST, TYPE_LOCAL, 0, 0, 0, 0];
    let route = Message::new(RTM_NEWROUTE, ACK | CREATE, &fixed)
        .with(&Attributes::default().ne32(RTA_OIF, LOOPBACK).bytes(RTA_PREFSRC, &source));
    Netlink::open(SockProtocol::NetlinkRoute)?.request(&[route])
}

/// Where the jail's own connections come from.
pub(super) const LOCALHOSTS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
