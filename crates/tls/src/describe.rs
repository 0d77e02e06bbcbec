//! Everything that a script may ask of a certificate. Slower than [`crate::Leaf`], and rarely needed.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::leaf::{Leaf, LeafError, name_text};

/// What a certificate says of itself, at length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial: String,
    /// The issuer as RFC 2253 writes it.
    pub issuer: String,
    /// The subject as RFC 2253 writes it.
    pub subject: String,
    /// The subject's first common name; empty when it has none.
    pub common_name: String,
    /// The subject's organizations, in order.
    pub organizations: Vec<String>,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// The extensions that it has, by their numbers (`2.5.29.17`).
    pub oids: Vec<String>,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
}

/// Reads one certificate.
///
/// # Errors
///
/// [`LeafError::Malformed`].
pub fn describe(der: &CertificateDer<'_>) -> Result<Description, LeafError> {
    let leaf = Leaf::parse(der)?;
    let (_, cert) =
        X509Certificate::from_der(der).map_err(|error| LeafError::Malformed(error.to_string()))?;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().unwrap_or_default().to_owned()
    };
    Ok(Description {
        serial: leaf.serial,
        issuer: name_text(cert.issuer()),
        subject: leaf.subject,
        common_name: cert.subject().iter_common_name().next().map(text).unwrap_or_default(),
        organizations: cert.subject().iter_organization().map(text).collect(),
        uris: leaf.uris,
        dns_names: leaf.dns_names,
        oids: cert.extensions().iter().map(|one| one.oid.to_id_string()).collect(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    })
}
