//! The kinds of the Kubernetes Gateway API (`gateway.networking.k8s.io`).
//!
//! Conditions, filters and limits of a route are held in the terms of VirtualService, which mean the
//! same: only what VirtualService has no word for has a type of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::{HostPattern, Percent, SourceRef};

use super::mesh_policy::ObjectSelector;
use super::virtual_service::{CorsPolicy, HeaderChanges, HttpMatch, Redirect, Retries, Rewrite};

/// `GatewayClass`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayClass {
    /// `controllerName`: who serves the Gateways of the class.
    pub controller: String,
}

/// `Gateway` of the Gateway API (not Istio's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesGateway {
    /// `gatewayClassName`.
    pub class: String,
    /// `addresses`; empty means the workloads that carry the Gateway's name in a label.
    pub addresses: Vec<GatewayAddress>,
    /// `listeners`. At least one.
    pub listeners: Vec<GatewayListener>,
    /// `infrastructure.parametersRef`.
    pub parameters: Option<ObjectReference>,
    /// `tls.backend.clientCertificateRef`.
    pub client_certificate: Option<ObjectReference>,
    /// `tls.frontend`.
    pub frontend: FrontendTls,
}

/// One of `addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    /// `type`; `None` where nothing is written.
    pub kind: Option<String>,
    /// `value`.
    pub value: String,
}

/// `tls.frontend`: how clients' certificates are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendTls {
    /// `default.validation`.
    pub default: Option<FrontendValidation>,
    /// `perPort[]`, in place of the default.
    pub per_port: BTreeMap<u16, Option<FrontendValidation>>,
}

/// `validation` of clients' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendValidation {
    /// `caCertificateRefs`. At least one.
    pub authorities: Vec<ObjectReference>,
    /// Whether `mode` is `AllowInsecureFallback`: any certificate, or none, is taken.
    pub is_insecure: bool,
}

/// A reference to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReference {
    /// Place of the reference.
    pub at: SourceRef,
    /// `group`, where written.
    pub group: Option<String>,
    /// `kind`, where written.
    pub kind: Option<String>,
    /// `name`.
    pub name: String,
    /// `namespace`, where written; else that of the object that refers.
    pub namespace: Option<String>,
}

impl ObjectReference {
    /// Returns whether the reference is to this group and kind, which are also the default.
    pub fn is_default(&self, group: &str, kind: &str) -> bool {
        self.group.as_deref().unwrap_or(group) == group
            && self.kind.as_deref().unwrap_or(kind) == kind
    }
}

/// One of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayListener {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`, unique in the Gateway.
    pub name: String,
    /// `hostname`; `None` means every host.
    pub hostname: Option<HostPattern>,
    /// `port`.
    pub port: u16,
    /// `protocol` as written; whether it is supported is a condition.
    pub protocol: String,
    /// `tls`.
    pub tls: Option<ListenerTls>,
    /// `allowedRoutes.namespaces`.
    pub namespaces: RouteNamespaces,
    /// `allowedRoutes.kinds`, by group and kind; empty means those that the protocol supports.
    pub kinds: Vec<(String, String)>,
}

/// `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Place of the section.
    pub at: SourceRef,
    /// Whether `mode` is `Passthrough`; else it is `Terminate`, and `None` where nothing is written.
    pub is_passthrough: Option<bool>,
    /// `certificateRefs`.
    pub certificates: Vec<ObjectReference>,
    /// `options`.
    pub options: BTreeMap<String, String>,
}

/// Whose routes may be attached to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteNamespaces {
    /// `All`.
    All,
    /// `Same`: those of the Gateway's namespace. The default.
    #[default]
    Same,
    /// `None`.
    None,
    /// `Selector`: by the labels of their namespaces.
    Selector(ObjectSelector),
}

/// What `HTTPRoute`, `GRPCRoute`, `TLSRoute` and `TCPRoute` say.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRoute {
    /// `parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `hostnames`; empty means every host of the parent. Always empty for a `TCPRoute`.
    pub hostnames: Vec<HostPattern>,
    /// `rules`.
    pub rules: Vec<ApiRule>,
}

/// One of `parentRefs`: a Gateway, or a service of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// The object.
    pub object: ObjectReference,
    /// `sectionName`: one listener.
    pub section: Option<String>,
    /// `port`.
    pub port: Option<u16>,
}

/// One of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRule {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`.
    pub name: Option<String>,
    /// `matches`; prefixes mean whole parts of the path. Empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// Filters `RequestHeaderModifier` and `ResponseHeaderModifier`.
    pub headers: HeaderChanges,
    /// Filter `RequestRedirect`.
    pub redirect: Option<Redirect>,
    /// Filter `URLRewrite`.
    pub rewrite: Option<Rewrite>,
    /// Filters `RequestMirror`.
    pub mirrors: Vec<ApiMirror>,
    /// Filter `CORS`.
    pub cors: Option<CorsPolicy>,
    /// `backendRefs`.
    pub backends: Vec<BackendRef>,
    /// `timeouts.request`; zero means no limit.
    pub timeout: Option<Duration>,
    /// `timeouts.backendRequest`; zero means no limit.
    pub backend_timeout: Option<Duration>,
    /// `retry`.
    pub retries: Option<Retries>,
}

/// A filter `RequestMirror`.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiMirror {
    /// `backendRef`.
    pub backend: BackendRef,
    /// `percent` or `fraction`; everything where neither is written.
    pub share: Percent,
}

/// One of `backendRefs`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendRef {
    /// The object; a Service where no kind is written.
    pub object: ObjectReference,
    /// `port`.
    pub port: Option<u16>,
    /// `weight`, relative to the sum; 1 where nothing is written.
    pub weight: u32,
    /// `filters` that change headers.
    pub headers: HeaderChanges,
}

/// `ReferenceGrant`: what of its namespace may be referred to from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// `from`.
    pub from: Vec<GrantFrom>,
    /// `to`.
    pub to: Vec<GrantTo>,
}

/// One of `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// `group`.
    pub group: String,
    /// `kind`.
    pub kind: String,
    /// `namespace`.
    pub namespace: String,
}

/// One of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// `group`.
    pub group: String,
    /// `kind`.
    pub kind: String,
    /// `name`; `None` means all.
    pub name: Option<String>,
}

/// `BackendTLSPolicy`: which TLS is spoken to a service, and how its certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// `targetRefs`. At least one.
    pub targets: Vec<PolicyTargetRef>,
    /// Place of `validation`.
    pub at: SourceRef,
    /// `validation.hostname`: what is asked for by SNI, and verified.
    pub hostname: String,
    /// `validation.caCertificateRefs`; empty means the operating system's.
    pub authorities: Vec<ObjectReference>,
    /// `validation.subjectAltNames`: names in place of the host's.
    pub subject_alt_names: Vec<String>,
}

/// One of `targetRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTargetRef {
    /// The object, always of the policy's own namespace.
    pub object: ObjectReference,
    /// `sectionName`: one port, by its name.
    pub section: Option<String>,
}
