//! TLS settings of a Gateway's server (towards clients) and of a DestinationRule (towards servers).

use sluis_nouns::SourceRef;

use super::shared::TlsVersion;

/// Where Istio's injector once mounted the mesh's own certificate and key. Manifests of that time name
/// these paths; they stand for the workload's certificate, and no file is read.
pub const MESH_CERTIFICATE_FILES: (&str, &str) =
    ("/etc/certs/cert-chain.pem", "/etc/certs/key.pem");

/// Where Istio's injector once mounted the mesh's roots; see [`MESH_CERTIFICATE_FILES`].
pub const MESH_ROOTS_FILE: &str = "/etc/certs/root-cert.pem";

/// How a server of a Gateway treats TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerTlsMode {
    /// Forwards the encrypted bytes by SNI. The default, also where nothing is written.
    #[default]
    Passthrough,
    /// Terminates; the client shows no certificate.
    Simple,
    /// Terminates; the client must show a certificate.
    Mutual,
    /// Forwards by SNI without a VirtualService, for traffic between clusters.
    AutoPassthrough,
    /// Terminates with the mesh's own certificates on both sides.
    IstioMutual,
    /// Terminates; a client certificate is verified where shown.
    OptionalMutual,
}

/// A certificate chain, its key, and the CA that verifies the other side: paths of PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `serverCertificate`.
    pub certificate: Option<String>,
    /// `privateKey`.
    pub private_key: Option<String>,
    /// `caCertificates`.
    pub ca_certificates: Option<String>,
}

/// `servers[].tls` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Place of the section.
    pub at: SourceRef,
    /// `mode`.
    pub mode: ServerTlsMode,
    /// `httpsRedirect`: answer plain HTTP with 301 to https.
    pub https_redirect: bool,
    /// `serverCertificate`, `privateKey`, `caCertificates`.
    pub files: TlsFiles,
    /// `tlsCertificates[]`: up to two pairs of another key type each, in place of `files`.
    pub certificates: Vec<TlsFiles>,
    /// `credentialName` or `credentialNames`: Secrets that hold the pairs.
    pub credential_names: Vec<String>,
    /// `caCertCredentialName`: the Secret that holds the CA.
    pub ca_credential_name: Option<String>,
    /// `caCrl`: path of a revocation list.
    pub ca_crl: Option<String>,
    /// `subjectAltNames`: names one of which the client's certificate must carry.
    pub subject_alt_names: Vec<String>,
    /// `verifyCertificateSpki`: base64 SHA-256 of accepted client keys.
    pub verify_certificate_spki: Vec<String>,
    /// `verifyCertificateHash`: hex SHA-256 of accepted client certificates.
    pub verify_certificate_hash: Vec<String>,
    /// `minProtocolVersion`.
    pub min_version: TlsVersion,
    /// `maxProtocolVersion`.
    pub max_version: TlsVersion,
    /// `cipherSuites`, in OpenSSL's names; empty means the default.
    pub cipher_suites: Vec<String>,
    /// `ecdhCurves`; empty means the default.
    pub ecdh_curves: Vec<String>,
    /// `insecureSkipVerify`: take any client certificate.
    pub insecure_skip_verify: bool,
}

/// Whether, and with which certificate, TLS is originated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientTlsMode {
    /// Sends the bytes as they are. The default where `tls` is written without a mode.
    #[default]
    Disable,
    /// Originates TLS without a client certificate.
    Simple,
    /// Originates TLS with the given client certificate.
    Mutual,
    /// Originates TLS with the workload's mesh certificate.
    IstioMutual,
}

/// `trafficPolicy.tls` of a DestinationRule, also used in the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Place of the section.
    pub at: SourceRef,
    /// `mode`.
    pub mode: ClientTlsMode,
    /// `clientCertificate`: path of the PEM chain.
    pub client_certificate: Option<String>,
    /// `privateKey`: path of its key.
    pub private_key: Option<String>,
    /// `caCertificates`: path of the CA; none means the operating system's.
    pub ca_certificates: Option<String>,
    /// `credentialName`: a Secret in place of the files.
    pub credential_name: Option<String>,
    /// `subjectAltNames`: names one of which the server's certificate must carry.
    pub subject_alt_names: Vec<String>,
    /// `sni`: the name to ask for.
    pub sni: Option<String>,
    /// `insecureSkipVerify`: take any server certificate. `None` where not written.
    pub insecure_skip_verify: Option<bool>,
    /// `caCrl`: path of a revocation list.
    pub ca_crl: Option<String>,
}
