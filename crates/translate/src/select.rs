//! Chooses and orders everything of the mesh that matters to one proxy.
//!
//! In:    a [`ProxyView`] and a [`Snapshot`].
//! Out:   [`Inputs`], in which every decision of Istio's rules has been made.
//! Never: builds an Envoy message.
//!
//! Start at [`select`]. A sidecar's listeners are in `outbound`, a gateway's in `gateway`; both take
//! HTTP routes from `http` and destinations from `destination`.

mod access_log;
mod authorization;
mod cluster;
mod credentials;
mod delegate;
mod destination;
mod egress;
mod envoy_filter;
mod gateway;
mod gateway_binding;
mod gateway_bytes;
mod gateway_http;
mod guard;
mod hash;
mod http;
mod inbound;
mod inner;
mod listeners;
mod lua;
mod names;
mod origination;
mod outbound;
mod outbound_http;
mod request_authentication;
mod secret_names;
mod secrets;
mod server_tls;
mod serving;
mod sni_dnat;
mod speakers;
mod tls;

pub(crate) use self::authorization::{CUSTOM_RULE, written};
pub(crate) use self::cluster::NEAR;

pub use destination::CLIENT_TLS;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use sluis_model::{MeshService, Scope, Snapshot};
use sluis_nouns::{HostPattern, Labels};
use sluis_resources::{
    GatewayRef, InterceptionMode, Meta, OutboundTrafficPolicy, PathNormalization, WorkloadMode,
};

use crate::{
    AuthorizationInput, Capture, ClusterInput, Fault, Inputs, ListenerInput, MeshInputs,
    Normalization, OutboundInputs, OutboundPolicy, ProxyView, Role,
};

/// Which side of a proxy is selected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Both.
    Whole,
    /// What its workload may reach.
    Outbound,
    /// What its workload receives.
    Inbound,
}

/// Chooses and orders everything of the mesh that matters to one proxy.
#[must_use]
pub fn select(view: &ProxyView, snapshot: &Snapshot) -> Inputs {
    select_part(view, snapshot, Part::Whole)
}

/// Chooses and orders what matters to one side of a proxy. Both sides together are the whole, but for
/// patches, which look at the whole.
#[must_use]
pub fn select_part(view: &ProxyView, snapshot: &Snapshot, part: Part) -> Inputs {
    // Sidecar resources say nothing to gateways.
    let scope =
        (view.role == Role::Sidecar).then(|| snapshot.scope(&view.name.namespace, &view.labels));
    let services = match &scope {
        _ if part == Part::Inbound => Vec::new(),
        Some(scope) => scope.services().cloned().collect(),
        None => snapshot.services(&view.name.namespace).cloned().collect(),
    };
    let mut selection = Selection {
        view,
        snapshot,
        scope,
        services,
        client_tls_clusters: Vec::new(),
        askers: BTreeMap::new(),
        credential_secrets: BTreeSet::new(),
        authorization: None,
        key_servers: Vec::new(),
        faults: Vec::new(),
    };
    let (outbound, (mut listeners, mut routes)) = match view.role {
        _ if part == Part::Inbound => (None, Default::default()),
        Role::Sidecar => {
            let policy = selection.policy();
            let outbound = selection.outbound(&policy);
            let made = egress::select(&mut selection, &policy);
            (Some(outbound), made)
        }
        Role::Gateway => (None, gateway::select(&mut selection)),
    };
    guard::apply(&mut selection, &mut listeners, &mut routes);
    let inbound = match view.role {
        _ if part == Part::Outbound => None,
        Role::Sidecar => inbound::select(&mut selection),
        Role::Gateway => None,
    };
    let mut clusters = match part {
        Part::Inbound => Vec::new(),
        Part::Whole | Part::Outbound => cluster::select(&mut selection),
    };
    if view.role == Role::Gateway {
        clusters.extend(sni_dnat::clusters(&selection, &clusters));
        clusters.extend(inner::clusters(&selection, &listeners));
    }
    credentials::apply(&mut selection, &mut listeners, &mut routes, &mut clusters);
    add_key_servers(&mut selection, &mut clusters);
    let secrets = secrets::select(&mut selection, &listeners, &clusters);
    let patches = envoy_filter::select(&mut selection);
    let answers = view.dns && part != Part::Inbound;
    let names = answers.then(|| names::select(&selection));
    let mesh = mesh(&mut selection, &clusters);
    let mut seen = HashSet::new();
    selection.faults.retain(|fault| seen.insert(fault.clone()));
    Inputs {
        mesh,
        is_grpc: view.node.is_grpc,
        outbound,
        inbound,
        listeners,
        routes,
        clusters,
        secrets,
        names,
        patches,
        faults: selection.faults,
    }
}

/// Adds the clusters that keys of tokens are fetched from.
fn add_key_servers(selection: &mut Selection<'_>, clusters: &mut Vec<ClusterInput>) {
    let made = std::mem::take(&mut selection.key_servers);
    if made.is_empty() {
        return;
    }
    clusters.extend(made);
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters.dedup_by(|a, b| a.name == b.name);
}

/// Chooses the clusters of some services as [`select_part`] does for [`Part::Outbound`], and nothing
/// else.
#[must_use]
pub fn select_clusters(
    view: &ProxyView,
    snapshot: &Snapshot,
    is_meant: impl Fn(&MeshService) -> bool,
) -> Inputs {
    let scope = snapshot.scope(&view.name.namespace, &view.labels);
    let services = scope.services().filter(|service| is_meant(service)).cloned().collect();
    let mut selection = Selection {
        view,
        snapshot,
        scope: Some(scope),
        services,
        client_tls_clusters: Vec::new(),
        askers: BTreeMap::new(),
        credential_secrets: BTreeSet::new(),
        authorization: None,
        key_servers: Vec::new(),
        faults: Vec::new(),
    };
    let clusters = cluster::select(&mut selection);
    let mesh = mesh(&mut selection, &clusters);
    Inputs {
        mesh,
        is_grpc: false,
        outbound: None,
        inbound: None,
        listeners: Vec::new(),
        routes: Vec::new(),
        clusters,
        secrets: Vec::new(),
        names: None,
        patches: Vec::new(),
        faults: selection.faults,
    }
}

/// What a selection knows and gathers on the way.
struct Selection<'a> {
    view: &'a ProxyView,
    snapshot: &'a Snapshot,
    /// What the proxy's `Sidecar` imports; `None` for a gateway, which sees everything.
    scope: Option<Arc<Scope>>,
    /// The services that the proxy sees, in order of host.
    services: Vec<Arc<MeshService>>,
    /// The clusters of which a variant without TLS of its own is needed; see `destination`.
    client_tls_clusters: Vec<destination::ClusterKey>,
    /// Who asked for which secret first, by its SDS name.
    askers: BTreeMap<String, secrets::Asker>,
    /// The SDS names of credentials that filters of clusters name (`credentials::secret_name`).
    credential_secrets: BTreeSet<String>,
    /// The policies that hold for the proxy's workload, once asked for.
    authorization: Option<Arc<AuthorizationInput>>,
    /// Clusters that keys of tokens are fetched from.
    key_servers: Vec<ClusterInput>,
    faults: Vec<Fault>,
}

impl Selection<'_> {
    /// Whether the client's address is kept towards the workload (TPROXY): the proxy's own word, else
    /// the mesh's.
    fn is_transparent(&self) -> bool {
        let of_mesh = self.snapshot.mesh().default_config.interception_mode;
        self.view.node.is_transparent.unwrap_or(of_mesh == InterceptionMode::Tproxy)
    }

    /// The capturing listener of a sidecar.
    fn outbound(&self, policy: &OutboundPolicy) -> OutboundInputs {
        let capture = self.view.capture.clone();
        OutboundInputs {
            is_transparent: capture == Capture::Redirect && self.is_transparent(),
            capture,
            address: self.view.wildcard(),
            additional: self.view.second_wildcard().into_iter().collect(),
            port: self.snapshot.mesh().proxy_listen_port,
            policy: policy.clone(),
        }
    }

    /// Has listeners on "any address" listen on that of IPv6 too, where the workload has both.
    fn widen(&self, listeners: &mut [ListenerInput]) {
        let (first, second) = (self.view.wildcard(), self.view.second_wildcard());
        for listener in listeners.iter_mut().filter(|one| one.address == first && !one.is_internal)
        {
            listener.additional.extend(second);
        }
    }

    /// What happens to connections that nothing claims: the word of the `Sidecar`, else of the mesh.
    fn policy(&mut self) -> OutboundPolicy {
        let of_mesh = self.snapshot.mesh().outbound_traffic_policy;
        let scope = self.scope.clone();
        let written = scope.as_ref().and_then(|scope| scope.outbound_policy());
        let proxy = written.and_then(|policy| policy.egress_proxy.as_ref());
        let sidecar = scope.as_ref().and_then(|scope| scope.sidecar.as_ref());
        if let (Some(proxy), Some(sidecar)) = (proxy, sidecar) {
            return OutboundPolicy::Proxy(self.destination(sidecar.meta(), proxy, 0).name());
        }
        match written.map_or(of_mesh, |policy| policy.mode) {
            OutboundTrafficPolicy::RegistryOnly => OutboundPolicy::RegistryOnly,
            OutboundTrafficPolicy::AllowAny => OutboundPolicy::AllowAny,
            OutboundTrafficPolicy::AllowAnyDynamicDns => OutboundPolicy::AllowAnyDynamicDns,
        }
    }

    fn service(&self, host: &HostPattern) -> Option<Arc<MeshService>> {
        match &self.scope {
            Some(scope) => scope.service(host).cloned(),
            None => self.snapshot.service(host, &self.view.name.namespace).cloned(),
        }
    }

    fn fault(&mut self, meta: &Meta, fault: Fault) {
        self.faults.push(fault.of(format!("{} {}", meta.kind, meta.name)));
    }

    /// Whether a match of a VirtualService holds for this proxy, as far as it looks at who asks.
    ///
    /// Istio evaluates this when it makes the configuration; it is no enforcement at the destination.
    fn is_source(&self, labels: &Labels, namespace: Option<&str>) -> bool {
        self.view.labels.matches(labels)
            && namespace.is_none_or(|namespace| namespace == &*self.view.name.namespace)
    }
}

/// Whether a list of gateways holds one; an empty list is that of the VirtualService, asked before.
fn names_gateway(list: &[GatewayRef], wanted: &GatewayRef) -> bool {
    list.is_empty() || list.contains(wanted)
}

/// Istio's name for a user's resource in `config` metadata.
fn config_path(kind: &str, meta: &Meta) -> String {
    let (namespace, name) = (&meta.name.namespace, &meta.name.name);
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

fn mesh(selection: &mut Selection<'_>, clusters: &[ClusterInput]) -> MeshInputs {
    let config = selection.snapshot.mesh();
    let normalization = match config.path_normalization {
        PathNormalization::None => Normalization::None,
        PathNormalization::Base => Normalization::Base,
        PathNormalization::MergeSlashes => Normalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes => Normalization::DecodeAndMergeSlashes,
    };
    MeshInputs {
        access_logs: selection.access_logs(WorkloadMode::Client),
        inbound_access_logs: selection.access_logs(WorkloadMode::Server),
        normalization,
        detection_timeout: config.protocol_detection_timeout,
        dns_refresh: config.dns_refresh_rate,
        has_alpn_filter: selection.view.node.has_alpn_filter,
        dynamic_dns: cluster::dynamic_dns(clusters),
    }
}
