//! The messages of Istio's certificate service, `istio.v1.auth`.

use envoy_types::pb::google::protobuf::Struct;

/// A request for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// The certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate should be valid, seconds; 0 leaves it to the authority.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Wishes beyond that: `CertSigner`, `ImpersonatedIdentity`.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The answer: certificates as PEM, one in each text, the leaf first and the root last.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateResponse {
    /// The chain.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
