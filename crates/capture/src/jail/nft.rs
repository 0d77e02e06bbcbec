//! The jail's only nftables rules: where its connections go instead.
//!
//! ```text
//! table inet sluis {
//!   chain output { type nat hook output priority -100; policy accept;
//!     meta l4proto udp  udp dport 53  redirect to :15053
//!     meta l4proto tcp  tcp dport 53  redirect to :15053
//!     ip daddr 127.0.0.1  accept          # the command's own servers, as in any pod
//!     ip6 daddr ::1  accept
//!     meta l4proto tcp  redirect to :15001
//!   }
//! }
//! ```
//!
//! Other UDP finds no socket, every address being local, and is refused by the kernel.

use std::io;

use nix::sys::socket::SockProtocol;

use super::netlink::{ACK, APPEND, Attributes, CREATE, Message, Netlink};

/// Where all TCP of the jail arrives; Istio's own number for it.
pub const CAPTURE_PORT: u16 = 15001;

/// Where all DNS of the jail arrives; Istio's own number for it.
pub const DNS_PORT: u16 = 15053;

const TABLE: &str = "sluis";
const CHAIN: &str = "output";

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const FAMILY_INET: u8 = 1; // NFPROTO_INET: both IPv4 and IPv6
const REGISTER: u32 = 1; // NFT_REG_1, 16 bytes wide
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Loads the rules into the current network namespace, all or none.
pub(super) fn load() -> io::Result<()> {
    let redirect = |protocol, port, to| {
        let matched = Expressions::default().protocol(protocol);
        let matched = match port {
            Some(port) => matched.destination_port(port),
            None => matched,
        };
        matched.redirect(to)
    };
    let mut localhost_v6 = [0; 16];
    localhost_v6[15] = 1;
    let rules = [
        redirect(UDP, Some(53), DNS_PORT),
        redirect(TCP, Some(53), DNS_PORT),
        Expressions::default().destination_v4([127, 0, 0, 1]).accept(),
        Expressions::default().destination_v6(localhost_v6).accept(),
        redirect(TCP, None, CAPTURE_PORT),
    ];
    let mut batch = vec![batch_edge(0x10), table(), chain()];
    batch.extend(rules.iter().map(rule));
    batch.push(batch_edge(0x11));
    Netlink::open(SockProtocol::NetlinkNetFilter)?.request(&batch)
}

/// The begin (0x10) or the end (0x11) of a batch, which is applied whole.
fn batch_edge(kind: u16) -> Message {
    let subsystem = SUBSYSTEM.to_be_bytes();
    Message::new(kind, 0, &[0, 0, subsystem[0], subsystem[1]])
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, ACK | CREATE | flags, &[FAMILY_INET, 0, 0, 0])
}

fn table() -> Message {
    message(0, 0).with(&Attributes::default().text(1, TABLE))
}

fn chain() -> Message {
    const HOOK_LOCAL_OUT: u32 = 3;
    const PRIORITY_DSTNAT: i32 = -100;
    const ACCEPT: u32 = 1;
    let hook =
        Attributes::default().be32(1, HOOK_LOCAL_OUT).bytes(2, &PRIORITY_DSTNAT.to_be_bytes());
    let attributes = Attributes::default()
        .text(1, TABLE)
        .text(3, CHAIN)
        .nested(4, &hook)
        .be32(5, ACCEPT)
        .text(7, "nat");
    message(3, 0).with(&attributes)
}

fn rule(expressions: &Expressions) -> Message {
    let attributes =
        Attributes::default().text(1, TABLE).text(2, CHAIN).nested(4, &expressions.list);
    message(6, APPEND).with(&attributes)
}

/// The expressions of one rule, in order.
#[derive(Default)]
struct Expressions {
    list: Attributes,
}

impl Expressions {
    fn push(self, name: &str, data: &Attributes) -> Self {
        let expression = Attributes::default().text(1, name).nested(2, data);
        Self { list: self.list.nested(1, &expression) }
    }

    /// `meta`: loads a fact of the packet.
    fn meta(self, key: u32) -> Self {
        self.push("meta", &Attributes::default().be32(1, REGISTER).be32(2, key))
    }

    /// `payload`: loads bytes of the network (1) or transport (2) header.
    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let data =
            Attributes::default().be32(1, REGISTER).be32(2, base).be32(3, offset).be32(4, length);
        self.push("payload", &data)
    }

    /// `cmp`: goes on only if what was loaded is this.
    fn equals(self, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(1, value);
        let data = Attributes::default().be32(1, REGISTER).be32(2, 0).nested(3, &value);
        self.push("cmp", &data)
    }

    fn protocol(self, protocol: u8) -> Self {
        const L4PROTO: u32 = 16;
        self.meta(L4PROTO).equals(&[protocol])
    }

    fn family(self, family: u8) -> Self {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO).equals(&[family])
    }

    fn destination_port(self, port: u16) -> Self {
        self.payload(2, 2, 2).equals(&port.to_be_bytes())
    }

    fn destination_v4(self, address: [u8; 4]) -> Self {
        const NFPROTO_IPV4: u8 = 2;
        self.family(NFPROTO_IPV4).payload(1, 16, 4).equals(&address)
    }

    fn destination_v6(self, address: [u8; 16]) -> Self {
        const NFPROTO_IPV6: u8 = 10;
        self.family(NFPROTO_IPV6).payload(1, 24, 16).equals(&address)
    }

    /// `redir`: to this machine, at this port.
    fn redirect(self, port: u16) -> Self {
        let value = Attributes::default().bytes(1, &port.to_be_bytes());
        let load = Attributes::default().be32(1, REGISTER).nested(2, &value);
        let redirect = Attributes::default().be32(1, REGISTER);
        self.push("immediate", &load).push("redir", &redirect)
    }

    fn accept(self) -> Self {
        const VERDICT_REGISTER: u32 = 0;
        const ACCEPT: u32 = 1;
        let verdict = Attributes::default().nested(2, &Attributes::default().be32(1, ACCEPT));
        let data = Attributes::default().be32(1, VERDICT_REGISTER).nested(2, &verdict);
        self.push("immediate", &data)
    }
}
