//! One object that a user wrote: what it is called, and what it says.

use std::collections::BTreeMap;
use std::fmt;

use sluis_nouns::{Labels, ObjectName, SourceRef};

use crate::kinds::authorization::AuthorizationPolicy;
use crate::kinds::core::{ConfigMap, Namespace, Secret, Service};
use crate::kinds::credential::Credential;
use crate::kinds::credential_grant::CredentialGrant;
use crate::kinds::destination_rule::DestinationRule;
use crate::kinds::envoy_filter::EnvoyFilter;
use crate::kinds::gateway::Gateway;
use crate::kinds::gateway_api::{
    ApiRoute, BackendTlsPolicy, GatewayClass, KubernetesGateway, ReferenceGrant,
};
use crate::kinds::network_policy::NetworkPolicy;
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::kinds::proxy_config::WorkloadProxyConfig;
use crate::kinds::request_authentication::RequestAuthentication;
use crate::kinds::service_entry::{ServiceEntry, WorkloadEntry};
use crate::kinds::sidecar::Sidecar;
use crate::kinds::telemetry::Telemetry;
use crate::kinds::virtual_service::VirtualService;
use crate::kinds::wasm_plugin::WasmPlugin;
use crate::kinds::workload::{EndpointSlice, Node, Pod};
use crate::kinds::workload_group::WorkloadGroup;

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What it is called and where it stands.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
}

impl Resource {
    /// Returns what tells this object from all others.
    pub fn key(&self) -> Key {
        Key { kind: self.meta.kind, name: self.meta.name.clone() }
    }
}

/// What is common to all kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The kind; agrees with the variant of [`Spec`].
    pub kind: Kind,
    /// Namespace (`default` where none is written; empty for a cluster-wide kind) and name.
    pub name: ObjectName,
    /// Labels of the object itself.
    pub labels: Labels,
    /// Annotations, `sluis.dev/…` among them, uninterpreted.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.creationTimestamp` in seconds since 1970 (UTC), where written. Istio prefers the
    /// older of two objects in conflict.
    pub created: Option<i64>,
    /// The first line of the document.
    pub at: SourceRef,
}

/// What one object says.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "objects are few, and shared by pointer as soon as they are in a snapshot"
)]
pub enum Spec {
    /// `networking.istio.io` Gateway.
    Gateway(Gateway),
    /// `networking.istio.io` VirtualService.
    VirtualService(VirtualService),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(DestinationRule),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(ServiceEntry),
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry(WorkloadEntry),
    /// `networking.istio.io` WorkloadGroup.
    WorkloadGroup(WorkloadGroup),
    /// `networking.istio.io` Sidecar.
    Sidecar(Sidecar),
    /// `networking.istio.io` EnvoyFilter.
    EnvoyFilter(EnvoyFilter),
    /// `networking.istio.io` ProxyConfig.
    ProxyConfig(WorkloadProxyConfig),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication(RequestAuthentication),
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// `telemetry.istio.io` Telemetry.
    Telemetry(Telemetry),
    /// `extensions.istio.io` WasmPlugin.
    WasmPlugin(WasmPlugin),
    /// `egress.sluis.dev` Credential.
    Credential(Box<Credential>),
    /// `egress.sluis.dev` CredentialGrant.
    CredentialGrant(CredentialGrant),
    /// BackendTLSPolicy of the Gateway API.
    BackendTlsPolicy(BackendTlsPolicy),
    /// GRPCRoute of the Gateway API.
    GrpcRoute(ApiRoute),
    /// GatewayClass of the Gateway API.
    GatewayClass(GatewayClass),
    /// HTTPRoute of the Gateway API.
    HttpRoute(ApiRoute),
    /// Gateway of the Gateway API (not Istio's).
    KubernetesGateway(KubernetesGateway),
    /// ReferenceGrant of the Gateway API.
    ReferenceGrant(ReferenceGrant),
    /// TCPRoute of the Gateway API.
    TcpRoute(ApiRoute),
    /// TLSRoute of the Gateway API.
    TlsRoute(ApiRoute),
    /// Kubernetes Service.
    Service(Service),
    /// Kubernetes EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// Kubernetes Pod.
    Pod(Pod),
    /// Kubernetes Node.
    Node(Node),
    /// Kubernetes Namespace.
    Namespace(Namespace),
    /// Kubernetes NetworkPolicy.
    NetworkPolicy(NetworkPolicy),
    /// Kubernetes Secret.
    Secret(Secret),
    /// Kubernetes ConfigMap; the mesh configuration is in [`ConfigMap::mesh`].
    ConfigMap(ConfigMap),
}

/// The kinds that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// AuthorizationPolicy.
    AuthorizationPolicy,
    /// Kubernetes ConfigMap.
    ConfigMap,
    /// Credential.
    Credential,
    /// CredentialGrant.
    CredentialGrant,
    /// DestinationRule.
    DestinationRule,
    /// Kubernetes EndpointSlice.
    EndpointSlice,
    /// EnvoyFilter.
    EnvoyFilter,
    /// Gateway of Istio (not of the Gateway API).
    Gateway,
    /// Kubernetes Namespace.
    Namespace,
    /// Kubernetes NetworkPolicy.
    NetworkPolicy,
    /// Kubernetes Node.
    Node,
    /// PeerAuthentication.
    PeerAuthentication,
    /// Kubernetes Pod.
    Pod,
    /// ProxyConfig.
    ProxyConfig,
    /// RequestAuthentication.
    RequestAuthentication,
    /// Kubernetes Secret.
    Secret,
    /// Kubernetes Service.
    Service,
    /// ServiceEntry.
    ServiceEntry,
    /// Sidecar.
    Sidecar,
    /// Telemetry.
    Telemetry,
    /// VirtualService.
    VirtualService,
    /// WasmPlugin.
    WasmPlugin,
    /// WorkloadEntry.
    WorkloadEntry,
    /// WorkloadGroup.
    WorkloadGroup,
    /// BackendTLSPolicy of the Gateway API.
    BackendTlsPolicy,
    /// GRPCRoute of the Gateway API.
    GrpcRoute,
    /// GatewayClass of the Gateway API.
    GatewayClass,
    /// HTTPRoute of the Gateway API.
    HttpRoute,
    /// Gateway of the Gateway API (not Istio's).
    KubernetesGateway,
    /// ReferenceGrant of the Gateway API.
    ReferenceGrant,
    /// TCPRoute of the Gateway API.
    TcpRoute,
    /// TLSRoute of the Gateway API.
    TlsRoute,
}

impl Kind {
    /// All kinds, in alphabetical order, those of the Gateway API last.
    pub const ALL: [Self; 32] = [
        Self::AuthorizationPolicy,
        Self::ConfigMap,
        Self::Credential,
        Self::CredentialGrant,
        Self::DestinationRule,
        Self::EndpointSlice,
        Self::EnvoyFilter,
        Self::Gateway,
        Self::Namespace,
        Self::NetworkPolicy,
        Self::Node,
        Self::PeerAuthentication,
        Self::Pod,
        Self::ProxyConfig,
        Self::RequestAuthentication,
        Self::Secret,
        Self::Service,
        Self::ServiceEntry,
        Self::Sidecar,
        Self::Telemetry,
        Self::VirtualService,
        Self::WasmPlugin,
        Self::WorkloadEntry,
        Self::WorkloadGroup,
        Self::BackendTlsPolicy,
        Self::GrpcRoute,
        Self::GatewayClass,
        Self::HttpRoute,
        Self::KubernetesGateway,
        Self::ReferenceGrant,
        Self::TcpRoute,
        Self::TlsRoute,
    ];

    /// Returns the name as `kind:` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::ConfigMap => "ConfigMap",
            Self::Credential => "Credential",
            Self::CredentialGrant => "CredentialGrant",
            Self::DestinationRule => "DestinationRule",
            Self::EndpointSlice => "EndpointSlice",
            Self::EnvoyFilter => "EnvoyFilter",
            Self::Gateway => "Gateway",
            Self::Namespace => "Namespace",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Node => "Node",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Pod => "Pod",
            Self::ProxyConfig => "ProxyConfig",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
            Self::Sidecar => "Sidecar",
            Self::Telemetry => "Telemetry",
            Self::VirtualService => "VirtualService",
            Self::WasmPlugin => "WasmPlugin",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::WorkloadGroup => "WorkloadGroup",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::GrpcRoute => "GRPCRoute",
            Self::GatewayClass => "GatewayClass",
            Self::HttpRoute => "HTTPRoute",
            Self::KubernetesGateway => "Gateway",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
        }
    }

    /// Returns whether objects of this kind belong to no namespace.
    pub fn is_cluster_wide(self) -> bool {
        matches!(self, Self::Namespace | Self::Node | Self::GatewayClass)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What tells one object from all others. Prints as `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
