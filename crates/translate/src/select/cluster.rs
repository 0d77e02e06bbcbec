//! The clusters of a proxy: one for each visible service, port and subset, and the built-in ones.
//!
//! In:    the services that the proxy sees, their endpoints and rules.
//! Out:   [`ClusterInput`]s; each depends on its service, its rule and [`Client`], and nothing else.
//! Never: lets traffic out without the TLS that a rule asks for: such a cluster refuses everything.

mod client;
mod locality;
mod policy;

use std::sync::Arc;

use sluis_model::{
    MeshPort, MeshService, MtlsMode, Policy, PolicyDefaults, Rule, ServiceEndpoint, ServiceSource,
};
use sluis_resources::{ClientTlsMode, MeshConfig, Protocol, Resolution, SimpleLb, Subset};

use self::client::Client;
pub(crate) use self::policy::NEAR;
use super::{
    Selection,
    destination::{CLIENT_TLS, ClusterKey},
    origination::{self, Origination},
    outbound::owner,
};
use crate::{
    About, Balance, ClusterInput, ConnectionLife, Discovery, DnsFamily, Fault, Limits,
    LocalityInput, OutboundPolicy, Role, UpstreamProtocol,
};

/// Every cluster of the proxy, in order of name.
pub(super) fn select(selection: &mut Selection<'_>) -> Vec<ClusterInput> {
    let client = Client::of(selection);
    let mut clusters = vec![built_in("BlackHoleCluster", Discovery::BlackHole, selection)];
    if selection.view.role == Role::Sidecar {
        clusters.push(passthrough(selection));
        if selection.policy() == OutboundPolicy::AllowAnyDynamicDns {
            clusters.push(any_name(selection));
        }
    }
    for service in selection.services.clone() {
        let rule = selection.rule(&service);
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            report_left_out(selection, &service, port);
            let subsets = rule.iter().flat_map(|rule| &rule.subsets);
            for subset in std::iter::once(None).chain(subsets.map(Some)) {
                // Names that are resolved on demand have no endpoints to make subsets of.
                if subset.is_some() && service.resolution == Resolution::DynamicDns {
                    continue;
                }
                let wanted = Wanted {
                    client: &client,
                    service: &service,
                    port,
                    rule: rule.as_deref(),
                    subset,
                };
                clusters.extend(wanted.cluster(selection));
            }
        }
    }
    for key in std::mem::take(&mut selection.client_tls_clusters) {
        let name = key.name();
        let variant = clusters.iter().find(|cluster| cluster.name == name).map(|cluster| {
            let stat_name = format!("{name}{CLIENT_TLS};");
            ClusterInput { name: name + CLIENT_TLS, stat_name, tls: None, ..cluster.clone() }
        });
        clusters.extend(variant);
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters.dedup_by(|a, b| a.name == b.name);
    clusters
}

/// The cluster of one port of a service as [`select`] makes it, for what the proxy asks itself.
pub(super) fn of_port(
    selection: &mut Selection<'_>,
    service: &Arc<MeshService>,
    port: u16,
) -> Option<ClusterInput> {
    let client = Client::of(selection);
    let rule = selection.rule(service);
    let port = service.ports.iter().find(|known| known.number == port)?;
    let wanted = Wanted { client: &client, service, port, rule: rule.as_deref(), subset: None };
    wanted.cluster(selection)
}

pub(super) fn built_in(
    name: &str,
    discovery: Discovery,
    selection: &Selection<'_>,
) -> ClusterInput {
    ClusterInput {
        name: name.to_owned(),
        stat_name: format!("{name};"),
        host: String::new(),
        port: 0,
        subset: String::new(),
        discovery,
        dns_family: DnsFamily::V4,
        balance: Balance::RoundRobin(None),
        is_locality_weighted: false,
        panic_percent: None,
        keeps_draining: false,
        outliers: None,
        protocol: UpstreamProtocol::Http1,
        limits: Limits::default(),
        connection: ConnectionLife::default(),
        tls: None,
        is_tls_by_endpoint: false,
        proxy_protocol: None,
        credentials: None,
        connect_timeout: selection.snapshot.mesh().connect_timeout,
        about: About::default(),
    }
}

/// Where connections go on to where they were going.
fn passthrough(selection: &Selection<'_>) -> ClusterInput {
    let pool = policy::defaults(selection).connection_pool.cloned().unwrap_or_default();
    let mesh = selection.snapshot.mesh();
    let mut cluster =
        built_in("PassthroughCluster", Discovery::OriginalDestination(None), selection);
    cluster.protocol = UpstreamProtocol::AsClient;
    cluster.limits = policy::limits(&pool, None);
    cluster.connection = policy::connection(&pool, mesh.tcp_keepalive.as_ref());
    cluster.connection.idle_timeout = cluster.connection.idle_timeout.or(Some(policy::IDLE));
    cluster
}

/// Where requests for any host go: to what the host resolves to.
fn any_name(selection: &mut Selection<'_>) -> ClusterInput {
    let mut discovery = Discovery::DynamicDns("*".to_owned());
    let tls = origination::to_any_host(selection.snapshot.mesh());
    let tls = tls.unwrap_or_else(|(field, message)| {
        // Without its TLS the traffic must not leave.
        discovery = Discovery::BlackHole;
        let at = selection.snapshot.mesh().at.clone();
        let fault = Fault::error(at, message).of("mesh configuration");
        selection.faults.push(fault.field(format!("outboundTrafficPolicy.{field}")));
        None
    });
    let passthrough = passthrough(selection);
    ClusterInput {
        name: "AllowAnyDynamicDNSCluster".to_owned(),
        stat_name: "AllowAnyDynamicDNSCluster;".to_owned(),
        discovery,
        dns_family: selection.dns_family(),
        tls,
        ..passthrough
    }
}

/// Which addresses are used, when some cluster resolves names as clients ask for them.
pub(super) fn dynamic_dns(clusters: &[ClusterInput]) -> Option<DnsFamily> {
    clusters
        .iter()
        .find(|cluster| matches!(cluster.discovery, Discovery::DynamicDns(_)))
        .map(|cluster| cluster.dns_family)
}

/// One cluster to be made.
struct Wanted<'a> {
    client: &'a Client<'a>,
    service: &'a Arc<MeshService>,
    port: &'a MeshPort,
    rule: Option<&'a Rule>,
    subset: Option<&'a Subset>,
}

impl Wanted<'_> {
    /// The cluster; `None` for one whose names nobody gives, as in Istio.
    fn cluster(&self, selection: &mut Selection<'_>) -> Option<ClusterInput> {
        let (service, port) = (self.service, self.port);
        let policy = self.policy(policy::defaults(selection));
        let pool = policy.connection_pool.clone().unwrap_or_default();
        let mesh = selection.snapshot.mesh();
        let protocol = policy::protocol(port, &pool, mesh, self.client.is_sidecar());
        let all = selection.snapshot.endpoints(service, port);
        self.report_lost_tls(selection, &policy);
        let tls = self.tls(selection, &policy, &all, protocol == UpstreamProtocol::Http2);
        let endpoints: Vec<&ServiceEndpoint> =
            all.iter().filter(|endpoint| self.is_wanted(endpoint)).collect();
        let (setting, is_forced) =
            policy::locality(policy.load_balancer.as_ref(), service.traffic_distribution, mesh);
        let fails_over = is_forced || policy.outlier_detection.is_some();
        let marks = |endpoint: &ServiceEndpoint| match &policy.tls {
            Some(tls) => tls.mode == ClientTlsMode::IstioMutual,
            None => tls.as_ref().is_ok_and(|tls| tls.1) && takes_mesh_tls(selection, endpoint),
        };
        let groups = self.client.localities(&endpoints, setting.as_ref(), fails_over, marks);
        let (tls, is_tls_by_endpoint, discovery) = match tls {
            Ok((tls, by_endpoint)) => {
                let discovery = self.discovery(selection, &policy, groups)?;
                (tls, by_endpoint, discovery)
            }
            Err(fault) => {
                // Without its TLS the traffic must not leave.
                let owner = self.rule.map(|rule| format!("DestinationRule {}", rule.object));
                selection.faults.push(fault.of(owner.unwrap_or_default()));
                (None, false, Discovery::BlackHole)
            }
        };
        let subset = self.subset.map(|subset| subset.name.clone()).unwrap_or_default();
        let key = ClusterKey { host: service.host.clone(), subset, port: port.number };
        let mesh = selection.snapshot.mesh();
        let name = key.name();
        Some(ClusterInput {
            stat_name: format!("{};", self.stat_name(mesh).unwrap_or_else(|| name.clone())),
            name,
            host: service.host.to_string(),
            port: port.number,
            subset: key.subset,
            dns_family: selection.dns_family(),
            balance: policy::balance(policy.load_balancer.as_ref()),
            is_locality_weighted: setting.as_ref().is_some_and(|setting| {
                !setting.distribute.is_empty()
                    || (fails_over
                        && !(setting.failover.is_empty() && setting.failover_priority.is_empty()))
            }),
            panic_percent: self.panic_percent(&policy),
            keeps_draining: service.keeps_sessions,
            outliers: policy.outlier_detection.as_ref().map(policy::outliers),
            protocol,
            limits: policy::limits(&pool, policy.retry_budget.map(policy::retry_budget)),
            connection: policy::connection(&pool, mesh.tcp_keepalive.as_ref()),
            tls,
            is_tls_by_endpoint,
            proxy_protocol: policy.proxy_protocol.map(policy::proxy_protocol),
            credentials: None,
            connect_timeout: pool.tcp.connect_timeout.unwrap_or(mesh.connect_timeout),
            about: self.about(&policy),
            discovery,
        })
    }

    /// Names the `tls` of a rule that settings of the port leave out: Istio inherits nothing there, so
    /// that traffic goes in the clear where the user has asked for TLS.
    fn report_lost_tls(&self, selection: &mut Selection<'_>, policy: &Policy) {
        let Some(rule) = self.rule.filter(|_| policy.tls.is_none()) else { return };
        let of_subset = self.subset.and_then(|subset| subset.traffic_policy.as_ref());
        let written = of_subset.into_iter().chain(&rule.policy);
        let Some(tls) = written.filter_map(|policy| policy.tls.as_ref()).next() else { return };
        let message = format!(
            "portLevelSettings of port {} inherit no tls: it does not hold there",
            self.port.number
        );
        let fault = Fault::warning(tls.at.clone(), message);
        let fault = fault.of(format!("DestinationRule {}", rule.object));
        selection.faults.push(
            fault.field("spec.trafficPolicy.tls").help("write tls in the settings of the port too"),
        );
    }

    fn policy(&self, defaults: PolicyDefaults<'_>) -> Policy {
        match self.rule {
            Some(rule) => rule.policy_over(defaults, self.subset, self.port.number),
            None => Policy::of_mesh(defaults),
        }
    }

    /// Below which share of healthy endpoints health is ignored. Never, where the platform sends
    /// endpoints that are not ready: they are there to be seen, not to be used.
    fn panic_percent(&self, policy: &Policy) -> Option<u32> {
        if self.service.publishes_not_ready {
            return Some(0);
        }
        policy.outlier_detection.as_ref().map(|outliers| outliers.min_health_percent.unwrap_or(0))
    }

    /// Whether an endpoint is of the subset, and near enough.
    fn is_wanted(&self, endpoint: &ServiceEndpoint) -> bool {
        let is_near = !self.service.is_node_local || endpoint.node == self.client.node;
        is_near && self.subset.is_none_or(|subset| endpoint.labels.matches(&subset.labels))
    }

    /// The TLS of the cluster, and whether each endpoint decides on it: what the rule says, else the
    /// mesh's own.
    fn tls(
        &self,
        selection: &Selection<'_>,
        policy: &Policy,
        endpoints: &[ServiceEndpoint],
        is_http2: bool,
    ) -> Result<(Option<crate::ClientTls>, bool), Box<Fault>> {
        let subset = self.subset.map(|subset| subset.name.as_str()).unwrap_or_default();
        let origination = Origination {
            service: self.service,
            port: self.port,
            subset,
            endpoints,
            is_http2,
            mesh: selection.snapshot.mesh(),
            rule: self.rule,
            is_gateway: !self.client.is_sidecar(),
        };
        if let Some(tls) = &policy.tls {
            let tls = origination.of_rule(tls).map_err(|(field, message)| {
                Box::new(Fault::error(tls.at.clone(), message).field(field))
            })?;
            return Ok((tls, false));
        }
        let namespace = self.service.namespace();
        let mode = selection.snapshot.mtls(namespace, &sluis_nouns::Labels::new()).mode();
        if !selection.snapshot.mesh().enable_auto_mtls
            || self.service.location == sluis_resources::Location::MeshExternal
            || mode == MtlsMode::Disable
        {
            return Ok((None, false));
        }
        if self.keeps_destination(policy) {
            // The endpoint is not known beforehand, so all must take it.
            let all = !endpoints.is_empty()
                && endpoints.iter().all(|endpoint| takes_mesh_tls(selection, endpoint));
            return Ok((all.then(|| origination.mesh_tls(None)), false));
        }
        Ok((Some(origination.mesh_tls(None)), true))
    }

    /// Whether connections go where the client was going.
    fn keeps_destination(&self, policy: &Policy) -> bool {
        let is_passthrough =
            policy.load_balancer.as_ref().is_some_and(|lb| lb.simple == SimpleLb::Passthrough);
        is_passthrough || (self.service.resolution == Resolution::None && self.client.is_sidecar())
    }

    fn discovery(
        &self,
        selection: &mut Selection<'_>,
        policy: &Policy,
        groups: Vec<LocalityInput>,
    ) -> Option<Discovery> {
        let service = self.service;
        if self.keeps_destination(policy) {
            return Some(Discovery::OriginalDestination(self.target_override()));
        }
        match service.resolution {
            // A gateway has no original destination: it takes the endpoints that are written.
            Resolution::None | Resolution::Static => Some(Discovery::Eds(groups.into())),
            Resolution::Dns | Resolution::DnsRoundRobin if groups.is_empty() => {
                let message = format!("{} has no name to resolve: no traffic", service.host);
                let fault = Fault::warning(service.at.clone(), message).of(owner(service));
                selection.faults.push(fault.field("spec.endpoints"));
                None
            }
            Resolution::Dns => Some(Discovery::Dns(groups.into())),
            Resolution::DnsRoundRobin => {
                Some(Discovery::LogicalDns(self.one_name(selection, groups).into()))
            }
            Resolution::DynamicDns => self.dynamic(selection),
        }
    }

    /// The port in place of the client's, for a service whose destination is kept.
    fn target_override(&self) -> Option<u16> {
        let is_entry = self.service.source == ServiceSource::Entry;
        match &self.port.target {
            sluis_model::PortTarget::Number(target) if is_entry && *target != self.port.number => {
                Some(*target)
            }
            _ => None,
        }
    }

    /// The first of the names: a logical name has one.
    fn one_name(
        &self,
        selection: &mut Selection<'_>,
        mut groups: Vec<LocalityInput>,
    ) -> Vec<LocalityInput> {
        let count: usize = groups.iter().map(|group| group.endpoints.len()).sum();
        if count > 1 {
            let message = "DNS_ROUND_ROBIN takes one endpoint: the others get no traffic";
            let fault = Fault::warning(self.service.at.clone(), message).of(owner(self.service));
            selection.faults.push(fault.field("spec.resolution"));
        }
        groups.truncate(1);
        for group in &mut groups {
            group.endpoints.truncate(1);
            group.priority = 0;
            group.weight = group.endpoints.iter().map(|endpoint| endpoint.weight).sum();
        }
        groups
    }

    /// The names below a wildcard, resolved as clients ask for them. Only protocols that carry the
    /// name can be served so.
    fn dynamic(&self, selection: &mut Selection<'_>) -> Option<Discovery> {
        let service = self.service;
        if self.port.protocol.is_http() || self.port.protocol.is_tls() {
            return Some(Discovery::DynamicDns(service.host.to_string()));
        }
        let message = format!(
            "port {} is {}, which names no host: DYNAMIC_DNS takes HTTP and TLS",
            self.port.number, self.port.protocol
        );
        let fault = Fault::error(self.port.at.clone(), message).of(owner(service));
        selection.faults.push(fault.field("spec.ports.protocol"));
        Some(Discovery::BlackHole)
    }

    /// The name of the statistics that the mesh configuration asks for, in Istio's patterns.
    fn stat_name(&self, mesh: &MeshConfig) -> Option<String> {
        let pattern = mesh.outbound_cluster_stat_name.as_str();
        let (service, port) = (self.service, self.port);
        let (name, namespace) = (&service.object.name, service.namespace());
        let (short, alone) = match service.source {
            ServiceSource::Platform => (format!("{name}.{namespace}"), name.to_string()),
            ServiceSource::Entry => (service.host.to_string(), service.host.to_string()),
        };
        let subset = self.subset.map(|subset| subset.name.as_str()).unwrap_or_default();
        (!pattern.is_empty()).then(|| {
            pattern
                .replace("%SERVICE%", &short)
                .replace("%SERVICE_NAME%", &alone)
                .replace("%SERVICE_FQDN%", service.host.as_str())
                .replace("%SUBSET_NAME%", subset)
                .replace("%TARGET_PORT%", "0")
                .replace("%SERVICE_PORT%", &port.number.to_string())
                .replace("%SERVICE_PORT_NAME%", &port.name)
        })
    }

    fn about(&self, policy: &Policy) -> About {
        let service = self.service;
        let name = match service.source {
            ServiceSource::Platform => service.object.name.to_string(),
            ServiceSource::Entry => service.host.to_string(),
        };
        let mode = policy.tls.as_ref().map(|tls| tls.mode);
        About {
            config: self.rule.map(|rule| {
                let (namespace, name) = (&rule.object.namespace, &rule.object.name);
                format!(
                    "/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}"
                )
            }),
            service: Some((service.host.to_string(), name, service.namespace().to_owned())),
            is_external: self.subset.is_none()
                && service.location == sluis_resources::Location::MeshExternal,
            keeps_alpn: matches!(mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual)),
        }
    }
}

/// Whether an endpoint takes the mesh's TLS: it has a sidecar, and no policy turns TLS off there.
fn takes_mesh_tls(selection: &Selection<'_>, endpoint: &ServiceEndpoint) -> bool {
    endpoint.takes_mesh_tls && {
        let mtls = selection.snapshot.mtls(&endpoint.workload.namespace, &endpoint.labels);
        mtls.of_port(endpoint.port) != MtlsMode::Disable
    }
}

/// Names the workloads of a port that get no traffic.
fn report_left_out(selection: &mut Selection<'_>, service: &MeshService, port: &MeshPort) {
    for left_out in &*selection.snapshot.left_out(service, port) {
        let fault = Fault::warning(left_out.at.clone(), left_out.why.clone());
        let fault = fault.of(left_out.resource.clone());
        selection.faults.push(fault.field("spec.address"));
    }
}
