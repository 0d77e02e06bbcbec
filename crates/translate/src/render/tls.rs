//! Transport sockets: the TLS that gateways terminate and clusters originate.
//!
//! Certificates and roots are named, never carried: the secrets' own server beside the proxy resolves
//! `default`, `ROOTCA`, `file-cert:…` and `file-root:…`.

use std::net::IpAddr;

use envoy_types::pb::envoy::{
    config::core::v3::{TransportSocket, transport_socket},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        subject_alt_name_matcher::SanType,
        tls_parameters::TlsProtocol,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};
use prost::Name;
use sluis_envoy::pack;

use super::wrap;
use crate::{ClientTls, NameMatch, ServerTls, TlsVersion};

/// The socket of a chain that terminates TLS.
pub(crate) fn downstream(tls: &ServerTls) -> TransportSocket {
    let params = TlsParameters {
        tls_minimum_protocol_version: version(tls.version_min).into(),
        tls_maximum_protocol_version: version(tls.version_max).into(),
        cipher_suites: tls.ciphers.clone(),
        ..TlsParameters::default()
    };
    socket(&DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: (params != TlsParameters::default()).then_some(params),
            tls_certificate_sds_secret_configs: vec![secret(&tls.certificate)],
            alpn_protocols: tls.alpn.clone(),
            validation_context_type: validation(tls.client_roots.as_deref(), &tls.client_names),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: wrap::boolean(tls.is_client_required),
        ..DownstreamTlsContext::default()
    })
}

/// The socket of a cluster that originates TLS.
pub(crate) fn upstream(tls: &ClientTls) -> TransportSocket {
    socket(&UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: tls
                .certificate
                .as_deref()
                .map(secret)
                .into_iter()
                .collect(),
            alpn_protocols: tls.alpn.clone(),
            // "Verify nothing" is said aloud, so that a forgotten context never means it.
            validation_context_type: validation(tls.roots.as_deref(), &tls.names)
                .or_else(|| Some(ValidationContextType::ValidationContext(nothing()))),
            ..CommonTlsContext::default()
        }),
        sni: tls.sni.clone(),
        ..UpstreamTlsContext::default()
    })
}

fn socket<M: Name>(context: &M) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(context))),
    }
}

fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(wrap::sds()) }
}

fn validation(roots: Option<&str>, names: &[NameMatch]) -> Option<ValidationContextType> {
    Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: names.iter().map(subject_alt_name).collect(),
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(roots?)),
        ..CombinedCertificateValidationContext::default()
    }))
}

fn nothing() -> CertificateValidationContext {
    CertificateValidationContext::default()
}

fn subject_alt_name(name: &NameMatch) -> SubjectAltNameMatcher {
    let (kind, pattern) = match name {
        NameMatch::UriPrefix(prefix) => (SanType::Uri, MatchPattern::Prefix(prefix.clone())),
        NameMatch::Exact(text) => {
            let kind = if text.contains("://") {
                SanType::Uri
            } else if text.parse::<IpAddr>().is_ok() {
                SanType::IpAddress
            } else {
                SanType::Dns
            };
            (kind, MatchPattern::Exact(text.clone()))
        }
    };
    SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }),
        ..SubjectAltNameMatcher::default()
    }
}

fn version(version: TlsVersion) -> TlsProtocol {
    match version {
        TlsVersion::Auto => TlsProtocol::TlsAuto,
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    }
}
