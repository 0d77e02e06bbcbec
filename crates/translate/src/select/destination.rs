//! From the destination of a route to the name of a cluster.
//!
//! # TLS inside TLS
//!
//! A `tls` route forwards bytes that the client has encrypted already. When the `DestinationRule` of
//! its destination asks `mode: SIMPLE` with an `sni` that is one of the route's own `sniHosts`, the
//! plain reading wraps the client's TLS in a second one with the same name. The gateway at the other
//! end takes off the outer layer, reads the client's hello as HTTP and answers 400 (Envoy:
//! `http1.codec_error`; the client sees "wrong version number"). No user can want that, and published
//! manifests ask for it, because for the `http` routes to the same subset the rule is right.
//!
//! So such a route goes to a variant of the cluster which adds no TLS: the bytes arrive as the client
//! made them, under the very name that the rule asks for. The variant's name is that of the cluster
//! with [`CLIENT_TLS`] behind it. The cluster itself keeps its TLS for everybody else. A rule with
//! another `sni`, or none, or another mode is followed to the letter: two layers with two names are a
//! tunnel that somebody may want.

use std::sync::Arc;

use sluis_model::{MeshService, Rule, SERVICE_DOMAIN};
use sluis_nouns::HostPattern;
use sluis_resources::{ClientTlsMode, Destination, L4Destination, Meta};

use super::Selection;
use crate::{Fault, HeaderChanges, Target};

/// What stands behind the name of a cluster for bytes that carry the client's own TLS.
pub const CLIENT_TLS: &str = "~client-tls";

/// What tells a cluster from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterKey {
    pub(crate) host: HostPattern,
    pub(crate) subset: String,
    pub(crate) port: u16,
}

impl ClusterKey {
    /// Istio's name: `outbound|PORT|SUBSET|HOST`.
    pub(crate) fn name(&self) -> String {
        format!("outbound|{}|{}|{}", self.port, self.subset, self.host)
    }
}

impl Selection<'_> {
    /// The rule that holds for this proxy and a service.
    pub(super) fn rule(&self, service: &MeshService) -> Option<Arc<Rule>> {
        self.snapshot.rule(&self.view.name.namespace, &self.view.labels, service).cloned()
    }

    /// The cluster of a destination, for traffic of port `listener_port`.
    ///
    /// What the registry does not hold still gets its name, as in Istio: the proxy refuses traffic
    /// to a cluster that it does not have, and the fault says why.
    pub(super) fn destination(
        &mut self,
        meta: &Meta,
        destination: &Destination,
        listener_port: u16,
    ) -> ClusterKey {
        let host = destination.host.qualified(&meta.name.namespace, SERVICE_DOMAIN);
        let service = self.service(&host);
        let lone = service.as_ref().and_then(|service| match service.ports.as_slice() {
            [port] => Some(port.number),
            _ => None,
        });
        let port = destination.port.or(lone).unwrap_or(listener_port);
        let subset = destination.subset.clone().unwrap_or_default();
        let trouble = match &service {
            None => Some(("host", format!("no service {host} is visible from here"))),
            Some(service) if service.port(port).is_none() => {
                Some(("port", format!("{host} has no port {port}")))
            }
            Some(service) if !subset.is_empty() => self
                .rule(service)
                .is_none_or(|rule| rule.subset(&subset).is_none())
                .then(|| ("subset", format!("no DestinationRule gives {host} a subset {subset}"))),
            Some(_) => None,
        };
        if let Some((field, message)) = trouble {
            let fault = Fault::warning(destination.at.clone(), message);
            self.fault(meta, fault.field(format!("destination.{field}")));
        }
        ClusterKey { host, subset, port }
    }

    /// The targets of a `tls` or `tcp` route. `server_names` are the names under which the client's
    /// own TLS comes; empty when it has none that is known.
    pub(super) fn l4_targets(
        &mut self,
        meta: &Meta,
        routes: &[L4Destination],
        listener_port: u16,
        server_names: &[HostPattern],
    ) -> Vec<Target> {
        let mut targets = Vec::new();
        for route in routes {
            if route.weight == 0 && routes.len() > 1 {
                continue;
            }
            let key = self.destination(meta, &route.destination, listener_port);
            let cluster = self.cluster_for_client_tls(key, server_names);
            targets.push(Target {
                cluster,
                weight: route.weight.max(1),
                headers: HeaderChanges::default(),
                host_rewrite: None,
            });
        }
        targets
    }

    /// The name of the cluster, or of its variant without TLS where the module's page says so.
    pub(super) fn cluster_for_client_tls(
        &mut self,
        key: ClusterKey,
        server_names: &[HostPattern],
    ) -> String {
        let name = key.name();
        if !self.would_wrap_twice(&key, server_names) {
            return name;
        }
        if !self.client_tls_clusters.contains(&key) {
            self.client_tls_clusters.push(key);
        }
        name + CLIENT_TLS
    }

    fn would_wrap_twice(&self, key: &ClusterKey, server_names: &[HostPattern]) -> bool {
        let Some(service) = self.service(&key.host) else { return false };
        let Some(rule) = self.rule(&service) else { return false };
        let policy = rule.policy(rule.subset(&key.subset), key.port);
        let Some(tls) = policy.tls else { return false };
        tls.mode == ClientTlsMode::Simple
            && tls.sni.is_some_and(|sni| server_names.iter().any(|name| name.matches(&sni)))
    }
}
