//! The clusters of a proxy: one for each visible service, port and subset, and the built-in ones.

use std::sync::Arc;

use sluis_model::{EndpointAddress, MeshPort, MeshService, Policy, Rule, ServiceEndpoint};
use sluis_resources::{
    LoadBalancer, Location, Protocol, Resolution, SimpleLb, Subset, TrafficPolicy,
};

use super::{
    Selection,
    destination::{CLIENT_TLS, ClusterKey},
    outbound::owner,
    tls::Origination,
};
use crate::{
    Balance, ClientTls, ClusterInput, Discovery, EndpointInput, Fault, Role, UpstreamProtocol,
};

/// The label by which an endpoint says that a sidecar of the mesh takes its connections.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// Every cluster of the proxy, in order of name.
pub(super) fn select(selection: &mut Selection<'_>) -> Vec<ClusterInput> {
    let mut clusters = vec![built_in("BlackHoleCluster", Discovery::BlackHole, selection)];
    if selection.view.role == Role::Sidecar {
        let passthrough = Discovery::OriginalDestination;
        clusters.push(built_in("PassthroughCluster", passthrough, selection));
    }
    for service in selection.services.clone() {
        let rule = selection.rule(&service);
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            report_left_out(selection, &service, port);
            report_http2(selection, &service, port);
            clusters.push(one(selection, &service, port, rule.as_ref(), None));
            for subset in rule.iter().flat_map(|rule| &rule.subsets) {
                clusters.push(one(selection, &service, port, rule.as_ref(), Some(subset)));
            }
        }
    }
    for key in std::mem::take(&mut selection.client_tls_clusters) {
        let name = key.name();
        let variant = clusters
            .iter()
            .find(|cluster| cluster.name == name)
            .map(|cluster| ClusterInput { name: name + CLIENT_TLS, tls: None, ..cluster.clone() });
        clusters.extend(variant);
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters.dedup_by(|a, b| a.name == b.name);
    clusters
}

fn built_in(name: &str, discovery: Discovery, selection: &Selection<'_>) -> ClusterInput {
    ClusterInput {
        name: name.to_owned(),
        host: String::new(),
        port: 0,
        subset: String::new(),
        discovery,
        balance: Balance::RoundRobin,
        protocol: UpstreamProtocol::Http1,
        tls: None,
        connect_timeout: selection.snapshot.mesh().connect_timeout,
        config: None,
    }
}

fn one(
    selection: &mut Selection<'_>,
    service: &Arc<MeshService>,
    port: &MeshPort,
    rule: Option<&Arc<Rule>>,
    subset: Option<&Subset>,
) -> ClusterInput {
    let policy = rule.map(|rule| rule.policy(subset, port.number)).unwrap_or_default();
    let mut endpoints = selection.snapshot.endpoints(service, port).to_vec();
    if let Some(subset) = subset {
        endpoints.retain(|endpoint| endpoint.labels.matches(&subset.labels));
    }
    let balance = balance(policy.load_balancer.as_ref());
    let is_http2 = is_http2(port);
    let subset_name = subset.map(|subset| subset.name.clone()).unwrap_or_default();
    let mut discovery = discovery(selection, service, &endpoints, balance);
    let origination = Origination {
        service,
        port,
        subset: &subset_name,
        endpoints: &endpoints,
        is_http2,
        trust_domain: &selection.snapshot.mesh().trust_domain,
    };
    let tls = match originate(selection, &policy, &origination) {
        Ok(tls) => tls,
        Err(fault) => {
            // Without its TLS the traffic must not leave.
            discovery = Discovery::BlackHole;
            let owner = rule.map(|rule| format!("DestinationRule {}", rule.object));
            selection.faults.push(fault.of(owner.unwrap_or_default()));
            None
        }
    };
    if let Some(fault) = rule.and_then(|rule| wrapped(rule, subset)) {
        discovery = Discovery::BlackHole;
        selection.faults.push(*fault);
    }
    let key = ClusterKey { host: service.host.clone(), subset: subset_name, port: port.number };
    let pool = policy.connection_pool.unwrap_or_default();
    ClusterInput {
        name: key.name(),
        host: service.host.to_string(),
        port: port.number,
        subset: key.subset,
        discovery,
        balance,
        protocol: if is_http2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 },
        tls,
        connect_timeout: pool
            .tcp
            .connect_timeout
            .unwrap_or(selection.snapshot.mesh().connect_timeout),
        config: rule.map(|rule| {
            let (namespace, name) = (&rule.object.namespace, &rule.object.name);
            format!("/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}")
        }),
    }
}

/// The TLS of a cluster: what the rule says, else the mesh's own where the endpoints take it.
fn originate(
    selection: &Selection<'_>,
    policy: &Policy,
    origination: &Origination<'_>,
) -> Result<Option<ClientTls>, Box<Fault>> {
    if let Some(tls) = &policy.tls {
        return origination.of_rule(tls).map_err(|(field, message)| {
            Box::new(Fault::error(tls.at.clone(), message).field(field))
        });
    }
    let service = origination.service;
    let takes_mesh_tls =
        |endpoint: &ServiceEndpoint| endpoint.labels.get(TLS_MODE_LABEL) == Some("istio");
    let count = origination.endpoints.iter().filter(|endpoint| takes_mesh_tls(endpoint)).count();
    if !selection.snapshot.mesh().enable_auto_mtls
        || service.location == Location::MeshExternal
        || count == 0
    {
        return Ok(None);
    }
    if count < origination.endpoints.len() {
        let message = format!(
            "only some endpoints of {} carry {TLS_MODE_LABEL}: istio; choosing TLS for each is not \
             supported yet, so the cluster refuses all traffic",
            service.host
        );
        return Err(Box::new(Fault::error(service.at.clone(), message)));
    }
    Ok(Some(origination.mesh(None)))
}

fn discovery(
    selection: &mut Selection<'_>,
    service: &MeshService,
    endpoints: &[ServiceEndpoint],
    balance: Balance,
) -> Discovery {
    let input = |endpoint: &ServiceEndpoint| EndpointInput {
        address: match &endpoint.address {
            EndpointAddress::Ip(ip) => ip.to_string(),
            EndpointAddress::Dns(name) => name.clone(),
            EndpointAddress::Unix(path) => path.clone(),
        },
        port: match &endpoint.address {
            EndpointAddress::Unix(_) => None,
            _ => Some(endpoint.port),
        },
        weight: endpoint.weight,
    };
    match service.resolution {
        _ if balance == Balance::Passthrough => Discovery::OriginalDestination,
        Resolution::None => Discovery::OriginalDestination,
        Resolution::Static => Discovery::Eds(endpoints.iter().map(input).collect()),
        Resolution::Dns => Discovery::Dns(endpoints.iter().map(input).collect()),
        Resolution::DnsRoundRobin => match endpoints {
            [] => Discovery::BlackHole,
            [one] => Discovery::LogicalDns(input(one)),
            [first, ..] => {
                let message = "DNS_ROUND_ROBIN takes one endpoint: the others get no traffic";
                selection.faults.push(
                    Fault::warning(service.at.clone(), message)
                        .of(format!("ServiceEntry {}", service.object))
                        .field("spec.resolution"),
                );
                Discovery::LogicalDns(input(first))
            }
        },
        Resolution::DynamicDns => {
            let message = "DYNAMIC_DNS is not supported yet: the cluster refuses all traffic";
            selection.faults.push(
                Fault::error(service.at.clone(), message)
                    .of(format!("ServiceEntry {}", service.object))
                    .field("spec.resolution"),
            );
            Discovery::BlackHole
        }
    }
}

fn balance(written: Option<&LoadBalancer>) -> Balance {
    match written.map(|balancer| balancer.simple) {
        None | Some(SimpleLb::Unspecified | SimpleLb::LeastRequest) => Balance::LeastRequest,
        Some(SimpleLb::RoundRobin) => Balance::RoundRobin,
        Some(SimpleLb::Random) => Balance::Random,
        Some(SimpleLb::Passthrough) => Balance::Passthrough,
    }
}

/// Names the workloads of a port that get no traffic.
fn report_left_out(selection: &mut Selection<'_>, service: &MeshService, port: &MeshPort) {
    for left_out in selection.snapshot.left_out(service, port) {
        let fault = Fault::warning(left_out.at, left_out.why).of(left_out.resource);
        selection.faults.push(fault.field("spec.address"));
    }
}

/// Our own data plane speaks HTTP/1.1 only; what serves this proxy is not known here.
fn report_http2(selection: &mut Selection<'_>, service: &MeshService, port: &MeshPort) {
    if is_http2(port) {
        let message = format!(
            "{} needs HTTP/2, which sluis-proxy does not speak yet: a real Envoy does",
            port.protocol
        );
        let fault = Fault::warning(port.at.clone(), message).of(owner(service));
        selection.faults.push(fault.field(format!("spec.ports[{}]", port.name)));
    }
}

fn is_http2(port: &MeshPort) -> bool {
    matches!(port.protocol, Protocol::Http2 | Protocol::Grpc)
}

/// What a rule puts around the connections of a cluster and is not carried out. Connections without
/// it would go another way than the user wants, so there are none.
fn wrapped(rule: &Rule, subset: Option<&Subset>) -> Option<Box<Fault>> {
    let of_subset = subset.and_then(|subset| {
        let path = format!("spec.subsets[{}].trafficPolicy", subset.name);
        Some((path, subset.traffic_policy.as_ref()?))
    });
    let of_rule = rule.policy.as_ref().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let written = |policy: &TrafficPolicy| {
        policy
            .tunnel
            .as_ref()
            .map(|_| "tunnel")
            .or(policy.proxy_protocol.as_ref().map(|_| "proxyProtocol"))
    };
    let (path, field, at) = of_subset
        .into_iter()
        .chain(of_rule)
        .find_map(|(path, policy)| Some((path, written(policy)?, &policy.at)))?;
    let message = "not supported yet: the cluster refuses all traffic";
    let fault = Fault::error(at.clone(), message).of(format!("DestinationRule {}", rule.object));
    Some(Box::new(fault.field(format!("{path}.{field}"))))
}
