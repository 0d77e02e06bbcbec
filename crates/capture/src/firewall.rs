//! Rules that let workloads speak to whom they may, and only gateways leave: for a host or a router.
//!
//! In:    a [`Firewall`]: workloads by address, what each may do, where the mesh ends.
//! Out:   a script for `nft -f`, which replaces our table ([`Firewall::host`], [`Firewall::router`]).
//! Never: accepts what is not said; names in the script come from checked names only.
//!
//! ```text
//! forward ── established: accept
//!   └─ by source ──> from_N: what workload N may call ──> to: by destination ──> to_M: who may call M
//!                      └ else: counter reject                                      └ else: counter reject
//! ```
//!
//! A workload that no policy isolates may call everything inside the mesh; a gateway, everything. On a
//! host the same chains hang on output and input.

mod write;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use sluis_nouns::Cidr;

/// The table: everything in it is ours.
pub const TABLE: &str = "sluis_firewall";

/// All that the rules follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// Where the mesh is, beside the addresses of its workloads.
    pub inside: Vec<Cidr>,
    /// The control planes, which every workload may call.
    pub control: Vec<SocketAddr>,
    /// The port of the workloads' DNS on the servers that all may ask; none by default.
    pub names: Vec<IpAddr>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name, for comments.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it may leave the mesh.
    pub is_gateway: bool,
    /// Whom it may call; `None` for all that is inside, or for a gateway all.
    pub egress: Option<Vec<Allowed>>,
    /// Who may call it; `None` for all.
    pub ingress: Option<Vec<Allowed>>,
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Who says so, for comments.
    pub why: String,
    /// The other side, each with exceptions; `None` for anybody.
    pub ranges: Option<Vec<(Cidr, Vec<Cidr>)>>,
    /// Protocol and first and last port; `None` for everything.
    pub ports: Option<Vec<(Transport, u16, u16)>>,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// No workload has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no workload {0} with an address")]
pub struct UnknownWorkload(pub String);

impl Firewall {
    /// The rules of one workload's own host: what it may send, and what it may receive.
    ///
    /// # Errors
    ///
    /// [`UnknownWorkload`].
    pub fn host(&self, name: &str) -> Result<String, UnknownWorkload> {
        let found = self.workloads.iter().position(|one| one.name == name);
        let number = found.ok_or_else(|| UnknownWorkload(name.to_owned()))?;
        Ok(write::host(self, number))
    }

    /// The rules of a router between the workloads, and between them and the outside. With `is_strict`
    /// a policy that lets a workload leave directly is not obeyed: gateways alone may.
    #[must_use]
    pub fn router(&self, is_strict: bool) -> String {
        write::router(self, is_strict)
    }

    /// The script that takes the table away, also where it is not.
    #[must_use]
    pub fn removal() -> String {
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
    }

    /// The addresses inside, without doubles.
    fn inside(&self) -> BTreeSet<Cidr> {
        let workloads = self.workloads.iter().flat_map(|one| one.addresses.iter().copied());
        let control = self.control.iter().map(SocketAddr::ip);
        let hosts = workloads.chain(control).chain(self.names.iter().copied()).map(Cidr::host);
        hosts.chain(self.inside.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests;
