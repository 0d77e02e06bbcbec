//! The nouns of the mesh: identities, hosts, labels, names, addresses and places in files.
//!
//! In:    text that a user or a peer wrote.
//! Out:   values that have been checked once and need no second look.
//! Never: does I/O, reads a clock, or knows a protocol.
//!
//! Start at [`WorkloadId`] (who) and [`HostPattern`] (where to).

mod annotations;
mod cidr;
mod host;
mod id;
mod labels;
mod name;
mod percent;
mod place;

pub use annotations::CAPTURE_ANNOTATIONS;
pub use cidr::{Cidr, CidrError};
pub use host::{DisjointHosts, HostPattern, HostPatternError};
pub use id::{TrustDomain, TrustDomainError, WorkloadId, WorkloadIdError};
pub use labels::Labels;
pub use name::{ObjectName, is_dns_label, is_dns_name};
pub use percent::{Percent, PercentError};
pub use place::SourceRef;
