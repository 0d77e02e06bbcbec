//! The TLS that listeners terminate.

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, TransportSocket, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsParameters,
        certificate_validation_context::TrustChainVerification,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    },
};

use super::{
    tls::{secret, socket, subject_alt_name, version},
    wrap,
};
use crate::ServerTls;

/// The socket of a chain that terminates TLS.
pub(crate) fn downstream(tls: &ServerTls) -> TransportSocket {
    let params = TlsParameters {
        tls_minimum_protocol_version: version(tls.version_min).into(),
        tls_maximum_protocol_version: version(tls.version_max).into(),
        cipher_suites: tls.ciphers.clone(),
        ecdh_curves: tls.curves.clone(),
        ..TlsParameters::default()
    };
    let certificates = tls.certificates.iter().map(|name| secret(name));
    socket(&DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: (params != TlsParameters::default()).then_some(params),
            tls_certificate_sds_secret_configs: certificates.collect(),
            alpn_protocols: tls.alpn.clone(),
            validation_context_type: tls.client_roots.as_deref().map(|roots| verified(tls, roots)),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: wrap::boolean(tls.is_client_required),
        ..DownstreamTlsContext::default()
    })
}

fn verified(tls: &ServerTls, roots: &str) -> ValidationContextType {
    let trust = if tls.is_client_untrusted {
        TrustChainVerification::AcceptUntrusted
    } else {
        TrustChainVerification::VerifyTrustChain
    };
    let file = |path: &String| DataSource {
        specifier: Some(Specifier::Filename(path.clone())),
        ..DataSource::default()
    };
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: tls.client_names.iter().map(subject_alt_name).collect(),
            verify_certificate_spki: tls.client_keys.clone(),
            verify_certificate_hash: tls.client_hashes.clone(),
            crl: tls.crl.as_ref().map(file),
            trust_chain_verification: trust.into(),
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(roots)),
        ..CombinedCertificateValidationContext::default()
    })
}
