//! TLS contexts of transport sockets.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::core::v3::{
        DataSource, TransportSocket, data_source::Specifier,
        transport_socket::ConfigType as SocketConfig,
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        SubjectAltNameMatcher, TlsCertificate, TlsParameters, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        subject_alt_name_matcher::SanType,
        tls_parameters::TlsProtocol,
    },
};

use super::{
    at::{At, fields, message_of},
    messages,
};
use crate::{
    CipherSuites, DownstreamTls, KeyGroups, SanKind, SanMatcher, SecretName, TlsVersion,
    TlsVersions, UpstreamTls, Validation,
};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// What both directions have in common.
struct Common {
    certificates: Vec<SecretName>,
    validation: Asked,
    alpn: Vec<Arc<str>>,
    versions: TlsVersions,
}

/// What a context says about the peer's certificate.
enum Asked {
    /// Nothing was said.
    Unsaid,
    /// Explicitly nothing is asked.
    Nothing,
    Checks(Validation),
}

impl Asked {
    fn checks(self) -> Option<Validation> {
        match self {
            Self::Checks(validation) => Some(validation),
            Self::Unsaid | Self::Nothing => None,
        }
    }
}

/// A listener's transport socket: `Some(None)` is plaintext, `None` a fault.
pub(super) fn downstream(
    at: &At<'_>,
    socket: Option<&TransportSocket>,
) -> Option<Option<Arc<DownstreamTls>>> {
    let Some(socket) = socket else { return Some(None) };
    let at = &at.field("typed_config");
    let Some(SocketConfig::TypedConfig(any)) = &socket.config_type else {
        return plaintext_by_name(at, socket).then_some(None);
    };
    match message_of(any) {
        RAW_BUFFER => Some(None),
        DOWNSTREAM => downstream_context(at, &at.unpack(any)?).map(|tls| Some(Arc::new(tls))),
        other => {
            at.fault(format!("transport socket {other} is not supported"));
            None
        }
    }
}

/// A cluster's transport socket: `Some(None)` is plaintext, `None` a fault.
pub(super) fn upstream(
    at: &At<'_>,
    socket: Option<&TransportSocket>,
) -> Option<Option<Arc<UpstreamTls>>> {
    let Some(socket) = socket else { return Some(None) };
    let at = &at.field("typed_config");
    let Some(SocketConfig::TypedConfig(any)) = &socket.config_type else {
        return plaintext_by_name(at, socket).then_some(None);
    };
    match message_of(any) {
        RAW_BUFFER => Some(None),
        UPSTREAM => upstream_context(at, &at.unpack(any)?).map(|tls| Some(Arc::new(tls))),
        other => {
            at.fault(format!("transport socket {other} is not supported"));
            None
        }
    }
}

/// Istio writes plaintext as a name without a configuration.
fn plaintext_by_name(at: &At<'_>, socket: &TransportSocket) -> bool {
    let plaintext = socket.name == "envoy.transport_sockets.raw_buffer";
    if !plaintext {
        at.fault(format!("is missing for transport socket {:?}", socket.name));
    }
    plaintext
}

fn downstream_context(at: &At<'_>, context: &DownstreamTlsContext) -> Option<DownstreamTls> {
    fields!(at, context => DownstreamTlsContext {
        use { common_tls_context, require_client_certificate, require_sni }
        accept { full_scan_certs_on_sni_mismatch, prefer_client_ciphers }
        refuse {
            disable_stateful_session_resumption, session_timeout, ocsp_staple_policy,
            session_ticket_keys_type,
        }
    });
    let at = &at.field("common_tls_context");
    let common = common_context(at, common_tls_context.as_ref())?;
    let require = messages::flag(require_client_certificate.as_ref(), false);
    if common.certificates.is_empty() {
        at.fault("names no certificate");
    }
    let validation = common.validation.checks();
    if require && validation.is_none() {
        at.fault("requires a client certificate and does not say how to verify it");
    }
    Some(DownstreamTls {
        certificates: common.certificates,
        validation,
        require_client_certificate: require,
        require_sni: messages::flag(require_sni.as_ref(), false),
        alpn: common.alpn,
        versions: common.versions,
    })
}

fn upstream_context(at: &At<'_>, context: &UpstreamTlsContext) -> Option<UpstreamTls> {
    fields!(at, context => UpstreamTlsContext {
        use { common_tls_context, sni, auto_host_sni, auto_sni_san_validation }
        // How many sessions are kept, and a check that rustls always makes.
        accept { max_session_keys, enforce_rsa_key_usage }
        refuse { allow_renegotiation }
    });
    let at = &at.field("common_tls_context");
    let common = common_context(at, common_tls_context.as_ref())?;
    if common.certificates.len() > 1 {
        at.fault("names more than one client certificate");
    }
    if matches!(common.validation, Asked::Unsaid) {
        // Envoy would trust any server. Who means that has to say so.
        at.fault(
            "does not say how to verify the server; an empty validation_context asks for nothing",
        );
    }
    Some(UpstreamTls {
        certificate: common.certificates.into_iter().next(),
        validation: common.validation.checks(),
        sni: (!sni.is_empty()).then(|| sni.as_str().into()),
        auto_host_sni: *auto_host_sni,
        auto_sni_san_validation: *auto_sni_san_validation,
        alpn: common.alpn,
        versions: common.versions,
    })
}

fn common_context(at: &At<'_>, context: Option<&CommonTlsContext>) -> Option<Common> {
    let Some(context) = context else {
        at.fault("is missing");
        return None;
    };
    fields!(at, context => CommonTlsContext {
        use {
            tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols,
            validation_context_type,
        }
        accept {}
        refuse {
            tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance,
            custom_handshaker, key_log,
        }
    });
    let mut certificates = Vec::new();
    for (index, secret) in tls_certificate_sds_secret_configs.iter().enumerate() {
        certificates.extend(secret_name(
            &at.field("tls_certificate_sds_secret_configs").nth(index),
            secret,
        ));
    }
    for (index, certificate) in tls_certificates.iter().enumerate() {
        certificates
            .extend(certificate_name(&at.field("tls_certificates").nth(index), certificate));
    }
    let alpn = alpn_protocols.iter().enumerate().map(|(index, protocol)| {
        if protocol.is_empty() || protocol.len() > usize::from(u8::MAX) {
            at.field("alpn_protocols").nth(index).fault("is not 1 to 255 bytes long");
        }
        protocol.as_str().into()
    });
    Some(Common {
        alpn: alpn.collect(),
        certificates,
        validation: validation_type(at, validation_context_type.as_ref())?,
        versions: versions(&at.field("tls_params"), tls_params.as_ref()),
    })
}

/// The name by which a secret is subscribed to. Where from does not matter: the store knows.
fn secret_name(at: &At<'_>, secret: &SdsSecretConfig) -> Option<SecretName> {
    if secret.name.is_empty() {
        at.field("name").fault("is missing");
        return None;
    }
    Some(SecretName::new(&secret.name))
}

/// A certificate in files, under the name that Istio gives such a pair.
fn certificate_name(at: &At<'_>, certificate: &TlsCertificate) -> Option<SecretName> {
    fields!(at, certificate => TlsCertificate {
        use { certificate_chain, private_key }
        // Files are always watched.
        accept { watched_directory }
        refuse {
            pkcs12, private_key_provider, password, ocsp_staple, signed_certificate_timestamp,
            tls_params,
        }
    });
    let chain = file_name(&at.field("certificate_chain"), certificate_chain.as_ref())?;
    let key = file_name(&at.field("private_key"), private_key.as_ref())?;
    Some(SecretName::new(&format!("file-cert:{chain}~{key}")))
}

fn file_name<'d>(at: &At<'_>, source: Option<&'d DataSource>) -> Option<&'d str> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::Filename(path)) if !path.is_empty() => Some(path),
        // Keys live in files and in the identity only, never in the configuration.
        _ => {
            at.fault("is not a file name");
            None
        }
    }
}

fn versions(at: &At<'_>, parameters: Option<&TlsParameters>) -> TlsVersions {
    let mut versions = TlsVersions::default();
    let Some(parameters) = parameters else { return versions };
    fields!(at, parameters => TlsParameters {
        use {
            tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites, ecdh_curves,
        }
        accept {}
        refuse { signature_algorithms, compliance_policies }
    });
    let version = |field: &str, value: i32| match TlsProtocol::try_from(value) {
        Ok(TlsProtocol::TlsAuto) => None,
        Ok(TlsProtocol::TlSv12) => Some(TlsVersion::V1_2),
        Ok(TlsProtocol::TlSv13) => Some(TlsVersion::V1_3),
        _ => {
            at.field(field).fault("must be TLSv1_2 or TLSv1_3");
            None
        }
    };
    if let Some(min) = version("tls_minimum_protocol_version", *tls_minimum_protocol_version) {
        versions.min = min;
    }
    if let Some(max) = version("tls_maximum_protocol_version", *tls_maximum_protocol_version) {
        versions.max = max;
    }
    match CipherSuites::read(cipher_suites) {
        Ok(suites) => versions.suites = suites,
        Err(name) => at.field("cipher_suites").fault(format!("{name} is not carried out")),
    }
    match KeyGroups::read(ecdh_curves) {
        Ok(groups) => versions.groups = groups,
        Err(name) => at.field("ecdh_curves").fault(format!("{name} is not carried out")),
    }
    if versions.min > versions.max {
        at.fault("has a minimum version above the maximum");
    }
    versions
}

fn validation_type(at: &At<'_>, asked: Option<&ValidationContextType>) -> Option<Asked> {
    match asked {
        None => Some(Asked::Unsaid),
        Some(ValidationContextType::ValidationContext(context)) => {
            validation(&at.field("validation_context"), context, None)
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            let at = &at.field("validation_context_sds_secret_config");
            let roots = secret_name(at, secret)?;
            validation(at, &CertificateValidationContext::default(), Some(roots))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let at = &at.field("combined_validation_context");
            fields!(at, combined => CombinedCertificateValidationContext {
                use { default_validation_context, validation_context_sds_secret_config }
                accept {}
                refuse {
                    validation_context_certificate_provider,
                    validation_context_certificate_provider_instance,
                }
            });
            let Some(secret) = validation_context_sds_secret_config else {
                at.field("validation_context_sds_secret_config").fault("is missing");
                return None;
            };
            let roots = secret_name(&at.field("validation_context_sds_secret_config"), secret)?;
            let context = default_validation_context.clone().unwrap_or_default();
            validation(&at.field("default_validation_context"), &context, Some(roots))
        }
        Some(_) => {
            at.fault("validates by a certificate provider, which is not supported");
            None
        }
    }
}

fn validation(
    at: &At<'_>,
    context: &CertificateValidationContext,
    from_sds: Option<SecretName>,
) -> Option<Asked> {
    fields!(at, context => CertificateValidationContext {
        use {
            trusted_ca, system_root_certs, verify_certificate_spki, verify_certificate_hash,
            match_typed_subject_alt_names, match_subject_alt_names, trust_chain_verification, crl,
            only_verify_leaf_cert_crl,
        }
        // Files are always watched; the list of CAs is a hint to the client.
        accept { watched_directory, suppress_client_ca_list }
        refuse {
            ca_certificate_provider_instance, require_signed_certificate_timestamp,
            allow_expired_certificate, custom_validator_config,
            max_verify_depth,
        }
    });
    let mut roots = from_sds;
    if trusted_ca.is_some() {
        let path = file_name(&at.field("trusted_ca"), trusted_ca.as_ref())?;
        if roots.replace(SecretName::new(&format!("file-root:{path}"))).is_some() {
            at.field("trusted_ca").fault("is given twice, here and as a secret");
        }
    }
    if system_root_certs.is_some()
        && roots.replace(SecretName::new(SecretName::SYSTEM_ROOTS)).is_some()
    {
        at.field("system_root_certs").fault("does not go with other roots");
    }
    let typed = match_typed_subject_alt_names.iter().enumerate();
    let mut sans: Vec<SanMatcher> = typed
        .filter_map(|(index, san)| {
            typed_san(&at.field("match_typed_subject_alt_names").nth(index), san)
        })
        .collect();
    for (index, matcher) in match_subject_alt_names.iter().enumerate() {
        let at = at.field("match_subject_alt_names");
        let matcher = messages::string_matcher(&at.nth(index), Some(matcher));
        sans.extend(matcher.map(|matcher| SanMatcher { kind: SanKind::Any, matcher }));
    }
    let crl = crl.as_ref().and_then(|source| {
        let path = file_name(&at.field("crl"), Some(source))?;
        Some(SecretName::new(&format!("file-crl:{path}")))
    });
    let hash = |hash: &String| hash.replace(':', "").to_ascii_lowercase().into();
    let asked = Validation {
        roots: roots.unwrap_or_else(|| SecretName::new("")),
        sans,
        certificate_hashes: verify_certificate_hash.iter().map(hash).collect(),
        spki_hashes: verify_certificate_spki.iter().map(|hash| hash.as_str().into()).collect(),
        crl,
        crl_leaf_only: *only_verify_leaf_cert_crl,
    };
    let names_something = !asked.sans.is_empty()
        || !asked.certificate_hashes.is_empty()
        || !asked.spki_hashes.is_empty()
        || asked.crl.is_some();
    match (asked.roots.as_str().is_empty(), *trust_chain_verification) {
        (true, 0 | 1) if !names_something => Some(Asked::Nothing),
        (true, _) => {
            at.fault("names no roots, so that names and hashes would be worth nothing");
            None
        }
        (false, 0) => Some(Asked::Checks(asked)),
        (false, _) => {
            at.field("trust_chain_verification").fault("must be VERIFY_TRUST_CHAIN with roots");
            None
        }
    }
}

fn typed_san(at: &At<'_>, san: &SubjectAltNameMatcher) -> Option<SanMatcher> {
    fields!(at, san => SubjectAltNameMatcher {
        use { san_type, matcher }
        accept {}
        refuse { oid }
    });
    let kind = match SanType::try_from(*san_type) {
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::IpAddress) => SanKind::Ip,
        _ => {
            at.field("san_type").unsupported();
            return None;
        }
    };
    let matcher = messages::string_matcher(&at.field("matcher"), matcher.as_ref())?;
    Some(SanMatcher { kind, matcher })
}
