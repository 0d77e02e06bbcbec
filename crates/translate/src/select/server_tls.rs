//! The TLS that a gateway's server terminates, in terms of SDS names and verified names.
//!
//! In:    `servers[].tls` of a Gateway.
//! Out:   [`ServerTls`]; a reason when it cannot be carried out.
//! Never: falls back to plain text, or to less verification than was asked for.

use sluis_resources::{
    MeshConfig, ServerTls as GatewayTls, ServerTlsMode, TlsFiles, TlsVersion as WrittenVersion,
};

use super::{
    secrets,
    tls::{Refusal, certificate_name, mesh_server, root_name, version},
};
use crate::{NameMatch, ServerTls, TlsVersion};

/// What clients of HTTP, and of other protocols, are offered by ALPN.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// What clients of the mesh are offered where bytes are forwarded after its own TLS.
const MESH_ALPN: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];

/// What a server of a Gateway terminates. For modes that terminate nothing, ask elsewhere.
pub(super) fn server(
    tls: &GatewayTls,
    is_http: bool,
    mesh: &MeshConfig,
) -> Result<ServerTls, Refusal> {
    let is_mesh = tls.mode == ServerTlsMode::IstioMutual;
    let alpn: &[&str] = if is_mesh && !is_http { &MESH_ALPN } else { &ALPN };
    let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
    let mut made = mesh_server(mesh, alpn, tls.cipher_suites.clone());
    made.version_max = version(tls.max_version, TlsVersion::Auto);
    made.curves.clone_from(&tls.ecdh_curves);
    if !is_mesh || tls.min_version != WrittenVersion::Auto {
        made.version_min = version(tls.min_version, TlsVersion::V1_2);
    }
    if !is_mesh {
        made.certificates = certificates(tls)?;
        made.client_roots = client_roots(tls)?;
        made.is_client_required = tls.mode == ServerTlsMode::Mutual;
        made.client_names.clear();
    }
    if !is_mesh {
        fill(&mut made, tls, mesh);
    }
    if made.client_roots.is_some() {
        check_client(&mut made, tls);
    }
    Ok(made)
}

/// What the mesh configuration says where the server says nothing (`tlsDefaults`).
fn fill(made: &mut ServerTls, tls: &GatewayTls, mesh: &MeshConfig) {
    let defaults = &mesh.tls_defaults;
    if tls.cipher_suites.is_empty() {
        made.ciphers.clone_from(&defaults.cipher_suites);
    }
    if tls.ecdh_curves.is_empty() {
        made.curves.clone_from(&defaults.ecdh_curves);
    }
    if tls.min_version == WrittenVersion::Auto {
        made.version_min = version(defaults.min_version, TlsVersion::V1_2);
    }
}

/// How a client's certificate is judged, beside its roots.
fn check_client(made: &mut ServerTls, tls: &GatewayTls) {
    if !tls.subject_alt_names.is_empty() {
        let names = tls.subject_alt_names.iter().cloned();
        made.client_names = names.map(NameMatch::Exact).collect();
    }
    made.client_keys.clone_from(&tls.verify_certificate_spki);
    made.client_hashes.clone_from(&tls.verify_certificate_hash);
    made.crl.clone_from(&tls.ca_crl);
    made.is_client_untrusted = tls.insecure_skip_verify;
}

/// The SDS names of the server's certificates.
fn certificates(tls: &GatewayTls) -> Result<Vec<String>, Refusal> {
    if !tls.credential_names.is_empty() {
        return Ok(tls.credential_names.iter().map(|name| secrets::sds_name(name)).collect());
    }
    match tls.certificates.as_slice() {
        [] => Ok(vec![certificate(&tls.files)?]),
        pairs => pairs.iter().map(certificate).collect(),
    }
}

fn certificate(files: &TlsFiles) -> Result<String, Refusal> {
    match (&files.certificate, &files.private_key) {
        (Some(certificate), Some(key)) => Ok(certificate_name(certificate, key)),
        _ => Err(("tls.serverCertificate", "certificate and key are both needed".to_owned())),
    }
}

/// The SDS name of the roots for client certificates; `None` for modes that ask for none.
fn client_roots(tls: &GatewayTls) -> Result<Option<String>, Refusal> {
    if !matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        return Ok(None);
    }
    if let Some(name) = &tls.ca_credential_name {
        return Ok(Some(secrets::roots_name(name)));
    }
    // As in Istio: with several Secrets the first one's roots count.
    if let Some(name) = tls.credential_names.first() {
        return Ok(Some(secrets::roots_name(name)));
    }
    let of_pairs = tls.certificates.iter().find_map(|files| files.ca_certificates.as_deref());
    match tls.files.ca_certificates.as_deref().or(of_pairs) {
        Some(roots) => Ok(Some(root_name(roots))),
        None => {
            Err(("tls.caCertificates", "mutual TLS needs a CA for client certificates".to_owned()))
        }
    }
}
