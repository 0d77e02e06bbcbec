//! What TLS should do, as plain data: which secrets, whom to trust, what to offer.
//!
//! In:    nothing; the compiler fills these types from Envoy's TLS contexts.
//! Out:   values that the tls crate turns into live configurations.
//! Never: holds a key or a certificate: only the names of secrets.

mod suites;

pub use suites::{CipherSuites, KeyGroups};

use std::{fmt, sync::Arc};

use crate::StringMatcher;

/// The name under which a secret is found, as in SDS.
///
/// Istio's own names have a meaning: `default` (the workload's certificate), `ROOTCA` (the mesh's
/// roots), `file-cert:CERT~KEY`, `file-root:PATH` and `file-root:system`. Certificates that a
/// resource names by file get such a name too; `file-crl:PATH` names revoked certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// The operating system's trusted roots.
    pub const SYSTEM_ROOTS: &'static str = "file-root:system";

    /// Makes a name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version of TLS. Older versions are refused when the resource is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// The versions to offer or accept: from `min` to `max`, both included; and the suites of TLS 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TlsVersions {
    /// The oldest version. Default TLS 1.2.
    pub min: TlsVersion,
    /// The newest version. Default TLS 1.3.
    pub max: TlsVersion,
    /// The cipher suites of TLS 1.2. Default all.
    pub suites: CipherSuites,
    /// The groups of the key exchange. Default all.
    pub groups: KeyGroups,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self {
            min: TlsVersion::V1_2,
            max: TlsVersion::V1_3,
            suites: CipherSuites::ALL,
            groups: KeyGroups::ALL,
        }
    }
}

/// What a listener's filter chain does when the client speaks TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTls {
    /// The server's certificates; at least one. The first whose names fit the SNI is used, else
    /// the first.
    pub certificates: Vec<SecretName>,
    /// How a client's certificate is judged; `None` asks for none.
    pub validation: Option<Validation>,
    /// Whether a client without a certificate is refused. Implies a validation.
    pub require_client_certificate: bool,
    /// Whether a client without SNI is refused.
    pub require_sni: bool,
    /// The protocols to accept, most wanted first; empty accepts none by name.
    pub alpn: Vec<Arc<str>>,
    /// The versions to accept.
    pub versions: TlsVersions,
}

/// What a cluster does when it opens a TLS connection.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// The certificate to show, if any.
    pub certificate: Option<SecretName>,
    /// How the server's certificate is judged. `None` judges nothing at all: the resource asked
    /// for that in so many words (an empty validation context), it never comes about by default.
    pub validation: Option<Validation>,
    /// The SNI to send; `None` sends none, unless the cluster derives it (`auto_sni`).
    pub sni: Option<Arc<str>>,
    /// Whether the endpoint's host name is the SNI when it has one (`auto_host_sni`).
    pub auto_host_sni: bool,
    /// Whether the certificate must be for the SNI that was sent (`auto_sni_san_validation`).
    pub auto_sni_san_validation: bool,
    /// The protocols to offer, most wanted first; empty offers none.
    pub alpn: Vec<Arc<str>>,
    /// The versions to offer.
    pub versions: TlsVersions,
}

/// How a peer's certificate is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// The roots that the chain must end in.
    pub roots: SecretName,
    /// The names of which the certificate must have at least one; empty accepts any name.
    pub sans: Vec<SanMatcher>,
    /// Hex SHA-256 digests (lower case, no colons) of which the leaf must have one; empty for any.
    pub certificate_hashes: Vec<Arc<str>>,
    /// Base64 SHA-256 digests of the public key (SPKI), likewise.
    pub spki_hashes: Vec<Arc<str>>,
    /// Lists of revoked certificates, beside those that come with the roots.
    pub crl: Option<SecretName>,
    /// Whether the lists are asked about the leaf only, not about the authorities between.
    pub crl_leaf_only: bool,
}

/// One name that a certificate may have.
#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// Which of the certificate's names are looked at.
    pub kind: SanKind,
    /// What they are compared with. A DNS name is compared as in Envoy: for an exact matcher a
    /// wildcard in the certificate (`*.example.com`) covers one label.
    pub matcher: StringMatcher,
}

/// A kind of subject alternative name (RFC 5280 §4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// Any kind.
    Any,
    /// `dNSName`.
    Dns,
    /// `uniformResourceIdentifier`, as SPIFFE identities.
    Uri,
    /// `rfc822Name`.
    Email,
    /// `iPAddress`, in text form.
    Ip,
}
