//! The TLS that a gateway terminates, and how names in certificates are matched.

/// The TLS that a gateway terminates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// The SDS names of the certificates, of another key type each: `file-cert:CERT~KEY`, `default`,
    /// `kubernetes://NAME`.
    pub certificates: Vec<String>,
    /// The SDS name of the roots for client certificates; `None` when none is asked for.
    pub client_roots: Option<String>,
    /// Whether a client certificate is demanded.
    pub is_client_required: bool,
    /// The names of which a client certificate must hold one; empty for any.
    pub client_names: Vec<NameMatch>,
    /// The keys of which a client certificate must hold one: base64 SHA-256; empty for any.
    pub client_keys: Vec<String>,
    /// The client certificates that are accepted: hexadecimal SHA-256; empty for any.
    pub client_hashes: Vec<String>,
    /// The path of a list of client certificates that were taken back.
    pub crl: Option<String>,
    /// Whether a client certificate may come from anybody.
    pub is_client_untrusted: bool,
    /// The protocols offered by ALPN.
    pub alpn: Vec<String>,
    /// The oldest TLS version accepted.
    pub version_min: TlsVersion,
    /// The newest TLS version accepted.
    pub version_max: TlsVersion,
    /// Cipher suites, in OpenSSL's spelling; empty for the defaults.
    pub ciphers: Vec<String>,
    /// Key exchange curves; empty for the defaults.
    pub curves: Vec<String>,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// Left to the proxy.
    #[default]
    Auto,
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// A subject alternative name that a certificate must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameMatch {
    /// This name: a URI when it has a scheme, an address when it parses as one, else a DNS name.
    Exact(String),
    /// A URI that starts so: any identity of a trust domain.
    UriPrefix(String),
}
