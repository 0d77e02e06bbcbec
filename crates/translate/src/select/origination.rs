//! The TLS that clusters originate, in terms of SDS names and verified names.
//!
//! In:    what a DestinationRule says, and the service that it is for.
//! Out:   [`ClientTls`]; a reason when it cannot be carried out.
//! Never: falls back to plain text, or to less verification than was asked for.

use sluis_model::{MeshPort, MeshService, Rule, ServiceEndpoint, ServiceSource};
use sluis_resources::{ClientTls as RuleTls, ClientTlsMode, MeshConfig, Resolution};

use super::tls::{MESH_CERTIFICATE, MESH_ROOTS, Refusal, certificate_name, in_domain, root_name};
use crate::{ClientTls, NameMatch};

/// The SDS name of the operating system's roots.
const SYSTEM_ROOTS: &str = "file-root:system";

/// What stands before the name of a Secret in SDS names, and behind it for the roots in it.
const SECRET: &str = "kubernetes://";
const SECRET_ROOTS: &str = "-cacert";

/// A name with this before it means a ConfigMap, which holds nothing secret.
const CONFIG_MAP: &str = "configmap://";

/// TLS to a server of keys, which is verified by its name.
pub(super) fn to_key_server(host: &str) -> ClientTls {
    ClientTls {
        roots: Some(SYSTEM_ROOTS.to_owned()),
        sni: host.to_owned(),
        names: vec![NameMatch::Exact(host.to_owned())],
        ..ClientTls::default()
    }
}

/// What a cluster originates for a service.
#[derive(Clone, Copy)]
pub(super) struct Origination<'a> {
    pub(super) service: &'a MeshService,
    pub(super) port: &'a MeshPort,
    pub(super) subset: &'a str,
    /// All endpoints of the port, of whatever subset.
    pub(super) endpoints: &'a [ServiceEndpoint],
    pub(super) is_http2: bool,
    pub(super) mesh: &'a MeshConfig,
    pub(super) rule: Option<&'a Rule>,
    pub(super) is_gateway: bool,
}

impl Origination<'_> {
    /// What a DestinationRule's `tls` asks for; `None` for plain text.
    pub(super) fn of_rule(&self, tls: &RuleTls) -> Result<Option<ClientTls>, Refusal> {
        match tls.mode {
            ClientTlsMode::Disable => Ok(None),
            ClientTlsMode::IstioMutual => Ok(Some(self.mesh_tls(Some(tls)))),
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                let (certificate, roots) = self.credentials(tls)?;
                Ok(Some(self.verified(tls, certificate, roots)))
            }
        }
    }

    /// The SDS names of the client certificate and of the roots.
    fn credentials(&self, tls: &RuleTls) -> Result<(Option<String>, String), Refusal> {
        let is_mutual = tls.mode == ClientTlsMode::Mutual;
        if let Some(name) = &tls.credential_name {
            if !name.starts_with(CONFIG_MAP) && !self.may_hold_secrets() {
                // Istio sends plain text here, to everybody's surprise.
                let message = "a sidecar gets a Secret only from a rule with a workloadSelector: the \
                               cluster refuses all traffic";
                return Err(("tls.credentialName", message.to_owned()));
            }
            if tls.ca_crl.is_some() {
                let message = "the revocation list is taken from the Secret (ca.crl): the cluster \
                               refuses all traffic";
                return Err(("tls.caCrl", message.to_owned()));
            }
            let full = if name.contains("://") { name.clone() } else { format!("{SECRET}{name}") };
            return Ok((is_mutual.then(|| full.clone()), full + SECRET_ROOTS));
        }
        let certificate = match (&tls.client_certificate, &tls.private_key) {
            _ if !is_mutual => None,
            (Some(certificate), Some(key)) => Some(certificate_name(certificate, key)),
            _ => {
                let message =
                    "certificate and key are both needed: the cluster refuses all traffic";
                return Err(("tls.clientCertificate", message.to_owned()));
            }
        };
        let roots = tls.ca_certificates.as_deref().filter(|path| *path != "system");
        Ok((certificate, roots.map_or(SYSTEM_ROOTS.to_owned(), root_name)))
    }

    /// Whether Secrets may be sent to the proxy: to gateways, and to the clients that a rule selects.
    fn may_hold_secrets(&self) -> bool {
        self.is_gateway || self.rule.is_some_and(|rule| rule.workload_selector.is_some())
    }

    /// TLS to a server that is verified by its names.
    ///
    /// Istio verifies no name where an `sni` is written without `subjectAltNames`, and where opaque
    /// bytes are wrapped without an `sni`. Any certificate of a public CA would pass; so here the
    /// `sni` is verified in the first case, and sent and verified as the service's host in the second.
    /// The annotation `sluis.dev/verify-name: "false"` of the rule gives this up.
    fn verified(&self, tls: &RuleTls, certificate: Option<String>, roots: String) -> ClientTls {
        let is_verified = tls.insecure_skip_verify != Some(true);
        let is_dynamic = self.service.resolution == Resolution::DynamicDns;
        let is_strict = self.rule.is_none_or(|rule| !rule.is_name_unverified);
        let mut sni = tls.sni.clone().unwrap_or_default();
        if sni.is_empty() && !self.speaks_http() && is_strict {
            sni = self.service.host.exact().unwrap_or_default().to_owned();
        }
        let of_entry = match self.service.source {
            ServiceSource::Entry => self.service.subject_alt_names.as_slice(),
            ServiceSource::Platform => &[],
        };
        let written =
            if tls.subject_alt_names.is_empty() { of_entry } else { &tls.subject_alt_names };
        let mut names: Vec<NameMatch> = written.iter().cloned().map(NameMatch::Exact).collect();
        let is_sni_auto = sni.is_empty();
        let is_name_check_auto =
            is_verified && (is_dynamic || (is_sni_auto && tls.subject_alt_names.is_empty()));
        if names.is_empty() && !is_sni_auto && !is_dynamic && is_strict {
            names.push(NameMatch::Exact(sni.clone()));
        }
        ClientTls {
            certificate,
            roots: is_verified.then_some(roots),
            crl: tls.ca_crl.clone().filter(|_| is_verified),
            sni,
            names: if is_verified { names } else { Vec::new() },
            is_sni_auto,
            is_name_check_auto,
            alpn: self.is_http2.then(|| "h2".to_owned()).into_iter().collect(),
            ciphers: self.mesh.tls_defaults.cipher_suites.clone(),
            curves: self.mesh.tls_defaults.ecdh_curves.clone(),
        }
    }

    /// Mutual TLS of the mesh.
    pub(super) fn mesh_tls(&self, tls: Option<&RuleTls>) -> ClientTls {
        let (host, port, subset) = (&self.service.host, self.port.number, self.subset);
        let is_dynamic = self.service.resolution == Resolution::DynamicDns;
        let sni = tls.and_then(|tls| tls.sni.clone()).unwrap_or_else(|| {
            if is_dynamic { String::new() } else { format!("outbound_.{port}_.{subset}_.{host}") }
        });
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
            is_sni_auto: is_dynamic && sni.is_empty(),
            sni,
            names,
            alpn,
            ..ClientTls::default()
        }
    }

    /// The identities of the endpoints, in the trust domain and those that stand for it; any identity
    /// of these domains where none is known.
    fn accounts(&self) -> Vec<NameMatch> {
        let domains =
            || std::iter::once(&self.mesh.trust_domain).chain(&self.mesh.trust_domain_aliases);
        let known = self.endpoints.iter().filter_map(|endpoint| endpoint.account.as_ref());
        let mut names: Vec<NameMatch> = known
            .flat_map(|(namespace, account)| {
                domains().map(move |domain| {
                    NameMatch::Exact(format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))
                })
            })
            .chain(self.service.subject_alt_names.iter().cloned().map(NameMatch::Exact))
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() { domains().map(in_domain).collect() } else { names }
    }

    /// Whether requests can be read where the TLS begins: the port says HTTP, or HTTPS that a gateway
    /// originates.
    fn speaks_http(&self) -> bool {
        self.port.protocol.is_http() || self.port.protocol.is_tls()
    }
}

/// The TLS towards whatever host a client asks for, as the mesh configuration has it; `None` for plain
/// text.
pub(super) fn to_any_host(mesh: &MeshConfig) -> Result<Option<ClientTls>, Refusal> {
    let Some(tls) = mesh.outbound_tls.as_ref().filter(|tls| tls.mode != ClientTlsMode::Disable)
    else {
        return Ok(None);
    };
    if tls.credential_name.is_some() || tls.mode == ClientTlsMode::IstioMutual {
        let message = "only SIMPLE and MUTUAL with files are possible: such requests are refused";
        return Err(("tls.mode", message.to_owned()));
    }
    let certificate = match (&tls.client_certificate, &tls.private_key) {
        (Some(certificate), Some(key)) if tls.mode == ClientTlsMode::Mutual => {
            Some(certificate_name(certificate, key))
        }
        _ => None,
    };
    let roots = tls.ca_certificates.as_deref().filter(|path| *path != "system");
    let is_verified = tls.insecure_skip_verify != Some(true);
    let sni = tls.sni.clone().unwrap_or_default();
    let mut names: Vec<NameMatch> =
        tls.subject_alt_names.iter().cloned().map(NameMatch::Exact).collect();
    if names.is_empty() && !sni.is_empty() {
        names.push(NameMatch::Exact(sni.clone()));
    }
    Ok(Some(ClientTls {
        certificate,
        roots: is_verified.then(|| roots.map_or(SYSTEM_ROOTS.to_owned(), root_name)),
        crl: tls.ca_crl.clone().filter(|_| is_verified),
        is_sni_auto: sni.is_empty(),
        is_name_check_auto: is_verified && sni.is_empty() && names.is_empty(),
        sni,
        names: if is_verified { names } else { Vec::new() },
        alpn: Vec::new(),
        ciphers: mesh.tls_defaults.cipher_suites.clone(),
        curves: mesh.tls_defaults.ecdh_curves.clone(),
    }))
}
