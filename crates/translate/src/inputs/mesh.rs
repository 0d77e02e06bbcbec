//! What the mesh configuration says to every proxy.

use std::time::Duration;

use super::DnsFamily;

/// What the mesh configuration says to every proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeshInputs {
    /// Where and how requests and connections are logged that the workload sends, or a gateway takes.
    pub access_logs: Vec<AccessLogInput>,
    /// Where and how those are logged that the workload receives.
    pub inbound_access_logs: Vec<AccessLogInput>,
    /// How request paths are normalised before they are matched.
    pub normalization: Normalization,
    /// How long the first bytes may take that tell the protocol of a connection; zero for no limit.
    pub detection_timeout: Duration,
    /// How long a DNS answer is used when it says nothing itself.
    pub dns_refresh: Duration,
    /// When some cluster resolves names as clients ask for them: which addresses are used.
    pub dynamic_dns: Option<DnsFamily>,
    /// Whether the proxy has Istio's ALPN filter.
    pub has_alpn_filter: bool,
}

/// Where and how requests and connections are logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessLogInput {
    /// A file; `/dev/stdout` is usual.
    pub path: String,
    /// An Envoy format string, or a JSON object of them; `None` for Istio's default.
    pub format: Option<String>,
    /// Whether lines are JSON objects.
    pub json: bool,
}

/// How request paths are normalised before they are matched (Istio's `pathNormalization`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// Not at all.
    None,
    /// RFC 3986 §6.2.2: dot segments and percent-encoding.
    #[default]
    Base,
    /// As `Base`, and `//` becomes `/`.
    MergeSlashes,
    /// As `MergeSlashes`, and `%2F` and `%5C` are decoded first.
    DecodeAndMergeSlashes,
}
