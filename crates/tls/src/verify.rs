//! Judges a peer's certificate in a handshake, by the roots and names that are current then.
//!
//! In:    the presented chain, the slots of roots, the [`Validation`] of the resource.
//! Out:   yes, or an error that says which rule was not met.
//! Never: accepts because something is missing. No roots, no handshake.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, DnsName, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sluis_rules::{SanKind, SanMatcher, StringMatcher, Validation};

use crate::{Leaf, LeafError, Roots, SecretStore, Slot, StoreError, provider};

/// Why a peer was refused although its chain is good, or why it could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The certificate breaks SPIFFE's rules or cannot be read.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// None of its names is one that is accepted.
    #[error("the certificate is for {}, which is not accepted here", .found.join(", "))]
    Name {
        /// The names that it has.
        found: Vec<String>,
    },
    /// It is not one of the pinned certificates.
    #[error("the certificate is not one of those that are pinned")]
    Pin,
    /// It was revoked, or no list says that it was not.
    #[error("the certificate is revoked, or that it is not cannot be told: {0}")]
    Revocation(webpki::Error),
    /// Its name must be the server name that was asked for, and none was.
    #[error("the certificate cannot be checked against a server name: none was sent")]
    NoServerName,
    /// A secret that this handshake needs has no value.
    #[error("secret {0} is not available")]
    Missing(String),
}

/// What a peer's certificate must meet.
#[derive(Debug)]
struct Judge {
    roots: Arc<Slot>,
    crl: Option<Arc<Slot>>,
    rules: Validation,
}

/// Verifies servers, on the client's side.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    judge: Option<Judge>,
    check_server_name: bool,
    own_certificate: Option<Arc<Slot>>,
}

/// Verifies clients, on the server's side.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    judge: Judge,
    mandatory: bool,
}

impl Judge {
    fn new(rules: &Validation, store: &SecretStore) -> Result<Self, StoreError> {
        let crl = rules.crl.as_ref().map(|name| store.slot(name.as_str())).transpose()?;
        Ok(Self { roots: store.slot(rules.roots.as_str())?, crl, rules: rules.clone() })
    }

    /// Asks the lists of revoked certificates, if there are any. As in Envoy each authority on the
    /// way needs a list, unless only the leaf is asked about.
    fn check_revoked(
        &self,
        roots: &Roots,
        (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
        usage: webpki::KeyUsage,
    ) -> Result<(), Error> {
        let named = match &self.crl {
            Some(slot) => Some(
                slot.crls().ok_or_else(|| refuse(PeerError::Missing(slot.name().to_owned())))?,
            ),
            None => None,
        };
        let of_roots = roots.crls().map(|crls| &crls.lists);
        let all = of_roots.into_iter().chain(named.as_ref().map(|crls| &crls.lists)).flatten();
        let lists: Vec<&webpki::CertRevocationList<'_>> = all.collect();
        // No list at all, and nobody asked for one.
        let Ok(builder) = webpki::RevocationOptionsBuilder::new(&lists) else { return Ok(()) };
        let depth = match self.rules.crl_leaf_only {
            true => webpki::RevocationCheckDepth::EndEntity,
            false => webpki::RevocationCheckDepth::Chain,
        };
        let options = builder
            .with_depth(depth)
            .with_status_policy(webpki::UnknownStatusPolicy::Deny)
            .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
            .build();
        let algorithms = provider().signature_verification_algorithms.all;
        let anchors = &roots.store().roots;
        webpki::EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let revocation = Some(options);
                leaf.verify_for_usage(
                    algorithms,
                    anchors,
                    intermediates,
                    now,
                    usage,
                    revocation,
                    None,
                )
                .map(drop)
            })
            .map_err(|error| refuse(PeerError::Revocation(error)))
    }

    fn roots(&self) -> Result<Arc<Roots>, Error> {
        self.roots.roots().ok_or_else(|| refuse(PeerError::Missing(self.roots.name().to_owned())))
    }

    /// The rules beyond the chain of trust.
    fn judge(&self, der: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> Result<(), Error> {
        let leaf = Leaf::parse(der).map_err(|error| refuse(error.into()))?;
        leaf.identity().map_err(|error| refuse(error.into()))?;
        let rules = &self.rules;
        if !rules.sans.is_empty() && !rules.sans.iter().any(|san| fits(san, &leaf, parsed)) {
            let found = [&leaf.uris[..], &leaf.dns_names, &leaf.emails, &leaf.ips].concat();
            return Err(refuse(PeerError::Name { found }));
        }
        // Envoy accepts a certificate that either list holds.
        let pinned = !rules.certificate_hashes.is_empty() || !rules.spki_hashes.is_empty();
        if pinned && !self.is_pinned(der, parsed) {
            return Err(refuse(PeerError::Pin));
        }
        Ok(())
    }

    fn is_pinned(&self, der: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> bool {
        let hex: String =
            digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let spki = base64(digest(&SHA256, &parsed.subject_public_key_info()).as_ref());
        self.rules.certificate_hashes.iter().any(|pin| **pin == *hex)
            || self.rules.spki_hashes.iter().any(|pin| **pin == *spki)
    }
}

impl ServerVerifier {
    pub(crate) fn new(
        validation: Option<&Validation>,
        check_server_name: bool,
        own_certificate: Option<Arc<Slot>>,
        store: &SecretStore,
    ) -> Result<Self, StoreError> {
        let judge = validation.map(|rules| Judge::new(rules, store)).transpose()?;
        Ok(Self { judge, check_server_name, own_certificate })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // rustls would go on without a client certificate; a resource that names one means it.
        if let Some(slot) = &self.own_certificate
            && slot.key_pair().is_none()
        {
            return Err(refuse(PeerError::Missing(slot.name().to_owned())));
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if let Some(judge) = &self.judge {
            let roots = judge.roots()?;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots.store(),
                intermediates,
                now,
                provider().signature_verification_algorithms.all,
            )?;
            let chain = (end_entity, intermediates);
            judge.check_revoked(&roots, chain, now, webpki::KeyUsage::server_auth())?;
            judge.judge(end_entity, &parsed)?;
        }
        if self.check_server_name {
            if *server_name == no_server_name() {
                return Err(refuse(PeerError::NoServerName));
            }
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientVerifier {
    pub(crate) fn new(
        validation: &Validation,
        mandatory: bool,
        store: &SecretStore,
    ) -> Result<Self, StoreError> {
        Ok(Self { judge: Judge::new(validation, store)?, mandatory })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Empty: the roots may change under a configuration, and a hint is optional (RFC 8446 §4.2.4).
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let roots = self.judge.roots()?;
        let verified =
            roots.client_verifier().verify_client_cert(end_entity, intermediates, now)?;
        let chain = (end_entity, intermediates);
        self.judge.check_revoked(&roots, chain, now, webpki::KeyUsage::client_auth())?;
        self.judge.judge(end_entity, &ParsedCertificate::try_from(end_entity)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What rustls is given when no SNI is to be sent: it sends none for an address.
pub(crate) fn no_server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
}

/// Whether the certificate's DNS names cover a host; a wildcard covers one label (RFC 6125 §6.4.3).
pub(crate) fn covers(parsed: &ParsedCertificate<'_>, host: &str) -> bool {
    DnsName::try_from(host)
        .is_ok_and(|name| verify_server_name(parsed, &ServerName::DnsName(name)).is_ok())
}

fn fits(san: &SanMatcher, leaf: &Leaf, parsed: &ParsedCertificate<'_>) -> bool {
    let any = |names: &[String]| names.iter().any(|name| san.matcher.matches(name.as_bytes()));
    let dns = || match &san.matcher {
        StringMatcher::Exact(text) => any(&leaf.dns_names) || covers(parsed, text.as_str()),
        _ => any(&leaf.dns_names),
    };
    match san.kind {
        SanKind::Dns => dns(),
        SanKind::Uri => any(&leaf.uris),
        SanKind::Email => any(&leaf.emails),
        SanKind::Ip => any(&leaf.ips),
        SanKind::Any => dns() || any(&leaf.uris) || any(&leaf.emails) || any(&leaf.ips),
    }
}

fn refuse(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Standard base64 with padding (RFC 4648 §4), as Envoy writes SPKI pins.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0_u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for index in 0..4 {
            let six = (word >> (18 - 6 * index)) as usize & 63;
            out.push(if index <= chunk.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    out
}
