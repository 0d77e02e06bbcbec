//! Transport sockets: the TLS that gateways terminate and clusters originate.
//!
//! Certificates and roots are named, never carried: the secrets' own server beside the proxy resolves
//! `default`, `ROOTCA`, `file-cert:…` and `file-root:…`.

use std::net::IpAddr;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::cluster::TransportSocketMatch,
            core::v3::{
                DataSource, ProxyProtocolConfig, TransportSocket, data_source,
                proxy_protocol_config, transport_socket,
            },
        },
        extensions::transport_sockets::{
            proxy_protocol::v3::ProxyProtocolUpstreamTransport,
            raw_buffer::v3::RawBuffer,
            tls::v3::{
                CertificateValidationContext, CommonTlsContext, SdsSecretConfig,
                SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
                common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
                subject_alt_name_matcher::SanType,
                tls_parameters::TlsProtocol,
            },
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::Struct,
};
use prost::Name;
use sluis_envoy::pack;

use super::wrap;
use crate::{ClientTls, ClusterInput, NameMatch, ProxyProtocol, TlsVersion};

/// The sockets of a cluster: one for all endpoints, or one for each kind of endpoint.
pub(crate) fn sockets(
    input: &ClusterInput,
) -> (Option<TransportSocket>, Vec<TransportSocketMatch>) {
    let wrapped = |inner: Option<TransportSocket>| match input.proxy_protocol {
        None => inner,
        Some(version) => Some(behind_header(version, inner.unwrap_or_else(raw))),
    };
    let tls = input.tls.as_ref().map(upstream);
    if !input.is_tls_by_endpoint || tls.is_none() {
        return (wrapped(tls), Vec::new());
    }
    let mesh = Struct { fields: [("tlsMode".to_owned(), wrap::text("istio"))].into() };
    let one = |name: &str, wanted, socket| TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(wanted),
        transport_socket: wrapped(socket),
    };
    let matches = vec![
        one("tlsMode-istio", mesh, tls),
        one("tlsMode-disabled", Struct::default(), Some(raw())),
    ];
    (None, matches)
}

/// Plain bytes.
fn raw() -> TransportSocket {
    named("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

/// A socket that begins with a PROXY protocol header.
fn behind_header(version: ProxyProtocol, inner: TransportSocket) -> TransportSocket {
    let version = match version {
        ProxyProtocol::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocol::V2 => proxy_protocol_config::Version::V2,
    };
    let config = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig {
            version: version.into(),
            ..ProxyProtocolConfig::default()
        }),
        transport_socket: Some(inner),
        ..ProxyProtocolUpstreamTransport::default()
    };
    named("envoy.transport_sockets.upstream_proxy_protocol", &config)
}

/// The socket of a cluster that originates TLS.
fn upstream(tls: &ClientTls) -> TransportSocket {
    let context = tls.roots.as_deref().map_or_else(
        // "Verify nothing" is said aloud, so that a forgotten context never means it.
        || ValidationContextType::ValidationContext(nothing()),
        |roots| verified(roots, tls),
    );
    socket(&UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
                tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
                cipher_suites: tls.ciphers.clone(),
                ecdh_curves: tls.curves.clone(),
                ..TlsParameters::default()
            }),
            tls_certificate_sds_secret_configs: tls
                .certificate
                .as_deref()
                .map(secret)
                .into_iter()
                .collect(),
            alpn_protocols: tls.alpn.clone(),
            validation_context_type: Some(context),
            ..CommonTlsContext::default()
        }),
        sni: tls.sni.clone(),
        ..UpstreamTlsContext::default()
    })
}

fn verified(roots: &str, tls: &ClientTls) -> ValidationContextType {
    let crl = tls.crl.clone().map(|path| DataSource {
        specifier: Some(data_source::Specifier::Filename(path)),
        ..DataSource::default()
    });
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: tls.names.iter().map(subject_alt_name).collect(),
            crl,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(roots)),
        ..CombinedCertificateValidationContext::default()
    })
}

pub(super) fn socket<M: Name>(context: &M) -> TransportSocket {
    named("envoy.transport_sockets.tls", context)
}

fn named<M: Name>(name: &str, context: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(context))),
    }
}

/// A secret by name: those with a scheme come from the control plane, the others from beside the proxy.
pub(super) fn secret(name: &str) -> SdsSecretConfig {
    let source = if name.contains("://") { wrap::ads_secrets() } else { wrap::sds() };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

fn nothing() -> CertificateValidationContext {
    CertificateValidationContext::default()
}

pub(super) fn subject_alt_name(name: &NameMatch) -> SubjectAltNameMatcher {
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

pub(super) fn version(version: TlsVersion) -> TlsProtocol {
    match version {
        TlsVersion::Auto => TlsProtocol::TlsAuto,
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    }
}
