//! The mesh-wide configuration: key `mesh` of the ConfigMap `istio`, under Istio's own names.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::{SourceRef, TrustDomain};

use super::destination_rule::{H2UpgradePolicy, LocalitySetting, TcpKeepalive};
use super::mesh_policy::{
    DefaultProviders, DefaultTrafficPolicy, GatewayTopology, ObjectSelector, ProxyHeaders,
    ServiceEntryVisibility, TlsSettings,
};
use super::provider::ExtensionProvider;
use super::shared::{ExportTo, TlsVersion};
use super::tls::ClientTls;
use super::virtual_service::Retries;

/// MeshConfig with Istio's defaults where nothing is written.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// Place of the first line, or "(built in)".
    pub at: SourceRef,
    /// `outboundTrafficPolicy.mode`. Default ALLOW_ANY, as in Istio.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// `outboundTrafficPolicy.tls`: what is originated towards hosts that ALLOW_ANY_DYNAMIC_DNS
    /// resolves; `None` for plain text.
    pub outbound_tls: Option<ClientTls>,
    /// `inboundTrafficPolicy.mode`. Default PASSTHROUGH.
    pub inbound_traffic_policy: InboundTrafficPolicy,
    /// `trustDomain`. Default `cluster.local`.
    pub trust_domain: TrustDomain,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// `rootNamespace`. Default `istio-system`.
    pub root_namespace: String,
    /// `accessLogFile`; empty (the default) turns the log off.
    pub access_log_file: String,
    /// `accessLogFormat`; empty means Istio's default format.
    pub access_log_format: String,
    /// `accessLogEncoding`. Default TEXT.
    pub access_log_encoding: AccessLogEncoding,
    /// `enableAutoMtls`. Default true.
    pub enable_auto_mtls: bool,
    /// `connectTimeout`. Default 10 s.
    pub connect_timeout: Duration,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `protocolDetectionTimeout`; zero (the default) means no limit.
    pub protocol_detection_timeout: Duration,
    /// `dnsRefreshRate`. Default 60 s.
    pub dns_refresh_rate: Duration,
    /// `h2UpgradePolicy`. Default no.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// `proxyListenPort`. Default 15001.
    pub proxy_listen_port: u16,
    /// `proxyInboundListenPort`. Default 15006.
    pub proxy_inbound_listen_port: u16,
    /// `defaultServiceExportTo`. Default `*`.
    pub default_service_export_to: Vec<ExportTo>,
    /// `defaultVirtualServiceExportTo`. Default `*`.
    pub default_virtual_service_export_to: Vec<ExportTo>,
    /// `defaultDestinationRuleExportTo`. Default `*`.
    pub default_destination_rule_export_to: Vec<ExportTo>,
    /// `defaultHttpRetryPolicy`; `None` means Istio's built-in one.
    pub default_http_retry_policy: Option<Retries>,
    /// `pathNormalization.normalization`. Default BASE.
    pub path_normalization: PathNormalization,
    /// `meshMTLS.minProtocolVersion`. Default 1.2.
    pub mesh_mtls_min_version: TlsVersion,
    /// `meshMTLS.cipherSuites`; empty means the default.
    pub mesh_mtls_cipher_suites: Vec<String>,
    /// `tlsDefaults`, of all TLS but the mesh's own.
    pub tls_defaults: TlsSettings,
    /// `discoverySelectors`: the namespaces that are seen; any is enough, and none means all.
    pub discovery_selectors: Vec<ObjectSelector>,
    /// `serviceEntryVisibility`.
    pub service_entry_visibility: Option<ServiceEntryVisibility>,
    /// `defaultTrafficPolicy`.
    pub default_traffic_policy: DefaultTrafficPolicy,
    /// `localityLbSetting`; `None` means Istio's default: on, where outliers are ejected.
    pub locality_lb_setting: Option<LocalitySetting>,
    /// `outboundClusterStatName`: a pattern for the names of clusters' statistics; empty means
    /// Envoy's.
    pub outbound_cluster_stat_name: String,
    /// `extensionProviders`, names unique.
    pub extension_providers: Vec<ExtensionProvider>,
    /// `defaultProviders`.
    pub default_providers: DefaultProviders,
    /// `disableEnvoyListenerLog`: connections without a filter chain are not logged.
    pub disable_envoy_listener_log: bool,
    /// `enablePrometheusMerge`. Default true.
    pub enable_prometheus_merge: bool,
    /// `defaultConfig`.
    pub default_config: ProxyConfig,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            at: SourceRef::default(),
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            outbound_tls: None,
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::default(),
            enable_auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            tcp_keepalive: None,
            protocol_detection_timeout: Duration::ZERO,
            dns_refresh_rate: Duration::from_secs(60),
            h2_upgrade_policy: H2UpgradePolicy::DoNotUpgrade,
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            default_service_export_to: vec![ExportTo::All],
            default_virtual_service_export_to: vec![ExportTo::All],
            default_destination_rule_export_to: vec![ExportTo::All],
            default_http_retry_policy: None,
            path_normalization: PathNormalization::default(),
            mesh_mtls_min_version: TlsVersion::V1_2,
            mesh_mtls_cipher_suites: Vec::new(),
            tls_defaults: TlsSettings::default(),
            discovery_selectors: Vec::new(),
            service_entry_visibility: None,
            default_traffic_policy: DefaultTrafficPolicy::default(),
            locality_lb_setting: None,
            outbound_cluster_stat_name: String::new(),
            extension_providers: Vec::new(),
            default_providers: DefaultProviders::default(),
            disable_envoy_listener_log: false,
            enable_prometheus_merge: true,
            default_config: ProxyConfig::default(),
        }
    }
}

/// What happens to a connection for an address that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutboundTrafficPolicy {
    /// It is refused.
    RegistryOnly,
    /// It is forwarded as it is. Istio's default.
    #[default]
    AllowAny,
    /// The same; but the host of plain HTTP is resolved again, and the request goes there.
    AllowAnyDynamicDns,
}

/// What happens to a received connection for a port that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InboundTrafficPolicy {
    /// It goes to the address that was asked for. Istio's default.
    #[default]
    Passthrough,
    /// It goes to 127.0.0.1.
    Localhost,
}

/// How an access log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessLogEncoding {
    /// By the format's text. The default.
    #[default]
    Text,
    /// As one JSON object.
    Json,
}

/// How far a path is normalized before it is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathNormalization {
    /// Not at all.
    None,
    /// RFC 3986 normalization. The default.
    #[default]
    Base,
    /// The same, and runs of slashes become one.
    MergeSlashes,
    /// The same, and `%2F` and `%5C` are decoded first.
    DecodeAndMergeSlashes,
}

/// `defaultConfig`: settings of the proxies themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `concurrency`: worker threads; `None` and 0 mean one per core.
    pub concurrency: Option<u32>,
    /// `drainDuration`. Default 45 s.
    pub drain_duration: Duration,
    /// `terminationDrainDuration`. Default 5 s.
    pub termination_drain_duration: Duration,
    /// `discoveryAddress`; `None` means the built-in one.
    pub discovery_address: Option<String>,
    /// `proxyAdminPort`. Default 15000.
    pub proxy_admin_port: u16,
    /// `statusPort`. Default 15020.
    pub status_port: u16,
    /// `proxyMetadata`: environment of the proxy.
    pub proxy_metadata: BTreeMap<String, String>,
    /// `interceptionMode`. Default REDIRECT.
    pub interception_mode: InterceptionMode,
    /// `holdApplicationUntilProxyStarts`. Default false.
    pub hold_application_until_proxy_starts: bool,
    /// `meshId`.
    pub mesh_id: Option<String>,
    /// `gatewayTopology`.
    pub gateway_topology: GatewayTopology,
    /// `proxyHeaders`.
    pub proxy_headers: ProxyHeaders,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            concurrency: None,
            drain_duration: Duration::from_secs(45),
            termination_drain_duration: Duration::from_secs(5),
            discovery_address: None,
            proxy_admin_port: 15000,
            status_port: 15020,
            proxy_metadata: BTreeMap::new(),
            interception_mode: InterceptionMode::default(),
            hold_application_until_proxy_starts: false,
            mesh_id: None,
            gateway_topology: GatewayTopology::default(),
            proxy_headers: ProxyHeaders::default(),
        }
    }
}

/// How connections reach the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InterceptionMode {
    /// By redirection. The default.
    #[default]
    Redirect,
    /// By transparent proxying.
    Tproxy,
    /// Not at all.
    None,
}
