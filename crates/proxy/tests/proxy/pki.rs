//! A certificate authority for tests: PEM files in a directory.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An authority whose certificates are written as files.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) dir: PathBuf,
}

impl Pki {
    pub(crate) fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { issuer, dir: dir.to_owned() };
        std::fs::write(pki.roots(), pki.issuer.pem()).unwrap();
        pki
    }

    /// The file of the authority's own certificate.
    pub(crate) fn roots(&self) -> PathBuf {
        self.dir.join("roots.pem")
    }

    /// Issues a certificate for a DNS name or a SPIFFE identity; returns its two files.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![if name.starts_with("spiffe://") {
            SanType::URI(name.try_into().unwrap())
        } else {
            SanType::DnsName(name.try_into().unwrap())
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let stem = name.replace(['/', ':'], "_");
        let files = (self.dir.join(format!("{stem}.crt")), self.dir.join(format!("{stem}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// The SDS name of a certificate.
    pub(crate) fn secret(&self, name: &str) -> String {
        let (certificate, key) = self.issue(name);
        format!("file-cert:{}~{}", certificate.display(), key.display())
    }

    /// The SDS name of the roots.
    pub(crate) fn roots_secret(&self) -> String {
        format!("file-root:{}", self.roots().display())
    }
}
