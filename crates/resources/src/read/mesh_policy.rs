//! Reads the parts of the mesh configuration that say what is seen and trusted.

use super::forms::{read_fields, read_names};
use crate::kinds::mesh_policy::{
    DefaultTrafficPolicy, ForwardClientCert, GatewayTopology, ObjectSelector, Operator,
    ProxyHeaders, Requirement, ServiceEntryVisibility, TlsSettings, Visibility, VisibilityPolicy,
};
use crate::kinds::shared::TlsVersion;
use crate::value::Fields;

read_fields! {
    ObjectSelector => selector,
    Requirement => requirement,
    ServiceEntryVisibility => visibility,
    VisibilityPolicy => visibility_policy,
    MatchRule => match_rule,
    TlsSettings => tls_settings,
    DefaultTrafficPolicy => default_traffic_policy,
    GatewayTopology => gateway_topology,
    ProxyProtocol => proxy_protocol,
    ProxyHeaders => proxy_headers,
    Switch => switch,
    OnSwitch => on_switch,
    Server => server,
}

read_names! {
    Operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
    }
    Visibility {
        "VISIBILITY_UNSPECIFIED" => Visibility::Public,
        "PUBLIC" => Visibility::Public,
        "NAMESPACE" => Visibility::Namespace,
        "NONE" => Visibility::None,
    }
    ClientCert {
        "UNDEFINED" => ClientCert(None),
        "SANITIZE" => ClientCert(Some(ForwardClientCert::Sanitize)),
        "FORWARD_ONLY" => ClientCert(Some(ForwardClientCert::ForwardOnly)),
        "APPEND_FORWARD" => ClientCert(Some(ForwardClientCert::AppendForward)),
        "SANITIZE_SET" => ClientCert(Some(ForwardClientCert::SanitizeSet)),
        "ALWAYS_FORWARD_ONLY" => ClientCert(Some(ForwardClientCert::AlwaysForwardOnly)),
    }
}

#[derive(Clone, Copy)]
struct ClientCert(Option<ForwardClientCert>);

fn selector(fields: &mut Fields<'_, '_>) -> Option<ObjectSelector> {
    let labels = fields.or_default("matchLabels");
    Some(ObjectSelector { labels, expressions: fields.or_default("matchExpressions") })
}

fn requirement(fields: &mut Fields<'_, '_>) -> Option<Requirement> {
    let key = fields.req("key");
    let operator: Option<Operator> = fields.req("operator");
    let values: Vec<String> = fields.or_default("values");
    let needs_values = matches!(operator, Some(Operator::In | Operator::NotIn));
    if operator.is_some() && needs_values == values.is_empty() {
        fields.fault_at("values", "In and NotIn need values, the others take none");
    }
    Some(Requirement { key: key?, operator: operator?, values })
}

fn visibility(fields: &mut Fields<'_, '_>) -> Option<ServiceEntryVisibility> {
    Some(ServiceEntryVisibility {
        default: fields.or_default("defaultVisibility"),
        apply_to_sidecars: fields.or_default("applyToSidecars"),
        policies: fields.or_default("policies"),
    })
}

fn visibility_policy(fields: &mut Fields<'_, '_>) -> Option<VisibilityPolicy> {
    let visibility = fields.or_default("visibility");
    let rules: Vec<MatchRule> = fields.or_default("matchingRules");
    let namespaces = rules.into_iter().map(|MatchRule(selector)| selector).collect();
    Some(VisibilityPolicy { visibility, namespaces })
}

/// `{namespaceSelector: …}`.
struct MatchRule(ObjectSelector);

fn match_rule(fields: &mut Fields<'_, '_>) -> Option<MatchRule> {
    fields.req("namespaceSelector").map(MatchRule)
}

/// Reads `meshMTLS` and `tlsDefaults`.
pub(super) fn tls_settings(fields: &mut Fields<'_, '_>) -> Option<TlsSettings> {
    let min_version: TlsVersion = fields.or_default("minProtocolVersion");
    if matches!(min_version, TlsVersion::V1_0 | TlsVersion::V1_1)
        && let Some(value) = fields.get("minProtocolVersion")
    {
        value.fault::<()>("only TLSV1_2 and TLSV1_3 are possible here");
    }
    let (cipher_suites, ecdh_curves) =
        (fields.or_default("cipherSuites"), fields.or_default("ecdhCurves"));
    Some(TlsSettings { min_version, cipher_suites, ecdh_curves })
}

fn default_traffic_policy(fields: &mut Fields<'_, '_>) -> Option<DefaultTrafficPolicy> {
    let connection_pool = fields.opt("connectionPool");
    Some(DefaultTrafficPolicy {
        connection_pool,
        outlier_detection: fields.opt("outlierDetection"),
    })
}

fn gateway_topology(fields: &mut Fields<'_, '_>) -> Option<GatewayTopology> {
    Some(GatewayTopology {
        num_trusted_proxies: fields.or_default("numTrustedProxies"),
        forward_client_cert: fields
            .opt("forwardClientCertDetails")
            .and_then(|ClientCert(details)| details),
        proxy_protocol: fields.opt("proxyProtocol").is_some_and(|ProxyProtocol| true),
    })
}

/// `proxyProtocol: {}`.
struct ProxyProtocol;

fn proxy_protocol(_: &mut Fields<'_, '_>) -> Option<ProxyProtocol> {
    Some(ProxyProtocol)
}

fn proxy_headers(fields: &mut Fields<'_, '_>) -> Option<ProxyHeaders> {
    // What is told of clients' certificates may be believed by others.
    fields.unsupported(&["forwardedClientCert", "setCurrentClientCertDetails"]);
    fields.not_carried_out(&[
        "requestId",
        "server",
        "attemptCount",
        "envoyDebugHeaders",
        "metadataExchangeHeaders",
        "preserveHttp1HeaderCase",
        "xForwardedHost",
        "xForwardedPort",
    ]);
    let server: Option<Server> = fields.opt("server");
    let (server_disabled, server_value) =
        server.map_or((None, None), |Server(disabled, value)| (disabled, value));
    Some(ProxyHeaders {
        forwarded_client_cert: fields
            .opt("forwardedClientCert")
            .and_then(|ClientCert(details)| details),
        request_id_disabled: disabled(fields, "requestId"),
        server_disabled,
        server_value,
        attempt_count_disabled: disabled(fields, "attemptCount"),
        envoy_debug_headers_disabled: disabled(fields, "envoyDebugHeaders"),
        preserve_http1_header_case: fields.opt("preserveHttp1HeaderCase"),
        x_forwarded_host: fields.opt("xForwardedHost").and_then(|OnSwitch(on)| on),
        x_forwarded_port: fields.opt("xForwardedPort").and_then(|OnSwitch(on)| on),
    })
}

fn disabled(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<bool> {
    fields.opt(name).and_then(|Switch(off)| off)
}

/// `{disabled: …}`.
struct Switch(Option<bool>);

fn switch(fields: &mut Fields<'_, '_>) -> Option<Switch> {
    Some(Switch(fields.opt("disabled")))
}

/// `{enabled: …}`.
struct OnSwitch(Option<bool>);

fn on_switch(fields: &mut Fields<'_, '_>) -> Option<OnSwitch> {
    Some(OnSwitch(fields.opt("enabled")))
}

/// `server: {disabled: …, value: …}`.
struct Server(Option<bool>, Option<String>);

fn server(fields: &mut Fields<'_, '_>) -> Option<Server> {
    let (disabled, value) = (fields.opt("disabled"), fields.opt("value"));
    Some(Server(disabled, value))
}
