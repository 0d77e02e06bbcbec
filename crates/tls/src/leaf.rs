//! Reads from a certificate what identity rules need.
//!
//! In:    one DER certificate.
//! Out:   its serial, validity and subject alternative names; the peer's identity.
//! Never: verifies a signature. Only chains that a handshake has verified say who somebody is.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use sluis_nouns::WorkloadId;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _, time::ASN1Time,
    x509::X509Name,
};

use crate::verify::base64;

/// The scheme of the identities that SPIFFE rules apply to.
const SPIFFE_SCHEME: &str = "spiffe://";

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial: String,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// Mail addresses, in the certificate's order.
    pub emails: Vec<String>,
    /// IP addresses, in text form.
    pub ips: Vec<String>,
    /// Whether it may sign certificates or revocation lists.
    pub may_sign: bool,
    /// The subject as RFC 2253 writes it.
    pub subject: String,
}

/// Who is at the other end, as its verified certificate says.
///
/// Also the extension type under which servers hand the peer of a connection to their services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The workload, when the certificate is an SPIFFE one of the mesh's form.
    pub id: Option<WorkloadId>,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// The subject as RFC 2253 writes it; empty when the certificate has none.
    pub subject: String,
    /// The chain that was presented, leaf first.
    pub chain: Arc<[CertificateDer<'static>]>,
}

impl PeerIdentity {
    /// The leaf's SHA-256, in lower-case hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = self.chain.first().map(|leaf| digest(&SHA256, leaf));
        let bytes = digest.as_ref().map(AsRef::as_ref).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The leaf as URL-encoded PEM.
    #[must_use]
    pub fn pem_of_leaf(&self) -> String {
        self.chain.first().map(|leaf| url_encoded_pem(leaf)).unwrap_or_default()
    }

    /// All certificates as URL-encoded PEM.
    #[must_use]
    pub fn pem_of_chain(&self) -> String {
        self.chain.iter().map(|one| url_encoded_pem(one)).collect()
    }
}

/// Why a certificate does not say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    Absent,
    /// The bytes are not an X.509 certificate.
    #[error("the certificate cannot be parsed: {0}")]
    Malformed(String),
    /// X509-SVID §2: exactly one URI name.
    #[error("an SPIFFE certificate has exactly one URI name, this one has {0}")]
    UriCount(usize),
    /// A name holds a space or a control character: some readers would see another name.
    #[error("a name of the certificate holds a space or a control character")]
    NameCharacter,
    /// X509-SVID §4: a leaf is no authority and signs nothing.
    #[error("an SPIFFE leaf certificate must not be able to sign certificates")]
    MaySign,
}

impl Leaf {
    /// Reads one certificate.
    ///
    /// # Errors
    ///
    /// [`LeafError::Malformed`].
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, LeafError> {
        let malformed = |error: &dyn std::fmt::Display| LeafError::Malformed(error.to_string());
        let (_, cert) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        let names = cert.subject_alternative_name().map_err(|error| malformed(&error))?;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        let (mut emails, mut ips) = (Vec::new(), Vec::new());
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => dns_names.push((*dns).to_owned()),
                GeneralName::RFC822Name(mail) => emails.push((*mail).to_owned()),
                GeneralName::IPAddress(bytes) => ips.extend(ip_text(bytes)),
                _ => {}
            }
        }
        let usage = cert.key_usage().map_err(|error| malformed(&error))?;
        let signs = usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign());
        Ok(Self {
            serial: cert.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: system_time(cert.validity().not_before),
            not_after: system_time(cert.validity().not_after),
            uris,
            dns_names,
            emails,
            ips,
            may_sign: cert.is_ca() || signs,
            subject: name_text(cert.subject()),
        })
    }

    /// Who the holder is, by the rules of SPIFFE's X509-SVID when the certificate claims to be one.
    ///
    /// # Errors
    ///
    /// [`LeafError::NameCharacter`], [`LeafError::UriCount`] and [`LeafError::MaySign`].
    pub fn identity(&self) -> Result<PeerIdentity, LeafError> {
        let mut names = self.uris.iter().chain(&self.dns_names).chain(&self.emails);
        if names.any(|name| name.bytes().any(|byte| byte <= b' ' || byte == 0x7f)) {
            return Err(LeafError::NameCharacter);
        }
        if self.uris.iter().any(|uri| uri.starts_with(SPIFFE_SCHEME)) {
            if self.uris.len() != 1 {
                return Err(LeafError::UriCount(self.uris.len()));
            }
            if self.may_sign {
                return Err(LeafError::MaySign);
            }
        }
        Ok(PeerIdentity {
            id: self.uris.first().and_then(|uri| uri.parse().ok()),
            uris: self.uris.clone(),
            dns_names: self.dns_names.clone(),
            subject: self.subject.clone(),
            chain: Arc::default(),
        })
    }
}

/// Who is at the other end of a handshake, by the chain that it presented and that was verified.
///
/// # Errors
///
/// As [`Leaf::parse`] and [`Leaf::identity`]; [`LeafError::Absent`] for an empty chain.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, LeafError> {
    let identity = Leaf::parse(chain.first().ok_or(LeafError::Absent)?)?.identity()?;
    let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
    Ok(PeerIdentity { chain, ..identity })
}

/// Names of attributes that RFC 2253 and OpenSSL write short.
const ATTRIBUTES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// RFC 2253 §2: the last name first, joined by commas, special characters escaped.
pub(crate) fn name_text(name: &X509Name<'_>) -> String {
    let names: Vec<String> = name
        .iter_rdn()
        .map(|names| {
            let names = names.iter().map(|attribute| {
                let id = attribute.attr_type().to_id_string();
                let known = ATTRIBUTES.iter().find(|(known, _)| *known == id);
                let value = attribute.as_str().map_or_else(
                    |_| attribute.as_slice().iter().map(|byte| format!("\\{byte:02X}")).collect(),
                    escaped,
                );
                format!("{}={value}", known.map_or(id.as_str(), |(_, short)| short))
            });
            names.collect::<Vec<_>>().join("+")
        })
        .collect();
    names.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// RFC 2253 §2.4.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_edge = (at == 0 && matches!(byte, b' ' | b'#')) || (at == last && byte == b' ');
        match byte {
            0x20..=0x7e if is_edge || b",+\"\\<>;".contains(&byte) => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

/// A certificate as PEM (RFC 7468), with what a URL cannot hold escaped.
fn url_encoded_pem(der: &[u8]) -> String {
    let body = base64(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    let mut out = String::with_capacity(pem.len() + 64);
    for c in pem.chars() {
        match c {
            '\n' => out.push_str("%0A"),
            ' ' => out.push_str("%20"),
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            other => out.push(other),
        }
    }
    out
}

/// Four or sixteen bytes; anything else is no address.
fn ip_text(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).to_string())
}

/// Certificates before 1970 do not exist here; they read as expired at the epoch.
fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
