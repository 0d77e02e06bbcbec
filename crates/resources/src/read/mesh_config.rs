//! Reads the mesh configuration, a YAML text inside of a ConfigMap.

use std::time::Duration;

use sluis_nouns::is_dns_label;

use super::forms::{checked, read_fields, read_names};
use super::provider::check_providers;
use crate::kinds::destination_rule::H2UpgradePolicy;
use crate::kinds::mesh_config::{
    AccessLogEncoding, InboundTrafficPolicy, InterceptionMode, MeshConfig, OutboundTrafficPolicy,
    PathNormalization, ProxyConfig,
};
use crate::kinds::mesh_policy::TlsSettings;
use crate::kinds::provider::ExtensionProvider;
use crate::kinds::shared::{ExportTo, TlsVersion};
use crate::kinds::tls::ClientTls;
use crate::value::{Doc, Fields, OpenDuration, Value};
use crate::yaml::{NodeKind, Place, documents};

read_fields! {
    MeshConfig => mesh_config,
    OutboundMode => outbound_mode,
    InboundMode => inbound_mode,
    Normalization => normalization,
    MeshTls => mesh_tls,
    ProxyConfig => proxy_config,
}

read_names! {
    OutboundTrafficPolicy {
        "REGISTRY_ONLY" => OutboundTrafficPolicy::RegistryOnly,
        "ALLOW_ANY" => OutboundTrafficPolicy::AllowAny,
        "ALLOW_ANY_DYNAMIC_DNS" => OutboundTrafficPolicy::AllowAnyDynamicDns,
    }
    InboundTrafficPolicy {
        "PASSTHROUGH" => InboundTrafficPolicy::Passthrough,
        "LOCALHOST" => InboundTrafficPolicy::Localhost,
    }
    AccessLogEncoding {
        "TEXT" => AccessLogEncoding::Text,
        "JSON" => AccessLogEncoding::Json,
    }
    PathNormalization {
        "DEFAULT" => PathNormalization::Base,
        "NONE" => PathNormalization::None,
        "BASE" => PathNormalization::Base,
        "MERGE_SLASHES" => PathNormalization::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
    }
    InterceptionMode {
        "REDIRECT" => InterceptionMode::Redirect,
        "TPROXY" => InterceptionMode::Tproxy,
        "NONE" => InterceptionMode::None,
    }
}

/// Reads the text of a value as a mesh configuration. Faults point into the outer file.
pub(super) fn embedded(value: &Value<'_>) -> Option<MeshConfig> {
    let (text, place) = match &value.node.kind {
        NodeKind::Literal { text, first } => (text, Place::From(*first)),
        NodeKind::Quoted(text) => (text, Place::Fixed(value.node.at)),
        _ => (&value.text()?.to_owned(), Place::Fixed(value.node.at)),
    };
    let mut inner = Doc::new(value.doc.file.clone());
    inner.resource.clone_from(&value.doc.resource);
    inner.namespace.clone_from(&value.doc.namespace);
    inner.snake_case = true;
    inner.lenient = value.doc.lenient;
    let mut read = documents(&value.doc.file, text, place);
    if read.len() > 1 {
        return value.fault("one document is expected here");
    }
    let document = read.pop()?;
    for mut fault in document.faults {
        fault.path = format!("{}.{}", value.path, fault.path).trim_end_matches('.').to_owned();
        inner.note(fault);
    }
    let mesh = match &document.root {
        Some(root) => {
            Value { node: root, doc: &inner, path: value.path.clone() }.read::<MeshConfig>()
        }
        None => Some(MeshConfig { at: value.at(), ..MeshConfig::default() }),
    };
    let broken = inner.errors() > 0;
    for fault in inner.faults.into_inner() {
        value.doc.note(fault);
    }
    mesh.filter(|_| !broken)
}

/// Reads the fields of a mesh configuration.
pub(super) fn mesh_config(fields: &mut Fields<'_, '_>) -> Option<MeshConfig> {
    let default = MeshConfig::default();
    refuse_and_ignore(fields);
    let exports =
        |fields: &mut Fields<'_, '_>, name| fields.opt(name).unwrap_or_else(|| vec![ExportTo::All]);
    let root_namespace = fields.get("rootNamespace").and_then(|value| {
        checked(&value, |text| {
            is_dns_label(text).then(|| text.to_owned()).ok_or("this is not a namespace".to_owned())
        })
    });
    let outbound = fields.opt("outboundTrafficPolicy");
    let OutboundMode(outbound_traffic_policy, outbound_tls) =
        outbound.unwrap_or(OutboundMode(default.outbound_traffic_policy, None));
    let extension_providers: Vec<ExtensionProvider> = fields.or_default("extensionProviders");
    check_providers(fields, &extension_providers);
    let MeshTls(mesh_mtls) = fields.or_default("meshMTLS");
    Some(MeshConfig {
        at: fields.at(),
        outbound_traffic_policy,
        outbound_tls,
        inbound_traffic_policy: fields
            .opt("inboundTrafficPolicy")
            .map_or(default.inbound_traffic_policy, |InboundMode(mode)| mode),
        trust_domain: fields.opt("trustDomain").unwrap_or(default.trust_domain),
        trust_domain_aliases: fields.or_default("trustDomainAliases"),
        root_namespace: root_namespace.unwrap_or(default.root_namespace),
        access_log_file: fields.or_default("accessLogFile"),
        access_log_format: fields.or_default("accessLogFormat"),
        access_log_encoding: fields.or_default("accessLogEncoding"),
        enable_auto_mtls: fields.opt("enableAutoMtls").unwrap_or(default.enable_auto_mtls),
        connect_timeout: fields.opt("connectTimeout").unwrap_or(default.connect_timeout),
        tcp_keepalive: fields.opt("tcpKeepalive"),
        protocol_detection_timeout: open(fields, "protocolDetectionTimeout")
            .unwrap_or(default.protocol_detection_timeout),
        dns_refresh_rate: fields.opt("dnsRefreshRate").unwrap_or(default.dns_refresh_rate),
        h2_upgrade_policy: fields
            .opt::<H2UpgradePolicy>("h2UpgradePolicy")
            .unwrap_or(default.h2_upgrade_policy),
        proxy_listen_port: fields.opt("proxyListenPort").unwrap_or(default.proxy_listen_port),
        proxy_inbound_listen_port: fields
            .opt("proxyInboundListenPort")
            .unwrap_or(default.proxy_inbound_listen_port),
        default_service_export_to: exports(fields, "defaultServiceExportTo"),
        default_virtual_service_export_to: exports(fields, "defaultVirtualServiceExportTo"),
        default_destination_rule_export_to: exports(fields, "defaultDestinationRuleExportTo"),
        default_http_retry_policy: fields.opt("defaultHttpRetryPolicy"),
        path_normalization: fields
            .opt("pathNormalization")
            .map_or(default.path_normalization, |Normalization(level)| level),
        mesh_mtls_min_version: match mesh_mtls.min_version {
            TlsVersion::Auto => default.mesh_mtls_min_version,
            version => version,
        },
        mesh_mtls_cipher_suites: mesh_mtls.cipher_suites,
        tls_defaults: fields.or_default("tlsDefaults"),
        discovery_selectors: fields.or_default("discoverySelectors"),
        service_entry_visibility: fields.opt("serviceEntryVisibility"),
        default_traffic_policy: fields.or_default("defaultTrafficPolicy"),
        locality_lb_setting: fields.opt("localityLbSetting"),
        outbound_cluster_stat_name: fields.or_default("outboundClusterStatName"),
        extension_providers,
        default_providers: fields.or_default("defaultProviders"),
        disable_envoy_listener_log: fields.or_default("disableEnvoyListenerLog"),
        enable_prometheus_merge: fields
            .opt("enablePrometheusMerge")
            .unwrap_or(default.enable_prometheus_merge),
        default_config: fields.or_default("defaultConfig"),
    })
}

/// Fields that Istio knows and that are not obeyed here. Those that restrict who may do what are
/// refused, as leaving them out would open a door; the others are told of.
fn refuse_and_ignore(fields: &mut Fields<'_, '_>) {
    fields.unsupported(&[
        "caCertificates",
        "ca",
        "configSources",
        "defaultInboundHttpRetryPolicy",
        "zoneAwareLbSetting",
        "serviceSettings",
        "serviceScopeConfigs",
        "verifyCertificateAtClient",
    ]);
    fields.without_effect(&[
        "proxyHttpPort",
        "hboneIdleTimeout",
        "ingressClass",
        "ingressService",
        "ingressControllerMode",
        "ingressSelector",
        "enableTracing",
        "enableEnvoyAccessLogService",
        "disableEnvoyListenerLog",
        "certificates",
        "enablePrometheusMerge",
        "inboundClusterStatName",
    ]);
}

fn open(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Duration> {
    fields.opt(name).map(|OpenDuration(duration)| duration)
}

/// `outboundTrafficPolicy: {mode: …, tls: …}`.
struct OutboundMode(OutboundTrafficPolicy, Option<ClientTls>);

fn outbound_mode(fields: &mut Fields<'_, '_>) -> Option<OutboundMode> {
    // In protobuf a section without a mode means its first value, and so does Istio.
    let mode = fields.opt("mode").unwrap_or(OutboundTrafficPolicy::RegistryOnly);
    if mode != OutboundTrafficPolicy::AllowAnyDynamicDns {
        fields.useless(&["tls"], "only ALLOW_ANY_DYNAMIC_DNS originates TLS");
    }
    Some(OutboundMode(mode, fields.opt("tls")))
}

struct InboundMode(InboundTrafficPolicy);

fn inbound_mode(fields: &mut Fields<'_, '_>) -> Option<InboundMode> {
    Some(InboundMode(fields.or_default("mode")))
}

struct Normalization(PathNormalization);

fn normalization(fields: &mut Fields<'_, '_>) -> Option<Normalization> {
    Some(Normalization(fields.or_default("normalization")))
}

/// `meshMTLS`.
#[derive(Default)]
struct MeshTls(TlsSettings);

fn mesh_tls(fields: &mut Fields<'_, '_>) -> Option<MeshTls> {
    if let Some(value) = fields.get("ecdhCurves") {
        value.fault::<()>("the mesh's own TLS takes no curves");
    }
    super::mesh_policy::tls_settings(fields).map(MeshTls)
}

fn proxy_config(fields: &mut Fields<'_, '_>) -> Option<ProxyConfig> {
    let default = ProxyConfig::default();
    fields.unsupported(&[
        // Its value is read: whoever obeys it deletes this line.
        "gatewayTopology",
        "caCertificatesPem",
        "connectionSettings",
    ]);
    fields.without_effect(&[
        "configPath",
        "binaryPath",
        "serviceCluster",
        "tracingServiceName",
        "discoveryRefreshDelay",
        "zipkinAddress",
        "statsdUdpAddress",
        "envoyMetricsServiceAddress",
        "availabilityZone",
        "controlPlaneAuthPolicy",
        "customConfigFile",
        "statNameLength",
        "proxyBootstrapTemplatePath",
        "tracing",
        "sds",
        "envoyAccessLogService",
        "envoyMetricsService",
        "runtimeValues",
        "extraStatTags",
        "readinessProbe",
        "proxyStatsMatcher",
        "image",
        "privateKeyProvider",
        "fileFlushInterval",
        "fileFlushMinSizeKb",
        "statsCompression",
        "discoveryAddress",
        "meshId",
        "statusPort",
        "proxyAdminPort",
        "holdApplicationUntilProxyStarts",
    ]);
    fields.not_carried_out(&["drainDuration", "terminationDrainDuration"]);
    Some(ProxyConfig {
        concurrency: fields.opt("concurrency"),
        drain_duration: fields.opt("drainDuration").unwrap_or(default.drain_duration),
        termination_drain_duration: open(fields, "terminationDrainDuration")
            .unwrap_or(default.termination_drain_duration),
        discovery_address: fields.opt("discoveryAddress"),
        proxy_admin_port: fields.opt("proxyAdminPort").unwrap_or(default.proxy_admin_port),
        status_port: fields.opt("statusPort").unwrap_or(default.status_port),
        proxy_metadata: fields.or_default("proxyMetadata"),
        interception_mode: fields.or_default("interceptionMode"),
        hold_application_until_proxy_starts: fields.or_default("holdApplicationUntilProxyStarts"),
        mesh_id: fields.opt("meshId"),
        gateway_topology: fields.or_default("gatewayTopology"),
        proxy_headers: fields.or_default("proxyHeaders"),
    })
}
