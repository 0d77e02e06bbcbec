//! The proxy that asks, as far as clusters depend on it. Proxies of one namespace with an equal one
//! get equal clusters.

use std::sync::Arc;

use sluis_model::{Locality, placed};
use sluis_nouns::Labels;

use super::super::Selection;
use crate::{DnsFamily, Role};

/// The proxy that asks, as far as clusters depend on it.
pub(super) struct Client<'a> {
    pub(super) locality: Locality,
    /// Its labels, and those that say where it is.
    pub(super) labels: Labels,
    /// The node that it runs on; empty where none is known.
    pub(super) node: Arc<str>,
    view: &'a crate::ProxyView,
}

impl<'a> Client<'a> {
    pub(super) fn of(selection: &Selection<'a>) -> Self {
        let view = selection.view;
        // What the proxy says of itself, else what is written about its workload.
        let told = Locality::of(&view.node.locality);
        let locality = if told.is_empty() { selection.snapshot.locality(&view.name) } else { told };
        let node = match view.node.node_name.as_str() {
            "" => selection.snapshot.node_of(&view.name),
            told => told.into(),
        };
        let labels = placed(view.labels.clone(), &locality, &view.node.network, &node);
        Self { locality, labels, node, view }
    }

    pub(super) fn is_sidecar(&self) -> bool {
        self.view.role == Role::Sidecar
    }
}

impl Selection<'_> {
    /// The family of addresses that names are resolved to. As Istio: that of the proxy's own addresses,
    /// IPv4 alone where it has both.
    pub(in crate::select) fn dns_family(&self) -> DnsFamily {
        let own = std::slice::from_ref(&self.view.address);
        let all = [own, &self.view.node.instance_ips].concat();
        if all.iter().all(std::net::IpAddr::is_ipv6) { DnsFamily::V6 } else { DnsFamily::V4 }
    }
}
