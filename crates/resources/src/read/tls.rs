//! Reads TLS settings, and holds them to the rules that Istio has for each mode.

use super::forms::{read_fields, read_names};
use crate::kinds::tls::{
    ClientTls, ClientTlsMode, MESH_CERTIFICATE_FILES, MESH_ROOTS_FILE, ServerTls, ServerTlsMode,
    TlsFiles,
};
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

/// Settings by which a server judges clients' certificates.
const OF_CLIENTS: [&str; 7] = [
    "caCertificates",
    "caCertCredentialName",
    "caCrl",
    "subjectAltNames",
    "verifyCertificateSpki",
    "verifyCertificateHash",
    "insecureSkipVerify",
];

/// Settings by which a server shows itself.
const OF_SERVER: [&str; 9] = [
    "serverCertificate",
    "privateKey",
    "credentialName",
    "credentialNames",
    "tlsCertificates",
    "minProtocolVersion",
    "maxProtocolVersion",
    "cipherSuites",
    "ecdhCurves",
];

fn tls_files(fields: &mut Fields<'_, '_>) -> Option<TlsFiles> {
    tell_mesh_files(fields, ["serverCertificate", "privateKey"]);
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
    let has_ca = by_secret || tls.files.ca_certificates.is_some();
    if matches!(tls.mode, Mutual | OptionalMutual) && !has_ca {
        fields.fault_at("caCertificates", "this mode needs the CA that clients are verified with");
    }
    if tls.files.certificate.is_some() && tls.files.private_key.is_some() {
        let others = ["credentialName", "credentialNames", "tlsCertificates"];
        forbid(fields, &others, "this cannot be beside serverCertificate and privateKey");
    }
    if tls.mode == Simple {
        forbid(fields, &["caCrl"], "SIMPLE asks for no client certificate, so nothing is revoked");
    } else if tls.mode != IstioMutual && fields.has("credentialName") {
        forbid(fields, &["caCrl"], "beside credentialName the Secret has the revocation list");
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
    let why = "this mode asks for no client certificate";
    match tls.mode {
        Simple => fields.useless(&OF_CLIENTS, why),
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            fields.useless(&OF_CLIENTS, why);
            fields.useless(&OF_SERVER, "this mode does not terminate TLS");
        }
        Mutual | OptionalMutual | IstioMutual => {}
    }
    check_names(fields);
}

/// Says so where the paths of a pair, or of the roots, are names for the mesh's own.
fn tell_mesh_files(fields: &mut Fields<'_, '_>, pair: [&'static str; 2]) {
    let message =
        "this path stands for the mesh's own certificate, as in old Istio: no file is read";
    let written = pair.map(|name| fields.get(name));
    if let [Some(certificate), Some(key)] = written
        && certificate.text() == Some(MESH_CERTIFICATE_FILES.0)
        && key.text() == Some(MESH_CERTIFICATE_FILES.1)
    {
        certificate.warn(message);
    }
    if let Some(value) = fields.get("caCertificates")
        && value.text() == Some(MESH_ROOTS_FILE)
    {
        value.warn(message);
    }
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
    tell_mesh_files(fields, ["clientCertificate", "privateKey"]);
    let files = ["clientCertificate", "privateKey", "caCertificates"];
    if tls.credential_name.is_some()
        && matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
    {
        forbid(fields, &files, "this cannot be set beside credentialName");
        forbid(fields, &["caCrl"], "this cannot be set beside credentialName");
    }
    check_skip(fields, &tls);
    match tls.mode {
        ClientTlsMode::Mutual if tls.credential_name.is_none() => {
            for name in ["clientCertificate", "privateKey"] {
                if fields.get(name).is_none() {
                    fields.fault_at(name, "MUTUAL needs the client's certificate and its key");
                }
            }
        }
        ClientTlsMode::IstioMutual => {
            let why = "ISTIO_MUTUAL uses the mesh's own certificates";
            fields.useless(&files, why);
            fields.useless(&["credentialName", "caCrl"], why);
            fields.useless(&["insecureSkipVerify"], "mesh certificates are always verified");
        }
        ClientTlsMode::Simple => {
            let why = "SIMPLE shows no client certificate (MUTUAL does)";
            fields.useless(&["clientCertificate", "privateKey"], why);
        }
        ClientTlsMode::Disable => {
            let why = "the mode is DISABLE, as where none is written, and TLS is not originated";
            fields.useless(&files, why);
            let rest = ["credentialName", "subjectAltNames", "sni", "insecureSkipVerify", "caCrl"];
            fields.useless(&rest, why);
        }
        ClientTlsMode::Mutual => {}
    }
    check_names(fields);
    Some(tls)
}

/// Istio: what is not verified needs neither CA nor names.
fn check_skip(fields: &mut Fields<'_, '_>, tls: &ClientTls) {
    if tls.insecure_skip_verify != Some(true) {
        return;
    }
    let message = "this cannot be set beside insecureSkipVerify";
    match tls.mode {
        ClientTlsMode::Simple => {
            forbid(fields, &["caCertificates", "credentialName", "subjectAltNames"], message);
        }
        ClientTlsMode::Mutual => forbid(fields, &["caCertificates", "subjectAltNames"], message),
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => {}
    }
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
