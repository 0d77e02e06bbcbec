//! Brings a namespace's connections to its sidecar by a packet filter, as Istio's init container does.
//!
//! In:    [`Written`]: Istio's flags or annotations, as text.
//! Out:   [`Settings`]; the rules as text for nft or iptables-restore ([`Rules`]); the rules in force
//!        ([`apply`], [`remove`], [`show`]).
//! Never: touches a rule that is not its own; leaves half of its rules behind when one is refused.
//!
//! Start at [`Written`], then [`Rules::of`]: which rules there are, in which order, and why. [`nft`] and
//! [`iptables`] only print them.

mod iptables;
mod load;
mod nft;
mod rules;
mod written;

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluis_nouns::Cidr;

pub use load::{
    Backend, Fault, Place, Standing, apply, end_connections, load_script, remove, script, show,
    standing,
};
pub use rules::Rules;
pub use written::{SettingError, Written};

/// What is captured, and how: checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where connections of the workload go: the sidecar's `virtualOutbound`.
    pub outbound_port: u16,
    /// Where connections to the workload go: its `virtualInbound`.
    pub inbound_port: u16,
    /// A port of the sidecar that is called itself (HBONE): never captured.
    pub tunnel_port: u16,
    /// How inbound connections are captured.
    pub mode: Mode,
    /// The users whose connections are the sidecar's own.
    pub proxy_uids: BTreeSet<u32>,
    /// The groups whose connections are the sidecar's own.
    pub proxy_gids: BTreeSet<u32>,
    /// The inbound ports that are captured.
    pub inbound: Ports,
    /// Of all inbound ports, those that are not.
    pub inbound_excluded: BTreeSet<u16>,
    /// Outbound ports that are captured whatever the address.
    pub outbound_ports: BTreeSet<u16>,
    /// Outbound ports that are not captured.
    pub outbound_excluded: BTreeSet<u16>,
    /// The addresses whose connections are captured.
    pub ranges: Ranges,
    /// Of all addresses, those that are not.
    pub ranges_excluded: Vec<Cidr>,
    /// Interfaces whose packets are left alone.
    pub interfaces_excluded: Vec<String>,
    /// Interfaces of virtual machines: what comes in there is their outbound traffic.
    pub virtual_interfaces: Vec<String>,
    /// Whose connections are captured at all.
    pub groups: Groups,
    /// Whether name queries are captured, and those to whom.
    pub dns: Option<Servers>,
    /// Where name queries go.
    pub dns_port: u16,
    /// Whether packets that belong to no connection are dropped, instead of reset.
    pub drops_invalid: bool,
    /// Whether all that the sidecar cannot take (UDP, ICMP, other protocols) is refused too.
    pub is_closed: bool,
    /// The addresses of loopback at which the workload calls its own servers.
    pub loopback: Cidr,
    /// Whether there are rules for IPv6.
    pub ipv6: bool,
}

/// How inbound connections reach the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By rewriting their destination; the sidecar calls the workload from 127.0.0.6.
    Redirect,
    /// Unchanged, so that the client's address is kept.
    Tproxy {
        /// The mark of packets that are routed to the sidecar.
        mark: u32,
        /// The routing table that does so.
        table: u32,
    },
}

/// Some ports, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// `*`.
    All,
    /// These; none is a value too.
    Only(BTreeSet<u16>),
}

/// Some addresses, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// `*`.
    All,
    /// These; none is a value too.
    Only(Vec<Cidr>),
}

/// Groups of local users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All but these.
    AllBut(BTreeSet<u32>),
    /// These alone.
    Only(BTreeSet<u32>),
}

/// Servers of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Whoever is asked.
    All,
    /// Queries to these addresses.
    Only(Vec<IpAddr>),
}

#[cfg(test)]
mod tests;
