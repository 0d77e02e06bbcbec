//! What the rule of a destination says of routes and chains that lead there.
//!
//! In:    the `DestinationRule` that holds for this proxy and a destination.
//! Out:   what requests are hashed by, and the options of TCP connections.
//! Never: chooses the cluster's own settings; those are `cluster`'s.

use sluis_model::{Policy, PortTarget};
use sluis_nouns::HostPattern;
use sluis_resources::{ClientTlsMode, HashKey, L4Destination, Meta, Resolution, TunnelMethod};

use super::{Selection, destination::ClusterKey};
use crate::{DnsFamily, HashInput, TcpOptions, TunnelInput};

impl Selection<'_> {
    /// What requests for a destination are hashed by, when it chooses endpoints by hash.
    pub(super) fn hash(&self, key: &ClusterKey) -> Option<HashInput> {
        let hash = self.policy_of(key).load_balancer?.consistent_hash?;
        Some(match hash.key {
            HashKey::Header(name) => HashInput::Header(name),
            HashKey::Cookie(cookie) => HashInput::Cookie {
                name: cookie.name,
                path: cookie.path.unwrap_or_default(),
                ttl: cookie.ttl,
                attributes: cookie.attributes,
            },
            HashKey::SourceIp => HashInput::SourceIp,
            HashKey::QueryParameter(name) => HashInput::Query(name),
        })
    }

    /// The options of connections to the destinations of a route: those of the first decide, as in
    /// Istio.
    pub(super) fn l4_options(
        &mut self,
        meta: &Meta,
        routes: &[L4Destination],
        listener_port: u16,
    ) -> TcpOptions {
        let Some(route) = routes.first() else { return TcpOptions::default() };
        let mut key = self.destination(meta, &route.destination, listener_port);
        let options = self.tcp_options(&key);
        if routes.len() == 1 {
            return options;
        }
        // The tunnel is the listener's: shares of several clusters have that of the whole service.
        key.subset.clear();
        TcpOptions { tunnel: self.tunnel(&key), ..options }
    }

    /// The options of connections to one destination.
    pub(super) fn tcp_options(&self, key: &ClusterKey) -> TcpOptions {
        let policy = self.policy_of(key);
        let tcp = policy.connection_pool.unwrap_or_default().tcp;
        TcpOptions {
            is_hashed_by_source: self.hash(key) == Some(HashInput::SourceIp),
            idle_timeout: tcp.idle_timeout,
            connection_duration_max: tcp.max_connection_duration,
            tunnel: self.tunnel(key),
            dynamic: self.dynamic(key),
            passes_name: false,
        }
    }

    /// The options of connections that come under one of several server names.
    ///
    /// Where the mesh's own TLS towards the first destination has no server name written for it, it has
    /// the client's: a gateway then knows which of the names is meant. Istio's own name for it,
    /// `outbound_.PORT_.SUBSET_.HOST`, tells a gateway nothing of a wildcard.
    pub(super) fn named_options(
        &mut self,
        meta: &Meta,
        routes: &[L4Destination],
        listener_port: u16,
        names: &[HostPattern],
    ) -> TcpOptions {
        let options = self.l4_options(meta, routes, listener_port);
        let Some(route) = routes.first().filter(|_| names.iter().any(HostPattern::is_wildcard))
        else {
            return options;
        };
        let key = self.destination(meta, &route.destination, listener_port);
        let passes_name = self
            .policy_of(&key)
            .tls
            .is_some_and(|tls| tls.mode == ClientTlsMode::IstioMutual && tls.sni.is_none());
        TcpOptions { passes_name, ..options }
    }

    fn tunnel(&self, key: &ClusterKey) -> Option<TunnelInput> {
        let rule = self.service(&key.host).and_then(|service| self.rule(&service))?;
        let subset = rule.subset(&key.subset);
        // A subset that does not exist has no tunnel, and no cluster either.
        let tunnel = (subset.is_some() || key.subset.is_empty()).then(|| rule.tunnel(subset))??;
        let host = &tunnel.target_host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Some(TunnelInput {
            target: format!("{host}:{}", tunnel.target_port),
            is_post: tunnel.method == TunnelMethod::Post,
        })
    }

    /// How the server name is resolved, for a destination that means a name of the client's choice.
    fn dynamic(&self, key: &ClusterKey) -> Option<(DnsFamily, u16)> {
        let service = self.service(&key.host)?;
        let port = service.port(key.port).filter(|port| port.protocol.is_tls())?;
        let target = match port.target {
            PortTarget::Number(target) => target,
            PortTarget::Name(_) => port.number,
        };
        (service.resolution == Resolution::DynamicDns).then(|| (self.dns_family(), target))
    }

    fn policy_of(&self, key: &ClusterKey) -> Policy {
        let rule = self.service(&key.host).and_then(|service| self.rule(&service));
        rule.map(|rule| rule.policy(rule.subset(&key.subset), key.port)).unwrap_or_default()
    }
}
