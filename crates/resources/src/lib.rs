//! What users write: Istio's resources and a few of Kubernetes, parsed strictly.
//!
//! In:    the text of a YAML stream, and a name for where it came from.
//! Out:   typed [`Resource`]s, and every [`Fault`] with its file, line, column and field path.
//! Never: does I/O, reads a clock or the environment, guesses, or drops a field in silence.
//!
//! Start at [`parse`]. One type per kind lives in its own module and is re-exported here; fields
//! have Istio's names in snake case, and Istio's own rules for one resource hold for each value.
//! Rules between resources (visibility, merge, precedence) belong to the model.

mod crd;
mod fault;
mod kinds;
mod read;
mod resource;
mod support;
mod value;
mod yaml;

pub use crd::crds;
pub use fault::{Fault, Level};
pub use kinds::authorization::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, ConditionKey,
    ConditionValue, Operation, PathPattern, ServiceAccountRef, Source, TextPattern, Values,
};
pub use kinds::core::{
    ConfigMap, Namespace, Secret, SecretValue, Service, ServicePort, ServiceType, TargetPort,
    TrafficDistribution, WorkloadAddress,
};
pub use kinds::credential::{
    AwsSigV4Injection, BasicInjection, BodyDigest, ClientAuthentication,
    ClientCertificateInjection, Credential, CredentialGuard, HashAlgorithm, HeaderInjection,
    HmacInjection, HmacOutput, Injection, JwtAlgorithm, JwtSignInjection, KeyEncoding, KeyId,
    MessageSignatureInjection, NamedInjection, Oauth2Grant, Oauth2Injection, Rotation, SecretKey,
    SignatureAlgorithm, TextEncoding,
};
pub use kinds::credential_grant::CredentialGrant;
pub use kinds::credential_source::{
    ExecSource, FileSource, SecretRefSource, SecretSource, VaultAuth, VaultEngine, VaultSource,
};
pub use kinds::destination_rule::{
    ConnectionPool, ConsistentHash, CookieHash, DestinationRule, H2UpgradePolicy, HashKey,
    HttpPool, Keepalive, LoadBalancer, LocalityDistribution, LocalityFailover, LocalitySetting,
    OutlierDetection, PortTrafficPolicy, ProxyProtocolVersion, RetryBudget, RingAlgorithm,
    SimpleLb, Subset, TcpKeepalive, TcpPool, TrafficPolicy, Tunnel, TunnelMethod, Warmup,
};
pub use kinds::envoy_filter::{
    ApplyTo, ClusterMatch, EnvoyFilter, FilterChainMatch, FilterClass, FilterMatch, ListenerMatch,
    ObjectMatch, Patch, PatchContext, PatchOperation, ProxyMatch, RouteActionMatch,
    RouteConfigurationMatch, RouteMatch, VhostMatch,
};
pub use kinds::gateway::{Gateway, GatewayHost, HostScope, Server, ServerPort};
pub use kinds::gateway_api::{
    ApiMirror, ApiRoute, ApiRule, BackendRef, BackendTlsPolicy, FrontendTls, FrontendValidation,
    GatewayAddress, GatewayClass, GatewayListener, GrantFrom, GrantTo, KubernetesGateway,
    ListenerTls, ObjectReference, ParentRef, PolicyTargetRef, ReferenceGrant, RouteNamespaces,
};
pub use kinds::mesh_config::{
    AccessLogEncoding, InboundTrafficPolicy, InterceptionMode, MeshConfig, OutboundTrafficPolicy,
    PathNormalization, ProxyConfig,
};
pub use kinds::mesh_policy::{
    DefaultProviders, DefaultTrafficPolicy, ForwardClientCert, GatewayTopology, ObjectSelector,
    Operator, ProxyHeaders, Requirement, ServiceEntryVisibility, TlsSettings, Visibility,
    VisibilityPolicy,
};
pub use kinds::network_policy::{
    NetworkPeer, NetworkPolicy, NetworkPort, NetworkPortName, NetworkProtocol, NetworkRule,
};
pub use kinds::peer_authentication::{MtlsMode, PeerAuthentication};
pub use kinds::provider::{
    ExtAuthz, ExtensionProvider, FileAccessLog, LogFormat, LogService, ProviderAddress,
    ProviderKind, RequestBody, TraceService,
};
pub use kinds::proxy_config::WorkloadProxyConfig;
pub use kinds::request_authentication::{
    ClaimToHeader, JwtHeader, JwtKeys, JwtRule, RequestAuthentication,
};
pub use kinds::service_entry::{
    Endpoint, Location, Resolution, ServiceEntry, ServiceEntryPort, WorkloadEntry,
};
pub use kinds::shared::{ExportTo, Protocol, TlsVersion};
pub use kinds::sidecar::{
    CaptureMode, DefaultEndpoint, EgressListener, ImportedHost, IngressListener, Sidecar,
    SidecarOutboundPolicy, SidecarPort,
};
pub use kinds::target::{PolicyTarget, TargetKind, TargetRef};
pub use kinds::telemetry::{
    AccessLogging, CustomTag, MetricName, Metrics, MetricsOverride, Telemetry, Tracing,
    WorkloadMode,
};
pub use kinds::tls::{
    ClientTls, ClientTlsMode, MESH_CERTIFICATE_FILES, MESH_ROOTS_FILE, ServerTls, ServerTlsMode,
    TlsFiles,
};
pub use kinds::virtual_service::{
    CorsPolicy, Delay, DelayKind, Destination, DirectBody, DirectResponse, FaultInjection,
    GRPC_STATUSES, GatewayRef, HeaderChanges, HeaderOps, HttpAbort, HttpAction, HttpMatch,
    HttpRoute, L4Destination, Mirror, Redirect, RedirectPort, Retries, Rewrite, StringMatch,
    TcpMatch, TcpRoute, TlsMatch, TlsRoute, UnmatchedPreflights, UriRewrite, VirtualService,
    WeightedDestination,
};
pub use kinds::wasm_plugin::{FailStrategy, PluginPhase, TrafficMatch, WasmPlugin};
pub use kinds::workload::{ContainerPort, EndpointSlice, Node, Pod, SliceEndpoint, SlicePort};
pub use kinds::workload_group::{ProbeMethod, ReadinessProbe, WorkloadGroup};
pub use read::{Legacy, Modern, Options, Parsed, modernize, parse, parse_with, renew};
pub use resource::{Key, Kind, Meta, Resource, Spec};
pub use support::support_page;
pub use value::{DurationError, parse_duration};
pub use yaml::TEXT_BYTES_MAX;
