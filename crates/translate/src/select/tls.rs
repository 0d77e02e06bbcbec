//! TLS settings of Gateways and DestinationRules, in terms of SDS names and verified names.
//!
//! In:    what users wrote, and the service that it is for.
//! Out:   [`ServerTls`] or [`ClientTls`]; a reason when it cannot be carried out.
//! Never: falls back to plain text, or to less verification than was asked for.

use sluis_model::{MeshPort, MeshService, ServiceEndpoint};
use sluis_nouns::{HostPattern, TrustDomain};
use sluis_resources::{
    ClientTls as RuleTls, ClientTlsMode, MESH_CERTIFICATE_FILES, MESH_ROOTS_FILE, MeshConfig,
    Server, ServerTls as GatewayTls, ServerTlsMode, TlsFiles, TlsVersion as WrittenVersion,
};

use crate::{ClientTls, NameMatch, ServerTls, TlsVersion};

/// The SDS names of the mesh's own certificate and roots.
const MESH_CERTIFICATE: &str = "default";
const MESH_ROOTS: &str = "ROOTCA";

/// The SDS name of the operating system's roots.
const SYSTEM_ROOTS: &str = "file-root:system";

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

fn certificate_name(certificate: &str, key: &str) -> String {
    if (certificate, key) == MESH_CERTIFICATE_FILES {
        MESH_CERTIFICATE.to_owned()
    } else {
        format!("file-cert:{certificate}~{key}")
    }
}

fn root_name(path: &str) -> String {
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

/// What a cluster originates for a service.
#[derive(Clone, Copy)]
pub(super) struct Origination<'a> {
    pub(super) service: &'a MeshService,
    pub(super) port: &'a MeshPort,
    pub(super) subset: &'a str,
    pub(super) endpoints: &'a [ServiceEndpoint],
    pub(super) is_http2: bool,
    pub(super) trust_domain: &'a TrustDomain,
}

impl Origination<'_> {
    /// What a DestinationRule's `tls` asks for; `None` for plain text.
    pub(super) fn of_rule(&self, tls: &RuleTls) -> Result<Option<ClientTls>, Refusal> {
        if tls.credential_name.is_some() {
            let message = "not supported yet: the cluster refuses all traffic";
            return Err(("tls.credentialName", message.to_owned()));
        }
        if tls.ca_crl.is_some() {
            let message = "not supported yet: the cluster refuses all traffic";
            return Err(("tls.caCrl", message.to_owned()));
        }
        match tls.mode {
            ClientTlsMode::Disable => Ok(None),
            ClientTlsMode::IstioMutual => Ok(Some(self.mesh(Some(tls)))),
            ClientTlsMode::Simple => Ok(Some(self.verified(tls, None))),
            ClientTlsMode::Mutual => {
                let (Some(certificate), Some(key)) = (&tls.client_certificate, &tls.private_key)
                else {
                    let message =
                        "certificate and key are both needed: the cluster refuses all traffic";
                    return Err(("tls.clientCertificate", message.to_owned()));
                };
                Ok(Some(self.verified(tls, Some(certificate_name(certificate, key)))))
            }
        }
    }

    /// TLS to a server that is verified by its names.
    ///
    /// Istio verifies no name where an `sni` is written without `subjectAltNames`, and where opaque
    /// bytes are wrapped without an `sni`. Any certificate of a public CA would pass; so here the
    /// `sni` is verified in the first case, and sent and verified as the service's host in the second.
    fn verified(&self, tls: &RuleTls, certificate: Option<String>) -> ClientTls {
        let is_verified = tls.insecure_skip_verify != Some(true);
        let mut sni = tls.sni.clone().unwrap_or_default();
        if sni.is_empty() && !self.speaks_http() {
            sni = self.service.host.exact().unwrap_or_default().to_owned();
        }
        let written = match tls.subject_alt_names.as_slice() {
            [] => &self.service.subject_alt_names,
            _ => &tls.subject_alt_names,
        };
        let mut names: Vec<NameMatch> = written.iter().cloned().map(NameMatch::Exact).collect();
        let is_sni_auto = sni.is_empty();
        let is_name_check_auto = is_sni_auto && names.is_empty() && is_verified;
        if names.is_empty() && !is_sni_auto {
            names.push(NameMatch::Exact(sni.clone()));
        }
        let roots = tls.ca_certificates.as_deref().map_or(SYSTEM_ROOTS.to_owned(), root_name);
        ClientTls {
            certificate,
            roots: is_verified.then_some(roots),
            sni,
            names: if is_verified { names } else { Vec::new() },
            is_sni_auto,
            is_name_check_auto,
            alpn: self.is_http2.then(|| "h2".to_owned()).into_iter().collect(),
        }
    }

    /// Mutual TLS of the mesh.
    pub(super) fn mesh(&self, tls: Option<&RuleTls>) -> ClientTls {
        let (host, port, subset) = (&self.service.host, self.port.number, self.subset);
        let sni = tls
            .and_then(|tls| tls.sni.clone())
            .unwrap_or_else(|| format!("outbound_.{port}_.{subset}_.{host}"));
        let written = tls.map(|tls| tls.subject_alt_names.as_slice()).unwrap_or_default();
        let mut names: Vec<NameMatch> = written.iter().cloned().map(NameMatch::Exact).collect();
        if names.is_empty() {
            names = self.accounts();
        }
        let mut alpn = vec!["istio-peer-exchange".to_owned(), "istio".to_owned()];
        alpn.extend(self.is_http2.then(|| "h2".to_owned()));
        ClientTls {
            certificate: Some(MESH_CERTIFICATE.to_owned()),
            roots: Some(MESH_ROOTS.to_owned()),
            sni,
            names,
            is_sni_auto: false,
            is_name_check_auto: false,
            alpn,
        }
    }

    /// The identities of the endpoints; any of the trust domain where one is not known.
    fn accounts(&self) -> Vec<NameMatch> {
        let domain = self.trust_domain;
        let mut names: Vec<NameMatch> = self
            .endpoints
            .iter()
            .map(|endpoint| match &endpoint.account {
                Some((namespace, account)) => {
                    NameMatch::Exact(format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))
                }
                None => in_domain(domain),
            })
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() { vec![in_domain(domain)] } else { names }
    }

    /// Whether requests can be read where the TLS begins: the port says HTTP, or HTTPS that a gateway
    /// originates.
    fn speaks_http(&self) -> bool {
        self.port.protocol.is_http() || self.port.protocol.is_tls()
    }
}

fn in_domain(trust_domain: &TrustDomain) -> NameMatch {
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
