//! Which kinds are read, by whom, and what becomes of the others.
//!
//! In:    the group, version and name of a kind.
//! Out:   its row of [`READERS`], or why there is none.
//! Never: takes a kind for one that does not matter because it is unknown.
//!
//! A new kind is one row here. An older spelling of a kind is a row with that spelling's group and name
//! and the kind it becomes.

use crate::kinds::core::Namespace;
use crate::resource::{Kind, Meta, Spec};
use crate::value::Fields;

/// One row: a kind as it is written, and who reads it.
pub(super) struct KindReader {
    /// The part of `apiVersion` before the slash; empty for Kubernetes' core.
    group: &'static str,
    /// The parts behind it, the one to suggest first.
    versions: &'static [&'static str],
    /// `kind`.
    pub(super) name: &'static str,
    /// What the object becomes.
    pub(super) kind: Kind,
    /// Reads everything beside `metadata`, which is there unless it was faulty.
    pub(super) read: fn(&mut Fields<'_, '_>, Option<&Meta>) -> Option<Spec>,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const DISCOVERY: &str = "discovery.k8s.io";
const CORE: &str = "";
const EGRESS: &str = "egress.sluis.dev";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

const V1: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const V1_OR_BETA: &[&str] = &["v1", "v1beta1"];
const ONLY_V1: &[&str] = &["v1"];
const ONLY_BETA: &[&str] = &["v1beta1"];
const ONLY_ALPHA: &[&str] = &["v1alpha3"];
const ONLY_ALPHA1: &[&str] = &["v1alpha1"];
const V1_OR_ALPHA2: &[&str] = &["v1", "v1alpha2"];
const TLS_ROUTE: &[&str] = &["v1", "v1alpha3", "v1alpha2"];
const POLICY: &[&str] = &["v1", "v1alpha3"];
const V1_OR_ALPHA: &[&str] = &["v1", "v1alpha1"];

/// Makes a row whose kind has its name, read from `spec`.
macro_rules! spec {
    ($group:expr, $versions:expr, $kind:ident) => {
        KindReader {
            group: $group,
            versions: $versions,
            name: stringify!($kind),
            kind: Kind::$kind,
            read: |fields, _| Some(Spec::$kind(fields.req("spec")?)),
        }
    };
}

/// The same, of a kind in which a missing `spec` means an empty one.
macro_rules! spec_or_nothing {
    ($group:expr, $versions:expr, $kind:ident) => {
        KindReader {
            group: $group,
            versions: $versions,
            name: stringify!($kind),
            kind: Kind::$kind,
            read: |fields, _| match fields.get("spec") {
                Some(value) => value.read().map(Spec::$kind),
                None => Some(Spec::$kind(Default::default())),
            },
        }
    };
}

/// Makes a row whose reader looks beyond `spec`.
macro_rules! whole {
    ($group:expr, $versions:expr, $kind:ident, $read:expr) => {
        KindReader {
            group: $group,
            versions: $versions,
            name: stringify!($kind),
            kind: Kind::$kind,
            read: |fields, meta| $read(fields, meta).map(Spec::$kind),
        }
    };
}

/// Makes a row of the Gateway API, whose `spec` is read by a function of its fields or by its type.
macro_rules! api {
    ($versions:expr, $name:literal, $kind:ident) => {
        KindReader {
            group: GATEWAY_API,
            versions: $versions,
            name: $name,
            kind: Kind::$kind,
            read: |fields, _| Some(Spec::$kind(fields.req("spec")?)),
        }
    };
    ($versions:expr, $name:literal, $kind:ident, $read:expr) => {
        KindReader {
            group: GATEWAY_API,
            versions: $versions,
            name: $name,
            kind: Kind::$kind,
            read: |fields, _| match fields.get("spec") {
                Some(value) => value.fields($read).map(Spec::$kind),
                None => {
                    fields.missing("spec");
                    None
                }
            },
        }
    };
}

/// All kinds that are read.
pub(super) const READERS: &[KindReader] = &[
    spec!(NETWORKING, V1, Gateway),
    spec!(NETWORKING, V1, VirtualService),
    spec!(NETWORKING, V1, DestinationRule),
    spec!(NETWORKING, V1, ServiceEntry),
    spec!(NETWORKING, V1, WorkloadEntry),
    spec!(NETWORKING, V1, WorkloadGroup),
    spec!(NETWORKING, V1, Sidecar),
    spec!(NETWORKING, ONLY_ALPHA, EnvoyFilter),
    spec_or_nothing!(NETWORKING, ONLY_BETA, ProxyConfig),
    spec_or_nothing!(SECURITY, V1_OR_BETA, PeerAuthentication),
    spec_or_nothing!(SECURITY, V1_OR_BETA, RequestAuthentication),
    whole!(SECURITY, V1_OR_BETA, AuthorizationPolicy, super::authorization::authorization_policy),
    spec_or_nothing!("telemetry.istio.io", V1_OR_ALPHA, Telemetry),
    spec!("extensions.istio.io", ONLY_ALPHA1, WasmPlugin),
    whole!(EGRESS, ONLY_ALPHA1, Credential, |fields, meta| {
        super::credential::credential(fields, meta).map(Box::new)
    }),
    spec!(EGRESS, ONLY_ALPHA1, CredentialGrant),
    spec!(CORE, ONLY_V1, Service),
    whole!(CORE, ONLY_V1, Namespace, namespace),
    whole!(CORE, ONLY_V1, Node, |fields, _| super::workload::node(fields)),
    whole!(CORE, ONLY_V1, Pod, |fields, _| super::workload::pod(fields)),
    whole!(CORE, ONLY_V1, Secret, |fields, _| super::core::secret(fields)),
    whole!(CORE, ONLY_V1, ConfigMap, super::core::config_map),
    whole!("networking.k8s.io", ONLY_V1, NetworkPolicy, super::network_policy::network_policy),
    whole!(DISCOVERY, ONLY_V1, EndpointSlice, super::workload::endpoint_slice),
    api!(V1_OR_BETA, "GatewayClass", GatewayClass),
    api!(V1_OR_BETA, "Gateway", KubernetesGateway),
    api!(V1_OR_BETA, "HTTPRoute", HttpRoute, super::gateway_api::http),
    api!(V1_OR_ALPHA2, "GRPCRoute", GrpcRoute, super::gateway_api::grpc),
    api!(TLS_ROUTE, "TLSRoute", TlsRoute, super::gateway_api::tls),
    api!(V1_OR_ALPHA2, "TCPRoute", TcpRoute, super::gateway_api::tcp),
    api!(V1_OR_BETA, "ReferenceGrant", ReferenceGrant),
    api!(POLICY, "BackendTLSPolicy", BackendTlsPolicy),
];

/// Kinds that are read and checked, and that the rest of the program does not carry out yet: an object
/// of one is an error, so that a policy that nobody enforces never looks enforced. Whoever carries a
/// kind out deletes its line.
pub(super) const NOT_CARRIED_OUT: &[Kind] = &[Kind::WasmPlugin, Kind::WorkloadGroup];

/// What is said of such a kind.
pub(super) const PENDING: &str = "this kind is known, and not carried out yet";

/// Notes that a kind is not carried out yet, where that is so.
pub(super) fn tell_pending(kind: Kind, fields: &mut Fields<'_, '_>) {
    if let Some(value) = fields.get("kind")
        && NOT_CARRIED_OUT.contains(&kind)
    {
        value.fault::<()>(PENDING);
    }
}

/// Returns the newest `apiVersion` of a kind.
#[cfg(test)]
pub(super) fn api_of(kind: Kind) -> String {
    let row = READERS.iter().find(|row| row.kind == kind && row.name == kind.as_str());
    row.map(KindReader::api).unwrap_or_default()
}

impl KindReader {
    /// Returns all values of `apiVersion`, the later ones by their version only, with code marks
    /// between them.
    pub(super) fn apis(&self) -> String {
        let slash = if self.group.is_empty() { "" } else { "/" };
        format!("{}{slash}{}", self.group, self.versions.join("`, `"))
    }

    /// Returns the `apiVersion` to suggest.
    pub(super) fn api(&self) -> String {
        let slash = if self.group.is_empty() { "" } else { "/" };
        format!("{}{slash}{}", self.group, self.versions[0])
    }
}

fn namespace(fields: &mut Fields<'_, '_>, _: Option<&Meta>) -> Option<Namespace> {
    fields.ignore(&["spec"]);
    Some(Namespace)
}

/// Why a kind is not read.
pub(super) enum Refusal {
    /// The group is known and has the kind, but not in this version.
    Version(String),
    /// The kind was Istio's; what to use instead.
    Gone(&'static str),
    /// The kind is Istio's or steers traffic, and is not supported.
    Unsupported,
    /// The kind has nothing to do with the mesh's traffic.
    Unrelated,
    /// The kind is unknown; perhaps this `apiVersion` was meant.
    Unknown(Option<String>),
}

/// Kinds that say nothing about how traffic flows, so that leaving them out changes nothing.
const UNRELATED: [&str; 21] = [
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ServiceAccount",
    "CustomResourceDefinition",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "ResourceQuota",
    "LimitRange",
    "Kustomization",
    "Certificate",
];

/// Finds the reader of a kind.
pub(super) fn find(group: &str, version: &str, name: &str) -> Result<&'static KindReader, Refusal> {
    let mut elsewhere = None;
    for row in READERS.iter().filter(|row| row.name == name) {
        if row.group != group {
            elsewhere = elsewhere.or(Some(row));
        } else if row.versions.contains(&version) {
            return Ok(row);
        } else {
            return Err(Refusal::Version(row.versions.join(", ")));
        }
    }
    Err(match elsewhere {
        Some(_) if group == GATEWAY_API => Refusal::Unsupported,
        Some(row) => Refusal::Unknown(Some(row.api())),
        None => other_kind(group, name),
    })
}

/// What is used today in place of a kind that Istio has given up and that says nothing which could be
/// converted.
fn given_up(group: &str, kind: &str) -> Option<&'static str> {
    const ACCESS: &str = "say who may do what in an AuthorizationPolicy; ask a server of your own with \
                          its action CUSTOM and an extension provider of the mesh configuration";
    const QUOTA: &str =
        "limit rates with an EnvoyFilter that adds envoy.filters.http.local_ratelimit";
    const TELEMETRY: &str = "say what is told in a Telemetry resource, and to whom in the extension \
                             providers of the mesh configuration";
    const MIXER: &str = "Mixer is gone: use AuthorizationPolicy for checks, Telemetry for reports and \
                         an EnvoyFilter with envoy.filters.http.local_ratelimit for quotas";
    const ROUTES: &str = "write a VirtualService, and a DestinationRule for its subsets";
    match (group, kind) {
        ("config.istio.io", "RouteRule" | "DestinationPolicy") => Some(ROUTES),
        ("config.istio.io", "EgressRule") => Some("write a ServiceEntry"),
        ("config.istio.io", _) => Some(match kind.to_ascii_lowercase().as_str() {
            "denier" | "listchecker" | "listentry" | "checknothing" | "authorization" | "opa"
            | "rbac" | "apikey" => ACCESS,
            "memquota" | "redisquota" | "quota" | "quotaspec" | "quotaspecbinding" => QUOTA,
            "metric" | "logentry" | "tracespan" | "prometheus" | "stdio" | "fluentd" | "statsd"
            | "stackdriver" | "zipkin" | "reportnothing" | "edge" => TELEMETRY,
            _ => MIXER,
        }),
        ("networking.istio.io", "RouteRule" | "DestinationPolicy") => Some(ROUTES),
        _ => None,
    }
}

fn other_kind(group: &str, kind: &str) -> Refusal {
    if let Some(help) = given_up(group, kind) {
        return Refusal::Gone(help);
    }
    if group == "istio.io" || group.ends_with(".istio.io") {
        return Refusal::Unsupported;
    }
    if UNRELATED.contains(&kind) {
        return Refusal::Unrelated;
    }
    if group.is_empty() || group.ends_with(".k8s.io") || !group.contains('.') {
        return Refusal::Unsupported;
    }
    Refusal::Unknown(None)
}
