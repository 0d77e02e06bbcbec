//! Parts of the mesh configuration that say what is seen and trusted.

use sluis_nouns::Labels;

use super::destination_rule::{ConnectionPool, OutlierDetection};
use super::shared::TlsVersion;

/// A selector of Kubernetes: all of it must hold, and nothing written selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectSelector {
    /// `matchLabels`.
    pub labels: Labels,
    /// `matchExpressions`.
    pub expressions: Vec<Requirement>,
}

impl ObjectSelector {
    /// Returns whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        labels.matches(&self.labels) && self.expressions.iter().all(|one| one.holds(labels))
    }
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// `key` of the label.
    pub key: String,
    /// `operator`.
    pub operator: Operator,
    /// `values`: some for [`Operator::In`] and [`Operator::NotIn`], none for the others.
    pub values: Vec<String>,
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// `operator` of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is missing.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

/// `serviceEntryVisibility`: how far ServiceEntries may be seen, whatever they say themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntryVisibility {
    /// `defaultVisibility`, where no policy matches.
    pub default: Visibility,
    /// `applyToSidecars`: without it sidecars are not bound.
    pub apply_to_sidecars: bool,
    /// `policies`; the first that matches decides.
    pub policies: Vec<VisibilityPolicy>,
}

/// One of `policies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisibilityPolicy {
    /// `visibility`.
    pub visibility: Visibility,
    /// `matchingRules[].namespaceSelector`: all must match the entry's namespace; none matches all.
    pub namespaces: Vec<ObjectSelector>,
}

/// How far a ServiceEntry is seen at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// As far as it says itself. The default.
    #[default]
    Public,
    /// In its own namespace.
    Namespace,
    /// Nowhere.
    None,
}

/// `meshMTLS` and `tlsDefaults`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `minProtocolVersion`; [`TlsVersion::Auto`] means 1.2.
    pub min_version: TlsVersion,
    /// `cipherSuites`; empty means the default.
    pub cipher_suites: Vec<String>,
    /// `ecdhCurves`, of `tlsDefaults` only; empty means the default.
    pub ecdh_curves: Vec<String>,
}

/// `defaultTrafficPolicy`: what DestinationRules that are silent mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DefaultTrafficPolicy {
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
}

/// `defaultProviders`: those that telemetry uses where nothing is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultProviders {
    /// `tracing`.
    pub tracing: Vec<String>,
    /// `metrics`.
    pub metrics: Vec<String>,
    /// `accessLogging`.
    pub access_logging: Vec<String>,
}

/// `gatewayTopology`: what is in front of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayTopology {
    /// `numTrustedProxies`: how many entries of `X-Forwarded-For`, from the right, are believed.
    pub num_trusted_proxies: u32,
    /// `forwardClientCertDetails`.
    pub forward_client_cert: Option<ForwardClientCert>,
    /// Whether `proxyProtocol` is written: connections start with a PROXY header.
    pub proxy_protocol: bool,
}

/// What happens to `X-Forwarded-Client-Cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardClientCert {
    /// It is removed.
    Sanitize,
    /// It is passed on, where the client has a certificate.
    ForwardOnly,
    /// The client's certificate is appended, where it has one.
    AppendForward,
    /// It is replaced by the client's certificate, where it has one.
    SanitizeSet,
    /// It is passed on.
    AlwaysForwardOnly,
}

/// `proxyHeaders`: headers that the proxy adds. `None` means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeaders {
    /// `forwardedClientCert`.
    pub forwarded_client_cert: Option<ForwardClientCert>,
    /// `requestId.disabled`.
    pub request_id_disabled: Option<bool>,
    /// `server.disabled`.
    pub server_disabled: Option<bool>,
    /// `server.value`.
    pub server_value: Option<String>,
    /// `attemptCount.disabled`.
    pub attempt_count_disabled: Option<bool>,
    /// `envoyDebugHeaders.disabled`.
    pub envoy_debug_headers_disabled: Option<bool>,
    /// `preserveHttp1HeaderCase`.
    pub preserve_http1_header_case: Option<bool>,
    /// `xForwardedHost.enabled`.
    pub x_forwarded_host: Option<bool>,
    /// `xForwardedPort.enabled`.
    pub x_forwarded_port: Option<bool>,
}
