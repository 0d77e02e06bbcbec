//! A small authority for tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
};

/// The time of day in these tests.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root_pem: String,
}

/// What a leaf should be.
#[derive(Clone, Default)]
pub(crate) struct Leaf {
    pub(crate) dns: &'static [&'static str],
    pub(crate) uris: &'static [&'static str],
    pub(crate) is_ca: bool,
}

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

impl Pki {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root_pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), root_pem }
    }

    /// Chain and key, PEM. Valid for an hour around [`NOW`].
    pub(crate) fn pems(&self, leaf: &Leaf) -> (String, String) {
        let mut params = CertificateParams::default();
        params.not_before = (now() - Duration::from_secs(1_800)).into();
        params.not_after = (now() + Duration::from_secs(1_800)).into();
        params.distinguished_name = DistinguishedName::new();
        let dns = leaf.dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        let uris = leaf.uris.iter().map(|name| SanType::URI((*name).try_into().unwrap()));
        params.subject_alt_names = dns.chain(uris).collect();
        if leaf.is_ca {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// A certificate that `change` made odd.
    pub(crate) fn odd(&self, change: impl FnOnce(&mut CertificateParams)) -> crate::KeyPair {
        let mut params = CertificateParams::default();
        params.not_before = (now() - Duration::from_secs(1_800)).into();
        params.not_after = (now() + Duration::from_secs(1_800)).into();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        crate::KeyPair::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    /// A list of revoked certificates, with the first of this chain on it if there is one.
    pub(crate) fn crl(&self, revoked: Option<&str>) -> String {
        let serial = |chain: &str| {
            let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
            let leaf = pem.parse_x509().unwrap();
            RevokedCertParams {
                serial_number: leaf.raw_serial().to_vec().into(),
                revocation_time: (now() - Duration::from_secs(60)).into(),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update: (now() - Duration::from_secs(60)).into(),
            next_update: (now() + Duration::from_secs(60)).into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.map(serial).into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub(crate) fn pair(&self, leaf: &Leaf) -> crate::KeyPair {
        let (chain, key) = self.pems(leaf);
        crate::KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    pub(crate) fn roots(&self) -> crate::Roots {
        crate::Roots::from_pem(self.root_pem.as_bytes()).unwrap()
    }
}
