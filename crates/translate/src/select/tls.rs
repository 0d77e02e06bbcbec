//! TLS settings of Gateways, in terms of SDS names and verified names; those of clusters are in
//! `origination`.
//!
//! In:    what users wrote.
//! Out:   [`ServerTls`]; a reason when it cannot be carried out.
//! Never: falls back to plain text, or to less verification than was asked for.

use sluis_nouns::{HostPattern, TrustDomain};
use sluis_resources::{
    MESH_CERTIFICATE_FILES, MESH_ROOTS_FILE, MeshConfig, Server, ServerTls as GatewayTls,
    ServerTlsMode, TlsFiles, TlsVersion as WrittenVersion,
};

use crate::{NameMatch, ServerTls, TlsVersion};

/// The SDS names of the mesh's own certificate and roots.
pub(super) const MESH_CERTIFICATE: &str = "default";
pub(super) const MESH_ROOTS: &str = "ROOTCA";

/// Why TLS settings cannot be carried out: the field, and what is wrong.
pub(super) type Refusal = (&'static str, String);

/// What a server of a Gateway terminates. For modes that terminate nothing, ask elsewhere.
pub(super) fn server(
    tls: &GatewayTls,
    is_http: bool,
    mesh: &MeshConfig,
) -> Result<ServerTls, Refusal> {
    refuse_unsupported(tls)?;
    let alpn = if is_http { vec!["h2".to_owned(), "http/1.1".to_owned()] } else { Vec::new() };
    let mut made = ServerTls {
        certificate: MESH_CERTIFICATE.to_owned(),
        client_roots: None,
        is_client_required: false,
        client_names: tls.subject_alt_names.iter().cloned().map(NameMatch::Exact).collect(),
        alpn,
        version_min: version(tls.min_version, TlsVersion::V1_2),
        version_max: version(tls.max_version, TlsVersion::Auto),
        ciphers: tls.cipher_suites.clone(),
    };
    if tls.mode == ServerTlsMode::IstioMutual {
        made.client_roots = Some(MESH_ROOTS.to_owned());
        made.is_client_required = true;
        if made.client_names.is_empty() {
            made.client_names.push(in_domain(&mesh.trust_domain));
        }
        if tls.min_version == WrittenVersion::Auto {
            made.version_min = version(mesh.mesh_mtls_min_version, TlsVersion::V1_2);
        }
        return Ok(made);
    }
    let files = match tls.certificates.as_slice() {
        [] => &tls.files,
        [one] => one,
        _ => return Err(("tls.tlsCertificates", "only one pair is supported".to_owned())),
    };
    made.certificate = certificate(files)?;
    if matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        let roots = files.ca_certificates.as_deref().or(tls.files.ca_certificates.as_deref());
        let Some(roots) = roots else {
            return Err((
                "tls.caCertificates",
                "mutual TLS needs a CA for client certificates".into(),
            ));
        };
        made.client_roots = Some(root_name(roots));
        made.is_client_required = tls.mode == ServerTlsMode::Mutual;
    }
    Ok(made)
}

/// Mutual TLS of the mesh towards the clients of a workload: one of the trust domain, or of those that
/// stand for it.
pub(super) fn mesh_server(mesh: &MeshConfig, alpn: Vec<String>, ciphers: Vec<String>) -> ServerTls {
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    ServerTls {
        certificate: MESH_CERTIFICATE.to_owned(),
        client_roots: Some(MESH_ROOTS.to_owned()),
        is_client_required: true,
        client_names: domains.map(in_domain).collect(),
        alpn,
        version_min: version(mesh.mesh_mtls_min_version, TlsVersion::V1_2),
        version_max: TlsVersion::V1_3,
        ciphers,
    }
}

/// Refuses what would verify more than is carried out.
fn refuse_unsupported(tls: &GatewayTls) -> Result<(), Refusal> {
    let refused = [
        ("tls.credentialName", !tls.credential_names.is_empty()),
        ("tls.caCertCredentialName", tls.ca_credential_name.is_some()),
        ("tls.caCrl", tls.ca_crl.is_some()),
        ("tls.verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("tls.verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
        ("tls.ecdhCurves", !tls.ecdh_curves.is_empty()),
        ("tls.insecureSkipVerify", tls.insecure_skip_verify),
    ];
    match refused.into_iter().find(|(_, is_written)| *is_written) {
        Some((field, _)) => Err((field, "not supported yet: the server is not served".to_owned())),
        None => Ok(()),
    }
}

fn certificate(files: &TlsFiles) -> Result<String, Refusal> {
    let (Some(certificate), Some(key)) = (&files.certificate, &files.private_key) else {
        return Err(("tls.serverCertificate", "certificate and key are both needed".to_owned()));
    };
    Ok(certificate_name(certificate, key))
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

fn version(written: WrittenVersion, default: TlsVersion) -> TlsVersion {
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
