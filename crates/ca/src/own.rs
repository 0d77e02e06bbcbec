//! An authority of our own in a directory: a root, and the intermediate under it that signs.
//!
//! In:    a directory, which may hold all, some or none of the files.
//! Out:   the four texts of a [`CaFiles`]; what was missing has been made.
//! Never: replaces what is there. The root's key is needed only to make an intermediate: it may be
//!        kept elsewhere in between.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair as SigningKey, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use sluis_nouns::TrustDomain;
use sluis_tls::{Clock, KeyPair, Leaf};

use crate::{
    CaFiles, OpenError,
    files::{self, Access},
};

pub(crate) const ROOT_KEY: &str = "root-key.pem";
pub(crate) const ROOT_CERT: &str = "root-cert.pem";
pub(crate) const CA_KEY: &str = "ca-key.pem";
pub(crate) const CA_CERT: &str = "ca-cert.pem";
pub(crate) const CERT_CHAIN: &str = "cert-chain.pem";

/// As Istio's self-signed root.
pub(crate) const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Long enough to keep the root's key away for months, short enough to be replaced as a matter of
/// course.
pub(crate) const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// An intermediate with less than this left is replaced, if the root's key is there.
const INTERMEDIATE_LEFT_MIN: Duration = Duration::from_secs(36 * 24 * 3600);
/// How far another machine's clock may be behind, as Istio allows.
pub(crate) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(120);

/// Opens the authority of a directory and makes what it lacks, or what has become too old to sign
/// for `need`.
pub(crate) fn open(
    dir: &Path,
    domain: &TrustDomain,
    clock: &Clock,
    need: Duration,
) -> Result<CaFiles, OpenError> {
    files::make_dir(dir)?;
    let (root_key, root_cert) = root(dir, domain, clock)?;
    let (key_path, cert_path) = (dir.join(CA_KEY), dir.join(CA_CERT));
    let key = files::read(&key_path, Access::Private)?;
    let cert = files::read(&cert_path, Access::Public)?;
    let now = clock.now();
    if let (Some(key), Some(cert)) = (&key, &cert) {
        let left = end_of(cert).and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
        let root_left =
            end_of(&root_cert).and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
        let is_young = left >= need.max(INTERMEDIATE_LEFT_MIN) || left >= root_left;
        if is_young || root_key.is_none() {
            if !is_young {
                tracing::warn!(dir = %dir.display(), ?left,
                    "the intermediate runs out, and the root's key is not there to make another");
            }
            return Ok(texts(cert.clone(), key.clone(), root_cert));
        }
    }
    let Some(root_key) = root_key else {
        let (cert, key) = (dir.join(ROOT_CERT), dir.join(ROOT_KEY));
        return Err(OpenError::NoKey { cert, key });
    };
    let issuer = Issuer::from_ca_cert_pem(&root_cert, root_key)?;
    let key = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = authority_params(&key, domain, "intermediate");
    let root_end = end_of(&root_cert).unwrap_or(now);
    params.not_before = (now - CLOCK_SKEW_MAX).into();
    params.not_after = (now + INTERMEDIATE_LIFETIME).min(root_end).into();
    // It signs leaves, and no further authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let cert = params.signed_by(&key, &issuer)?.pem();
    // The certificate goes first and the key completes it: a pair that was cut off is made anew.
    let _ = std::fs::remove_file(&key_path);
    files::write(&cert_path, &cert, Access::Public)?;
    files::write(&dir.join(CERT_CHAIN), &cert, Access::Public)?;
    files::write(&key_path, &key.serialize_pem(), Access::Private)?;
    Ok(texts(cert, key.serialize_pem(), root_cert))
}

/// Whether the root's key is in the directory.
pub(crate) fn has_root_key(dir: &Path) -> bool {
    dir.join(ROOT_KEY).exists()
}

fn texts(cert: String, key: String, roots: String) -> CaFiles {
    CaFiles { chain: cert.clone(), cert, key, roots }
}

/// The root's key, unless it is kept elsewhere, and its certificate; made at the first start.
fn root(
    dir: &Path,
    domain: &TrustDomain,
    clock: &Clock,
) -> Result<(Option<SigningKey>, String), OpenError> {
    let (key_path, cert_path) = (dir.join(ROOT_KEY), dir.join(ROOT_CERT));
    let key_pem = files::read(&key_path, Access::Private)?;
    let cert_pem = files::read(&cert_path, Access::Public)?;
    let (key, cert_pem) = match (key_pem, cert_pem) {
        (Some(key_pem), Some(cert_pem)) => {
            KeyPair::from_pem(cert_pem.as_bytes(), key_pem.as_bytes())
                .map_err(|source| OpenError::Root { path: cert_path.clone(), source })?;
            (Some(SigningKey::from_pem(&key_pem)?), cert_pem)
        }
        // A first start that was cut off between the two files.
        (Some(key_pem), None) => {
            let key = SigningKey::from_pem(&key_pem)?;
            let cert_pem = make_root(&key, domain, clock)?;
            files::write(&cert_path, &cert_pem, Access::Public)?;
            (Some(key), cert_pem)
        }
        (None, Some(cert_pem)) => (None, cert_pem),
        (None, None) => {
            let key = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let cert_pem = make_root(&key, domain, clock)?;
            files::write(&key_path, &key.serialize_pem(), Access::Private)?;
            files::write(&cert_path, &cert_pem, Access::Public)?;
            (Some(key), cert_pem)
        }
    };
    Ok((key, cert_pem))
}

/// A self-signed root for a key.
fn make_root(key: &SigningKey, domain: &TrustDomain, clock: &Clock) -> Result<String, OpenError> {
    let now = clock.now();
    let mut params = authority_params(key, domain, "root");
    params.not_before = (now - CLOCK_SKEW_MAX).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params.self_signed(key)?.pem())
}

fn authority_params(key: &SigningKey, domain: &TrustDomain, what: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    // Two authorities must not have one name: a peer of the other would look like a forgery.
    let digest = digest(&SHA256, key.public_key_raw());
    let mark: String = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Sluis mesh {what} {mark}"));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn end_of(pem: &str) -> Option<SystemTime> {
    let certs = crate::signer::certificates("ca-cert.pem", pem).ok()?;
    Leaf::parse(certs.first()?).ok().map(|leaf| leaf.not_after)
}
