//! TLS settings of Gateways, in terms of SDS names and verified names; those of clusters are in
//! `origination`.
//!
//! In:    what users wrote.
//! Out:   [`ServerTls`]; a reason when it cannot be carried out.
//! Never: falls back to plain text, or to less verification than was asked for.

use sluis_nouns::{HostPattern, TrustDomain};
use sluis_resources::{
    MESH_CERTIFICATE_FILES, MESH_ROOTS_FILE, MeshConfig, Server, TlsVersion as WrittenVersion,
};

use crate::{NameMatch, ServerTls, TlsVersion};

/// The SDS names of the mesh's own certificate and roots.
pub(super) const MESH_CERTIFICATE: &str = "default";
pub(super) const MESH_ROOTS: &str = "ROOTCA";

/// Why TLS settings cannot be carried out: the field, and what is wrong.
pub(super) type Refusal = (&'static str, String);

/// Mutual TLS of the mesh towards the clients of a workload: one of the trust domain, or of those that
/// stand for it.
pub(super) fn mesh_server(mesh: &MeshConfig, alpn: Vec<String>, ciphers: Vec<String>) -> ServerTls {
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    ServerTls {
        certificates: vec![MESH_CERTIFICATE.to_owned()],
        client_roots: Some(MESH_ROOTS.to_owned()),
        is_client_required: true,
        client_names: domains.map(in_domain).collect(),
        client_keys: Vec::new(),
        client_hashes: Vec::new(),
        crl: None,
        is_client_untrusted: false,
        alpn,
        version_min: version(mesh.mesh_mtls_min_version, TlsVersion::V1_2),
        version_max: TlsVersion::V1_3,
        ciphers,
        curves: Vec::new(),
    }
}

pub(super) fn certificate_name(certificate: &str, key: &str) -> String {
    if (certificate, key) == MESH_CERTIFICATE_FILES {
        MESH_CERTIFICATE.to_owned()
    } else {
        format!("file-cert:{certificate}~{key}")
    }
}

pub(super) fn root_name(path: &str) -> String {
    if path == MESH_ROOTS_FILE { MESH_ROOTS.to_owned() } else { format!("file-root:{path}") }
}

pub(super) fn version(written: WrittenVersion, default: TlsVersion) -> TlsVersion {
    match written {
        WrittenVersion::Auto => default,
        WrittenVersion::V1_0 => TlsVersion::V1_0,
        WrittenVersion::V1_1 => TlsVersion::V1_1,
        WrittenVersion::V1_2 => TlsVersion::V1_2,
        WrittenVersion::V1_3 => TlsVersion::V1_3,
    }
}

pub(super) fn in_domain(trust_domain: &TrustDomain) -> NameMatch {
    NameMatch::UriPrefix(format!("spiffe://{trust_domain}/"))
}

/// The server names that a server's chain claims; empty for any.
pub(super) fn server_names(server: &Server) -> Vec<String> {
    if server.hosts.iter().any(|host| host.host.is_any()) {
        return Vec::new();
    }
    let mut names: Vec<String> =
        server.hosts.iter().map(|host| host.host.as_str().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// A pattern that Envoy can match in a ClientHello: exact, or `*.` and a suffix.
pub(super) fn is_matchable(name: &HostPattern) -> bool {
    !name.is_wildcard() || name.is_any() || name.as_str().starts_with("*.")
}
