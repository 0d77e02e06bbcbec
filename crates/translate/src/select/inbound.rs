//! What a sidecar does with connections that its workload receives.
//!
//! In:    the services of which the workload is an endpoint, and the mesh's rules on mutual TLS.
//! Out:   `virtualInbound` with chains for each port and for all others; the clusters behind them.
//! Never: a chain that takes plain text where mutual TLS is demanded.
//!
//! Only a workload whose connections a packet filter redirects has this side. Nothing can be received
//! in a jail: it has no interface but loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use sluis_model::{MeshPort, MeshService, Mtls, MtlsMode};
use sluis_resources::{ConnectionPool, InboundTrafficPolicy, MeshConfig, Protocol};

use super::{Selection, ingress, outbound::owner, tls};
use crate::{
    Capture, EndpointInput, Fault, InboundChain, InboundCluster, InboundHandler, InboundInputs,
    InboundListener, InboundPool, InboundProtocol, InboundService, ServerTls, Transport,
};

/// The cluster of ports that no service has.
const PASSTHROUGH: &str = "InboundPassthroughCluster";

/// The capturing listener, and its chains for connections that nothing else claims.
const VIRTUAL: &str = "virtualInbound";
const VIRTUAL_HTTP: &str = "virtualInbound-catchall-http";
const BLACK_HOLE_CHAIN: &str = "virtualInbound-blackhole";

/// The addresses from which the workload is spoken to, so that a packet filter tells the proxy's
/// connections from the workload's own (Istio's figures).
const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// What sidecars of the mesh name by ALPN: for bytes, and for requests.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What the HTTP inspector names.
const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// Cipher suites of the mesh's own TLS 1.2 (Istio's list).
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// What a port speaks, as far as chains are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http,
    Tcp,
    Auto,
}

/// One port that the workload serves.
pub(super) struct Served {
    port: MeshPort,
    services: Vec<Arc<MeshService>>,
}

/// The inbound side of a sidecar; `None` when it receives nothing.
pub(super) fn select(selection: &mut Selection<'_>) -> Option<InboundInputs> {
    let is_captured = match selection.view.capture {
        Capture::Redirect => true,
        Capture::None => false,
        Capture::Jail | Capture::ProxyProtocolPipe(_) => return None,
    };
    let (view, mesh) = (selection.view, selection.snapshot.mesh());
    let mtls = selection.snapshot.mtls(&view.name.namespace, &view.labels);
    let served = served(selection);
    let scope = selection.scope.clone();
    let sidecar = scope.as_ref().and_then(|scope| scope.sidecar.as_ref());
    let mut clusters = vec![passthrough_cluster(selection)];
    let (mut listeners, mut chains) = (Vec::new(), Vec::new());
    let mut ports: BTreeSet<u16> = served.keys().copied().collect();
    match sidecar.filter(|sidecar| !sidecar.spec().ingress.is_empty()) {
        Some(sidecar) => {
            let made = ingress::select(selection, sidecar, &mtls, &served);
            ports = sidecar.spec().ingress.iter().map(|one| one.port.number).collect();
            clusters.extend(made.clusters);
            listeners.extend(made.listeners);
            chains.extend(made.chains);
        }
        None => {
            let pool = sidecar.and_then(|owned| owned.spec().inbound_connection_pool.as_ref());
            for (number, served) in served.iter().filter(|_| is_captured) {
                chains.extend(port_chains(selection, *number, served, mtls.of_port(*number)));
                let made = cluster(selection, *number, served);
                clusters.push(pool.into_iter().fold(made, limited));
            }
        }
    }
    if !is_captured && listeners.is_empty() {
        return None;
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let mut all = passthrough_chains(mesh, &mtls, &ports);
    all.append(&mut chains);
    let chains = all;
    let listener = InboundListener {
        name: VIRTUAL.to_owned(),
        address: view.wildcard(),
        additional: view.second_wildcard().into_iter().collect(),
        port: mesh.proxy_inbound_listen_port,
        is_captured: true,
        is_transparent: selection.is_transparent(),
        detection_timeout: mesh.protocol_detection_timeout,
        chains,
        authorization: selection.authorization(),
    };
    if is_captured {
        listeners.insert(0, listener);
    }
    Some(InboundInputs { listeners, clusters })
}

/// The ports of the workload and the services that lead to them, the oldest first.
fn served(selection: &mut Selection<'_>) -> BTreeMap<u16, Served> {
    let (view, snapshot) = (selection.view, selection.snapshot);
    let mut services: Vec<&Arc<MeshService>> =
        snapshot.services_of(&view.name.namespace, &view.labels, view.address).collect();
    services.sort_by_key(|service| (service.created.unwrap_or(0), service.host.clone()));
    let mut served: BTreeMap<u16, Served> = BTreeMap::new();
    for service in services {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let Some(number) = snapshot.own_port(&view.name, service, port) else { continue };
            if number == snapshot.mesh().proxy_inbound_listen_port {
                let message = format!("port {number} is the proxy's own: it is not served");
                let fault = Fault::error(port.at.clone(), message).of(owner(service));
                selection.faults.push(fault.field(format!("spec.ports[{}]", port.name)));
                continue;
            }
            let Some(first) = served.get_mut(&number) else {
                let services = vec![Arc::clone(service)];
                served.insert(number, Served { port: port.clone(), services });
                continue;
            };
            if first.port.protocol != port.protocol && first.services[0].host != service.host {
                let (older, kept) = (owner(&first.services[0]), first.port.protocol);
                let message = format!(
                    "port {number} of the workload is {kept} already, by the older {older}: {} is \
                     not heard",
                    port.protocol
                );
                let fault = Fault::warning(port.at.clone(), message).of(owner(service));
                selection.faults.push(fault.field(format!("spec.ports[{}]", port.name)));
            }
            if !first.services.iter().any(|known| known.host == service.host) {
                first.services.push(Arc::clone(service));
            }
        }
    }
    served
}

/// The chains of ports that no service has, and the guard against loops.
fn passthrough_chains(mesh: &MeshConfig, mtls: &Mtls, served: &BTreeSet<u16>) -> Vec<InboundChain> {
    let mut chains = vec![InboundChain {
        name: BLACK_HOLE_CHAIN.to_owned(),
        port: Some(mesh.proxy_inbound_listen_port),
        transport: Transport::Any,
        alpn: Vec::new(),
        tls: None,
        handler: InboundHandler::Refuse,
        config: None,
    }];
    let alone = mtls.ports().filter(|(port, _)| !served.contains(port));
    let all = std::iter::once((None, mtls.mode()));
    for (port, mode) in all.chain(alone.map(|(port, mode)| (Some(port), mode))) {
        for claim in claims(Spoken::Auto, mode) {
            let (name, handler) = if claim.is_http {
                let handler = InboundHandler::Http {
                    cluster: PASSTHROUGH.to_owned(),
                    service_port: 0,
                    operation: ":0/*".to_owned(),
                    stat_prefix: format!("{PASSTHROUGH};"),
                    is_http2: false,
                    is_retried: true,
                };
                (VIRTUAL_HTTP, handler)
            } else {
                let cluster = PASSTHROUGH.to_owned();
                (VIRTUAL, InboundHandler::Tcp { stat_prefix: cluster.clone(), cluster })
            };
            chains.push(claim.chain(name.to_owned(), port, handler, mesh));
        }
    }
    chains
}

fn port_chains(
    selection: &Selection<'_>,
    number: u16,
    served: &Served,
    mode: MtlsMode,
) -> Vec<InboundChain> {
    let (port, service) = (&served.port, &served.services[0]);
    let name = format!("{}_{number}", selection.view.wildcard());
    let cluster = cluster_name(number);
    claims(spoken(port.protocol), mode)
        .into_iter()
        .map(|claim| {
            let handler = if claim.is_http {
                InboundHandler::Http {
                    cluster: cluster.clone(),
                    service_port: port.number,
                    operation: format!("{}:{}/*", service.host, port.number),
                    stat_prefix: format!("inbound_{name};"),
                    is_http2: is_http2(port.protocol),
                    is_retried: true,
                }
            } else {
                InboundHandler::Tcp { cluster: cluster.clone(), stat_prefix: cluster.clone() }
            };
            claim.chain(name.clone(), Some(number), handler, selection.snapshot.mesh())
        })
        .collect()
}

/// What one chain claims, and whether it reads HTTP and terminates the mesh's TLS.
pub(super) struct Claim {
    pub(super) is_http: bool,
    is_terminated: bool,
    transport: Transport,
    alpn: Vec<&'static str>,
}

impl Claim {
    pub(super) fn tls(is_http: bool, alpn: &[&'static str]) -> Self {
        Self { is_http, is_terminated: true, transport: Transport::Tls, alpn: alpn.to_vec() }
    }

    fn plain(is_http: bool, alpn: &[&'static str]) -> Self {
        Self { is_http, is_terminated: false, transport: Transport::Plain, alpn: alpn.to_vec() }
    }

    /// TLS that the workload terminates itself.
    fn opaque() -> Self {
        Self { transport: Transport::Tls, ..Self::plain(false, &[]) }
    }

    pub(super) fn chain(
        self,
        name: String,
        port: Option<u16>,
        handler: InboundHandler,
        mesh: &MeshConfig,
    ) -> InboundChain {
        InboundChain {
            name,
            port,
            transport: self.transport,
            alpn: self.alpn.into_iter().map(str::to_owned).collect(),
            tls: self.is_terminated.then(|| mutual(self.is_http, mesh)),
            handler,
            config: None,
        }
    }
}

/// Istio's chains for a protocol and a mode: `PERMISSIVE` tells the mesh's own TLS by its ALPN.
pub(super) fn claims(spoken: Spoken, mode: MtlsMode) -> Vec<Claim> {
    let any_mesh: Vec<&'static str> = MESH_TCP.into_iter().rev().chain(MESH_HTTP).collect();
    match (spoken, mode) {
        (Spoken::Http, MtlsMode::Strict) => vec![Claim::tls(true, &[])],
        (Spoken::Http, MtlsMode::Permissive) => {
            vec![Claim::tls(true, &any_mesh), Claim::plain(true, &[])]
        }
        (Spoken::Http, MtlsMode::Disable) => vec![Claim::plain(true, &[])],
        (Spoken::Tcp, MtlsMode::Strict) => vec![Claim::tls(false, &[])],
        (Spoken::Tcp, MtlsMode::Permissive) => {
            vec![Claim::tls(false, &any_mesh), Claim::plain(false, &[]), Claim::opaque()]
        }
        (Spoken::Tcp, MtlsMode::Disable) => vec![Claim::plain(false, &[])],
        (Spoken::Auto, MtlsMode::Strict) => {
            vec![Claim::tls(true, &MESH_HTTP), Claim::tls(false, &[])]
        }
        (Spoken::Auto, MtlsMode::Permissive) => vec![
            Claim::tls(true, &MESH_HTTP),
            Claim::plain(true, &PLAIN_HTTP),
            Claim::tls(false, &MESH_TCP),
            Claim::plain(false, &[]),
            Claim::opaque(),
        ],
        (Spoken::Auto, MtlsMode::Disable) => {
            vec![Claim::plain(true, &PLAIN_HTTP), Claim::plain(false, &[])]
        }
    }
}

/// The mesh's own TLS, towards clients.
fn mutual(is_http: bool, mesh: &MeshConfig) -> ServerTls {
    let alpn: &[&str] =
        if is_http { &["h2", "http/1.1"] } else { &["istio-peer-exchange", "h2", "http/1.1"] };
    let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
    let ciphers = match mesh.mesh_mtls_cipher_suites.as_slice() {
        [] => CIPHERS.iter().map(|name| (*name).to_owned()).collect(),
        written => written.to_vec(),
    };
    tls::mesh_server(mesh, alpn, ciphers)
}

pub(super) fn spoken(protocol: Protocol) -> Spoken {
    match protocol {
        _ if protocol.is_http() => Spoken::Http,
        Protocol::Unknown => Spoken::Auto,
        _ => Spoken::Tcp,
    }
}

pub(super) fn is_http2(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
}

pub(super) fn cluster_name(port: u16) -> String {
    format!("inbound|{port}||")
}

pub(super) fn passthrough_cluster(selection: &Selection<'_>) -> InboundCluster {
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

pub(super) fn cluster(selection: &Selection<'_>, number: u16, served: &Served) -> InboundCluster {
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
    let name = |service: &Arc<MeshService>| InboundService {
        host: service.host.to_string(),
        name: service.object.name.to_string(),
        namespace: service.object.namespace.to_string(),
    };
    let made = InboundCluster {
        name: cluster_name(number),
        protocol: protocol(port.protocol),
        port: port.number,
        services: served.services.iter().map(name).collect(),
        config,
        ..passthrough_cluster(selection)
    };
    let sources = if endpoint.is_some() { Vec::new() } else { made.sources };
    let made = InboundCluster { endpoint, sources, ..made };
    policy.connection_pool.iter().fold(made, limited)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spoken: Spoken, mode: MtlsMode) -> Vec<String> {
        let show = |claim: Claim| {
            let what = if claim.is_http { "http" } else { "tcp" };
            let layer = if claim.is_terminated { "mtls" } else { "as-is" };
            format!("{:?} {} -> {what} {layer}", claim.transport, claim.alpn.join(","))
        };
        claims(spoken, mode).into_iter().map(show).collect()
    }

    #[test]
    fn each_protocol_and_mode_has_istios_chains() {
        let check = |spoken, mode, expected: &[&str]| {
            assert_eq!(shown(spoken, mode), expected, "{spoken:?} {mode:?}");
        };
        let all = "istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2";
        let mesh_http = "istio-http/1.0,istio-http/1.1,istio-h2";
        use MtlsMode::{Disable, Permissive, Strict};
        check(Spoken::Http, Strict, &["Tls  -> http mtls"]);
        check(
            Spoken::Http,
            Permissive,
            &[&format!("Tls {all} -> http mtls"), "Plain  -> http as-is"],
        );
        check(Spoken::Http, Disable, &["Plain  -> http as-is"]);
        check(Spoken::Tcp, Strict, &["Tls  -> tcp mtls"]);
        check(
            Spoken::Tcp,
            Permissive,
            &[&format!("Tls {all} -> tcp mtls"), "Plain  -> tcp as-is", "Tls  -> tcp as-is"],
        );
        check(Spoken::Tcp, Disable, &["Plain  -> tcp as-is"]);
        let detected = format!("Tls {mesh_http} -> http mtls");
        check(Spoken::Auto, Strict, &[&detected, "Tls  -> tcp mtls"]);
        check(
            Spoken::Auto,
            Permissive,
            &[
                &detected,
                "Plain http/1.1,h2c -> http as-is",
                "Tls istio-peer-exchange,istio -> tcp mtls",
                "Plain  -> tcp as-is",
                "Tls  -> tcp as-is",
            ],
        );
        check(Spoken::Auto, Disable, &["Plain http/1.1,h2c -> http as-is", "Plain  -> tcp as-is"]);
    }
}
