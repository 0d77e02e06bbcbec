//! The clusters of a proxy: one for each visible service, port and subset, and the built-in ones.

use std::sync::Arc;

use sluis_model::{EndpointAddress, MeshPort, MeshService, Policy, Rule, ServiceEndpoint};
use sluis_resources::{
    HttpPool, LoadBalancer, Location, Protocol, Resolution, SimpleLb, Subset, TcpPool,
};

use super::{
    Selection,
    destination::{CLIENT_TLS, ClusterKey},
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
        if let Some(rule) = &rule {
            report_unsupported(selection, rule);
        }
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
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
    let mut endpoints = selection.snapshot.endpoints(service, port);
    if let Some(subset) = subset {
        endpoints.retain(|endpoint| endpoint.labels.matches(&subset.labels));
    }
    let balance = balance(policy.load_balancer.as_ref());
    let is_http2 = matches!(port.protocol, Protocol::Http2 | Protocol::Grpc);
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
        },
        port: endpoint.port,
        weight: endpoint.weight,
    };
    let is_address =
        |endpoint: &&ServiceEndpoint| matches!(endpoint.address, EndpointAddress::Ip(_));
    match service.resolution {
        _ if balance == Balance::Passthrough => Discovery::OriginalDestination,
        Resolution::None => Discovery::OriginalDestination,
        Resolution::Static => {
            Discovery::Eds(endpoints.iter().filter(is_address).map(input).collect())
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            Discovery::Dns(endpoints.iter().map(input).collect())
        }
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

/// Names every section of a rule that is not carried out.
fn report_unsupported(selection: &mut Selection<'_>, rule: &Rule) {
    let policies =
        rule.policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy)).chain(
            rule.subsets.iter().filter_map(|subset| {
                let policy = subset.traffic_policy.as_ref()?;
                Some((format!("spec.subsets[{}].trafficPolicy", subset.name), policy))
            }),
        );
    let mut found = Vec::new();
    for (path, policy) in policies {
        let mut sections = vec![(
            path.clone(),
            &policy.at,
            (&policy.load_balancer, &policy.connection_pool, policy.outlier_detection.is_some()),
        )];
        sections.extend(policy.port_level.iter().map(|level| {
            (
                format!("{path}.portLevelSettings[{}]", level.port),
                &level.at,
                (&level.load_balancer, &level.connection_pool, level.outlier_detection.is_some()),
            )
        }));
        for (path, at, (balancer, pool, has_outlier)) in sections {
            let is_plain = |balancer: &LoadBalancer| {
                let simple = LoadBalancer {
                    at: balancer.at.clone(),
                    simple: balancer.simple,
                    ..LoadBalancer::default()
                };
                *balancer == simple
            };
            let has_hash = balancer.as_ref().is_some_and(|balancer| !is_plain(balancer));
            let has_limits = pool.as_ref().is_some_and(|pool| {
                let tcp =
                    TcpPool { connect_timeout: pool.tcp.connect_timeout, ..TcpPool::default() };
                pool.tcp != tcp || pool.http != HttpPool::default()
            });
            for (field, is_written) in [
                ("loadBalancer", has_hash),
                ("connectionPool", has_limits),
                ("outlierDetection", has_outlier),
            ] {
                if is_written {
                    found.push((format!("{path}.{field}"), at.clone()));
                }
            }
        }
        for (field, is_written) in [
            ("tunnel", policy.tunnel.is_some()),
            ("proxyProtocol", policy.proxy_protocol.is_some()),
        ] {
            if is_written {
                found.push((format!("{path}.{field}"), policy.at.clone()));
            }
        }
    }
    for (path, at) in found {
        let fault = Fault::warning(at, "not supported yet, and not carried out (or only in part)");
        selection.faults.push(fault.of(format!("DestinationRule {}", rule.object)).field(path));
    }
}
