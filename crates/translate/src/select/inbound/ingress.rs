//! The inbound side of a workload whose `Sidecar` lists its ports.
//!
//! In:    `ingress` of the `Sidecar`: ports, binds, and where the workload listens.
//! Out:   chains of the capturing listener, listeners of their own, and the clusters behind them.
//! Never: serves a port of a service that the `Sidecar` does not list.

use std::net::{IpAddr, Ipv4Addr};

use sluis_model::{Mtls, MtlsMode, Owned};
use sluis_resources::{CaptureMode, DefaultEndpoint, IngressListener, Protocol, Sidecar};

use super::{
    claims::{Claim, Spoken, claims, is_http2, spoken},
    clusters::{self, Served},
};
use crate::{
    Capture, EndpointInput, Fault, InboundChain, InboundCluster, InboundHandler, InboundListener,
    InboundService, Transport,
    select::{Selection, server_tls},
};

/// What an ingress listener came to.
pub(super) struct Made {
    /// Chains of the capturing listener.
    pub(super) chains: Vec<InboundChain>,
    /// Listeners with a socket of their own.
    pub(super) listeners: Vec<InboundListener>,
    /// The clusters.
    pub(super) clusters: Vec<InboundCluster>,
}

/// The listeners of a `Sidecar`, in order of port.
pub(super) fn select(
    selection: &mut Selection<'_>,
    sidecar: &Owned<Sidecar>,
    mtls: &Mtls,
    served: &std::collections::BTreeMap<u16, Served>,
) -> Made {
    let mut made = Made { chains: Vec::new(), listeners: Vec::new(), clusters: Vec::new() };
    let mut written: Vec<&IngressListener> = sidecar.spec().ingress.iter().collect();
    written.sort_by_key(|one| one.port.number);
    for one in written {
        let own = selection.snapshot.mesh().proxy_inbound_listen_port;
        if one.port.number == own {
            let message = format!("port {own} is the proxy's own: it is not served");
            let fault = Fault::error(one.at.clone(), message).field("spec.ingress.port");
            selection.fault(sidecar.meta(), fault);
            continue;
        }
        let is_bound = match one.capture_mode {
            CaptureMode::None => true,
            CaptureMode::Default => selection.view.capture == Capture::None,
            CaptureMode::Iptables => false,
        };
        let chains = chains(selection, sidecar, one, mtls.of_port(one.port.number), is_bound);
        made.clusters.push(cluster(selection, sidecar, one, served.get(&one.port.number)));
        if is_bound {
            made.listeners.push(InboundListener {
                name: listener_name(selection, one),
                address: one.bind.unwrap_or_else(|| selection.view.wildcard()),
                additional: match one.bind {
                    Some(_) => Vec::new(),
                    None => selection.view.second_wildcard().into_iter().collect(),
                },
                port: one.port.number,
                is_captured: false,
                is_transparent: false,
                detection_timeout: selection.snapshot.mesh().protocol_detection_timeout,
                chains,
                authorization: selection.authorization(),
            });
        } else {
            made.chains.extend(chains);
        }
    }
    made
}

fn listener_name(selection: &Selection<'_>, one: &IngressListener) -> String {
    let address = one.bind.unwrap_or_else(|| selection.view.wildcard());
    format!("{address}_{}", one.port.number)
}

fn chains(
    selection: &mut Selection<'_>,
    sidecar: &Owned<Sidecar>,
    one: &IngressListener,
    mode: MtlsMode,
    is_bound: bool,
) -> Vec<InboundChain> {
    let mut protocol = one.port.protocol;
    let mut of_user = None;
    if let Some(written) = &one.tls {
        if mode == MtlsMode::Disable {
            // Under the TLS of an HTTPS port there is HTTP.
            protocol = match protocol {
                Protocol::Https => Protocol::Http,
                Protocol::Tls => Protocol::Tcp,
                other => other,
            };
            let is_http = spoken(protocol) == Spoken::Http;
            match server_tls::server(written, is_http, selection.snapshot.mesh()) {
                Ok(tls) => of_user = Some(tls),
                Err((field, message)) => {
                    let fault = Fault::error(one.at.clone(), message);
                    selection.fault(sidecar.meta(), fault.field(format!("spec.ingress.{field}")));
                    return Vec::new();
                }
            }
        } else {
            let message = "it is left out: the mesh's own TLS is taken on this port";
            let fault = Fault::warning(one.at.clone(), message)
                .field("spec.ingress.tls")
                .help("a PeerAuthentication with mode DISABLE for the port makes room for it");
            selection.fault(sidecar.meta(), fault);
        }
    }
    let (number, meta) = (one.port.number, sidecar.meta());
    let name = listener_name(selection, one);
    let cluster = clusters::name(number);
    let claims = if of_user.is_some() {
        vec![Claim::tls(spoken(protocol) == Spoken::Http, &[])]
    } else {
        claims(spoken(protocol), mode)
    };
    let operation = format!("{}.{}:{number}/*", meta.name.name, meta.name.namespace);
    let (namespace, sidecar_name) = (&meta.name.namespace, &meta.name.name);
    claims
        .into_iter()
        .map(|claim| {
            let handler = if claim.is_http {
                InboundHandler::Http {
                    cluster: cluster.clone(),
                    service_port: number,
                    operation: operation.clone(),
                    stat_prefix: format!("inbound_{name};"),
                    is_http2: is_http2(protocol),
                    is_retried: true,
                }
            } else {
                InboundHandler::Tcp { cluster: cluster.clone(), stat_prefix: cluster.clone() }
            };
            let mesh = selection.snapshot.mesh();
            let mut chain = claim.chain(name.clone(), Some(number), handler, mesh);
            if is_bound {
                // Its socket has one port alone.
                chain.port = None;
            }
            if let Some(tls) = &of_user {
                chain.tls = Some(tls.clone());
                chain.transport = Transport::Tls;
            }
            chain.config = Some(format!(
                "/apis/networking.istio.io/v1/namespaces/{namespace}/sidecar/{sidecar_name}"
            ));
            chain
        })
        .collect()
}

fn cluster(
    selection: &Selection<'_>,
    sidecar: &Owned<Sidecar>,
    one: &IngressListener,
    served: Option<&Served>,
) -> InboundCluster {
    let number = one.port.number;
    let mut made = match served {
        Some(served) => clusters::of_port(selection, number, served),
        None => clusters::passthrough(selection),
    };
    made.name = clusters::name(number);
    made.port = number;
    made.protocol = clusters::protocol(one.port.protocol);
    if made.services.is_empty() {
        let (name, namespace) = (&sidecar.meta().name.name, &sidecar.meta().name.namespace);
        made.services.push(InboundService {
            host: format!("{name}.{namespace}"),
            name: name.to_string(),
            namespace: namespace.to_string(),
        });
    }
    let own_source = clusters::passthrough(selection).sources;
    (made.endpoint, made.sources) = match &one.default_endpoint {
        None => (None, own_source),
        Some(DefaultEndpoint::Unix(path)) => (Some(endpoint(path.clone(), None)), Vec::new()),
        Some(DefaultEndpoint::Address { ip, port }) if ip.is_unspecified() => {
            let address = address_of(selection, *ip);
            (Some(endpoint(address.to_string(), Some(*port))), own_source)
        }
        Some(DefaultEndpoint::Address { ip, port }) => {
            (Some(endpoint(ip.to_string(), Some(*port))), Vec::new())
        }
    };
    let wide = sidecar.spec().inbound_connection_pool.as_ref();
    one.connection_pool.as_ref().or(wide).into_iter().fold(made, clusters::limited)
}

/// The workload's own address of a family; the loopback one where it has none.
fn address_of(selection: &Selection<'_>, family: IpAddr) -> IpAddr {
    let own = std::iter::once(&selection.view.address).chain(&selection.view.node.instance_ips);
    own.copied().find(|address| address.is_ipv4() == family.is_ipv4()).unwrap_or(match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    })
}

fn endpoint(address: String, port: Option<u16>) -> EndpointInput {
    EndpointInput { address, port, weight: 1, ..EndpointInput::default() }
}
