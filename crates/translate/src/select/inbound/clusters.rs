//! The clusters by which a workload is spoken to.
//!
//! In:    a port that the workload serves, and the services that lead to it.
//! Out:   its cluster, under the limits that the destination's rule sets.
//! Never: leads anywhere but to the workload itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use sluis_model::{MeshPort, MeshService};
use sluis_resources::{ConnectionPool, InboundTrafficPolicy, Protocol};

use super::claims::{Spoken, is_http2, spoken};
use crate::{
    EndpointInput, InboundCluster, InboundPool, InboundProtocol, InboundService, select::Selection,
};

/// The cluster of ports that no service has.
pub(super) const PASSTHROUGH: &str = "InboundPassthroughCluster";

/// The addresses from which the workload is spoken to, so that a packet filter tells the proxy's
/// connections from the workload's own (Istio's figures).
const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// One port that the workload serves.
pub(super) struct Served {
    pub(super) port: MeshPort,
    pub(super) services: Vec<Arc<MeshService>>,
}

/// The name of a port's cluster (Istio's).
pub(super) fn name(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The cluster of ports that no service has.
pub(super) fn passthrough(selection: &Selection<'_>) -> InboundCluster {
    let sources = match (selection.view.wildcard(), selection.view.second_wildcard()) {
        (_, Some(_)) => vec![SOURCE_V4, SOURCE_V6],
        (IpAddr::V4(_), None) => vec![SOURCE_V4],
        (IpAddr::V6(_), None) => vec![SOURCE_V6],
    };
    InboundCluster {
        name: PASSTHROUGH.to_owned(),
        endpoint: None,
        sources,
        protocol: InboundProtocol::AsClient,
        port: 0,
        services: Vec::new(),
        pool: InboundPool::default(),
        connect_timeout: selection.snapshot.mesh().connect_timeout,
        config: None,
    }
}

/// The cluster of a port.
pub(super) fn of_port(selection: &Selection<'_>, number: u16, served: &Served) -> InboundCluster {
    let mesh = selection.snapshot.mesh();
    let (port, service) = (&served.port, &served.services[0]);
    let endpoint = match mesh.inbound_traffic_policy {
        InboundTrafficPolicy::Passthrough => None,
        InboundTrafficPolicy::Localhost => Some(EndpointInput {
            address: Ipv4Addr::LOCALHOST.to_string(),
            port: Some(number),
            weight: 1,
            ..EndpointInput::default()
        }),
    };
    let rule = selection.rule(service);
    let policy = rule.as_ref().map(|rule| rule.policy(None, port.number)).unwrap_or_default();
    let config = rule.map(|rule| {
        let (namespace, name) = (&rule.object.namespace, &rule.object.name);
        format!("/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}")
    });
    let told = |service: &Arc<MeshService>| InboundService {
        host: service.host.to_string(),
        name: service.object.name.to_string(),
        namespace: service.object.namespace.to_string(),
    };
    let made = InboundCluster {
        name: name(number),
        protocol: protocol(port.protocol),
        port: port.number,
        services: served.services.iter().map(told).collect(),
        config,
        ..passthrough(selection)
    };
    let sources = if endpoint.is_some() { Vec::new() } else { made.sources };
    let made = InboundCluster { endpoint, sources, ..made };
    policy.connection_pool.iter().fold(made, limited)
}

/// How the workload is spoken to.
pub(super) fn protocol(protocol: Protocol) -> InboundProtocol {
    match spoken(protocol) {
        _ if is_http2(protocol) => InboundProtocol::Http2,
        Spoken::Auto => InboundProtocol::AsClient,
        Spoken::Http | Spoken::Tcp => InboundProtocol::Http1,
    }
}

/// The cluster under the limits of a connection pool.
pub(super) fn limited(mut cluster: InboundCluster, pool: &ConnectionPool) -> InboundCluster {
    let (tcp, http) = (&pool.tcp, &pool.http);
    cluster.pool = InboundPool {
        connections_max: tcp.max_connections,
        pending_max: http.http1_max_pending_requests,
        requests_max: http.http2_max_requests,
        retries_max: http.max_retries,
        requests_per_connection_max: http.max_requests_per_connection.filter(|count| *count > 0),
        idle_timeout: http.idle_timeout.or(tcp.idle_timeout),
        connection_duration_max: tcp.max_connection_duration,
        streams_max: http.max_concurrent_streams,
        keepalive: tcp.keepalive.as_ref().map(|kept| (kept.probes, kept.time, kept.interval)),
    };
    if let Some(timeout) = tcp.connect_timeout {
        cluster.connect_timeout = timeout;
    }
    if http.use_client_protocol {
        cluster.protocol = InboundProtocol::AsClient;
    }
    cluster
}
