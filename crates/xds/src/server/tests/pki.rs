//! A certificate authority for the tests.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use crate::{CONTROL_PLANE_NAME, ClientTlsSource, ServerTlsSource};

pub(super) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(super) struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Pair {
    pub(super) fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        (vec![self.certificate.der().clone()], key)
    }
}

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        // OpenSSL's family takes a leaf whose issuer has the leaf's own name for self-signed.
        params.distinguished_name.push(DnType::CommonName, "root of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { ca: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(super) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    pub(super) fn workload(&self, id: &str) -> Pair {
        self.issue(SanType::URI(id.try_into().unwrap()))
    }

    pub(super) fn server_tls(&self) -> ServerTlsSource {
        let (chain, key) =
            self.issue(SanType::DnsName(CONTROL_PLANE_NAME.try_into().unwrap())).rustls();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.roots()),
            Arc::clone(&provider),
        )
        .allow_unauthenticated()
        .build()
        .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        Arc::new(move || Arc::clone(&config))
    }

    /// A client with that identity, or with none.
    pub(super) fn client_tls(&self, id: Option<&str>) -> ClientTlsSource {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match id {
            None => builder.with_no_client_auth(),
            Some(id) => {
                let (chain, key) = self.workload(id).rustls();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let config = Arc::new(config);
        Arc::new(move || Some(Arc::clone(&config)))
    }

    fn issue(&self, name: SanType) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.ca).unwrap(), key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        roots
    }
}
