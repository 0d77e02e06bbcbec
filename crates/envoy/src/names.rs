//! The name table: Istio's own resource, which tells a sidecar's resolver what to answer.

use std::collections::BTreeMap;

/// `istio.networking.nds.v1.NameTable`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NameTable {
    /// From a host name (lower case, no trailing dot; `*.suffix` for a wildcard) to its addresses.
    #[prost(btree_map = "string, message", tag = "1")]
    pub table: BTreeMap<String, NameInfo>,
}

/// What the table says of one name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NameInfo {
    /// The addresses to answer with: IPv4 and IPv6 in text form.
    #[prost(string, repeated, tag = "1")]
    pub ips: Vec<String>,
    /// Where the name comes from: `Kubernetes` or `External`.
    #[prost(string, tag = "2")]
    pub registry: String,
    /// The service's short name, for Kubernetes services.
    #[prost(string, tag = "3")]
    pub shortname: String,
    /// The service's namespace, for Kubernetes services.
    #[prost(string, tag = "4")]
    pub namespace: String,
}

impl prost::Name for NameTable {
    const NAME: &'static str = "NameTable";
    const PACKAGE: &'static str = "istio.networking.nds.v1";
}
