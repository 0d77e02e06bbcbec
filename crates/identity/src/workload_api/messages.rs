//! The messages of SPIFFE's Workload API (`workload.proto`), as far as X.509 goes.

use std::collections::HashMap;

/// A request without content.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

/// The workload's X.509-SVIDs.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct X509Svids {
    /// The first is the default one.
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<X509Svid>,
    /// DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) crl: Vec<Vec<u8>>,
    /// Roots of other trust domains, by their SPIFFE id.
    #[prost(map = "string, bytes", tag = "3")]
    pub(super) federated_bundles: HashMap<String, Vec<u8>>,
}

/// One X.509-SVID with its key.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    /// The chain, DER one after another, leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) x509_svid: Vec<u8>,
    /// PKCS#8 DER. A secret.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x509_svid_key: Vec<u8>,
    /// The roots of its trust domain, DER one after another.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) hint: String,
}

/// Roots by trust domain.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct X509Bundles {
    /// DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) crl: Vec<Vec<u8>>,
    /// By SPIFFE id of the trust domain: DER one after another.
    #[prost(map = "string, bytes", tag = "2")]
    pub(super) bundles: HashMap<String, Vec<u8>>,
}

impl std::fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}
