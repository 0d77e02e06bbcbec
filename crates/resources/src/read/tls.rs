//! Reads TLS settings, and holds them to the rules that Istio has for each mode.

use super::{read_fields, read_names};
use crate::kinds::tls::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode, TlsFiles};
use crate::value::{Fields, Value};

read_fields! {
    ServerTls => server_tls,
    TlsFiles => tls_files,
    ClientTls => client_tls,
}

read_names! {
    ServerTlsMode {
        "PASSTHROUGH" => ServerTlsMode::Passthrough,
        "SIMPLE" => ServerTlsMode::Simple,
        "MUTUAL" => ServerTlsMode::Mutual,
        "AUTO_PASSTHROUGH" => ServerTlsMode::AutoPassthrough,
        "ISTIO_MUTUAL" => ServerTlsMode::IstioMutual,
        "OPTIONAL_MUTUAL" => ServerTlsMode::OptionalMutual,
    }
    ClientTlsMode {
        "DISABLE" => ClientTlsMode::Disable,
        "SIMPLE" => ClientTlsMode::Simple,
        "MUTUAL" => ClientTlsMode::Mutual,
        "ISTIO_MUTUAL" => ClientTlsMode::IstioMutual,
    }
}

/// Most key pairs of one server: one RSA, one ECDSA.
const PAIRS_MAX: usize = 2;

fn tls_files(fields: &mut Fields<'_, '_>) -> Option<TlsFiles> {
    Some(TlsFiles {
        certificate: fields.opt("serverCertificate"),
        private_key: fields.opt("privateKey"),
        ca_certificates: fields.opt("caCertificates"),
    })
}

fn server_tls(fields: &mut Fields<'_, '_>) -> Option<ServerTls> {
    fields.at_most_one(&["credentialName", "credentialNames"]);
    fields.at_most_one(&["credentialName", "tlsCertificates"]);
    fields.at_most_one(&["credentialNames", "tlsCertificates"]);
    let mut credential_names: Vec<String> = pairs(fields, "credentialNames");
    credential_names.extend(fields.opt("credentialName"));
    let tls = ServerTls {
        at: fields.at(),
        mode: fields.or_default("mode"),
        https_redirect: fields.or_default("httpsRedirect"),
        files: tls_files(fields)?,
        certificates: pairs(fields, "tlsCertificates"),
        credential_names,
        ca_credential_name: fields.opt("caCertCredentialName"),
        ca_crl: fields.opt("caCrl"),
        subject_alt_names: fields.or_default("subjectAltNames"),
        verify_certificate_spki: fields.or_default("verifyCertificateSpki"),
        verify_certificate_hash: fields.or_default("verifyCertificateHash"),
        min_version: fields.or_default("minProtocolVersion"),
        max_version: fields.or_default("maxProtocolVersion"),
        cipher_suites: fields.or_default("cipherSuites"),
        ecdh_curves: fields.or_default("ecdhCurves"),
        insecure_skip_verify: fields.or_default("insecureSkipVerify"),
    };
    check_server(fields, &tls);
    Some(tls)
}

/// Reads one or two certificates or their names.
fn pairs<T: crate::value::Read>(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<T> {
    let Some(value) = fields.get(name) else { return Vec::new() };
    let list: Vec<T> = value.read().unwrap_or_default();
    let count = value.items().map_or(1, |items| items.len());
    if !(1..=PAIRS_MAX).contains(&count) {
        value.fault::<()>("one or two are expected here");
    }
    list
}

/// Istio's rules for `servers[].tls`: what terminates needs a key pair, what verifies needs a CA,
/// and mesh certificates leave nothing to be chosen.
fn check_server(fields: &mut Fields<'_, '_>, tls: &ServerTls) {
    use ServerTlsMode::{IstioMutual, Mutual, OptionalMutual, Simple};
    let by_secret = !tls.credential_names.is_empty();
    if matches!(tls.mode, Simple | Mutual | OptionalMutual) && !by_secret {
        let missing = |files: &TlsFiles| {
            [("serverCertificate", &files.certificate), ("privateKey", &files.private_key)]
                .into_iter()
                .filter(|(_, file)| file.as_ref().is_none_or(String::is_empty))
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        if tls.certificates.is_empty() {
            for name in missing(&tls.files) {
                fields.fault_at(
                    name,
                    "this mode needs a certificate and its key, or a credentialName",
                );
            }
        } else if tls.certificates.iter().any(|pair| !missing(pair).is_empty()) {
            fields.fault_at("tlsCertificates", "each item needs a certificate and its key");
        }
    }
    let has_ca = by_secret
        || tls.ca_credential_name.is_some()
        || tls.files.ca_certificates.is_some()
        || tls.certificates.iter().any(|pair| pair.ca_certificates.is_some());
    if tls.mode == Mutual && !has_ca {
        fields.fault_at("caCertificates", "MUTUAL needs the CA that clients are verified with");
    }
    if tls.mode == IstioMutual {
        forbid(
            fields,
            &[
                "serverCertificate",
                "privateKey",
                "caCertificates",
                "credentialName",
                "credentialNames",
                "tlsCertificates",
            ],
            "ISTIO_MUTUAL uses the mesh's own certificates, so this cannot be set",
        );
    }
    if tls.max_version != crate::TlsVersion::Auto
        && tls.min_version > tls.max_version
        && let Some(value) = fields.get("minProtocolVersion")
    {
        value.fault::<()>("the lowest version is above the highest one");
    }
    check_names(fields);
}

fn client_tls(fields: &mut Fields<'_, '_>) -> Option<ClientTls> {
    let tls = ClientTls {
        at: fields.at(),
        mode: fields.or_default("mode"),
        client_certificate: fields.opt("clientCertificate"),
        private_key: fields.opt("privateKey"),
        ca_certificates: fields.opt("caCertificates"),
        credential_name: fields.opt("credentialName"),
        subject_alt_names: fields.or_default("subjectAltNames"),
        sni: fields.opt("sni"),
        insecure_skip_verify: fields.opt("insecureSkipVerify"),
        ca_crl: fields.opt("caCrl"),
    };
    let files = ["clientCertificate", "privateKey", "caCertificates"];
    if tls.credential_name.is_some() {
        forbid(fields, &files, "this cannot be set beside credentialName");
    }
    match tls.mode {
        ClientTlsMode::Mutual if tls.credential_name.is_none() => {
            for name in ["clientCertificate", "privateKey"] {
                if fields.get(name).is_none() {
                    fields.fault_at(name, "MUTUAL needs the client's certificate and its key");
                }
            }
        }
        ClientTlsMode::IstioMutual => {
            let message = "ISTIO_MUTUAL uses the mesh's own certificates, so this cannot be set";
            forbid(fields, &files, message);
            forbid(fields, &["credentialName"], message);
        }
        _ => {}
    }
    check_names(fields);
    Some(tls)
}

fn forbid(fields: &mut Fields<'_, '_>, names: &[&'static str], message: &str) {
    for name in names {
        if let Some(value) = fields.get(name) {
            value.fault::<()>(message);
        }
    }
}

/// An empty name would match nothing, or everything, depending on the reader.
fn check_names(fields: &mut Fields<'_, '_>) {
    let names = fields.get("subjectAltNames").and_then(|value| value.items());
    let empty = |name: &Value<'_>| name.read::<String>().is_some_and(|text| text.is_empty());
    for name in names.unwrap_or_default().iter().filter(|name| empty(name)) {
        name.fault::<()>("a name must not be empty");
    }
}
