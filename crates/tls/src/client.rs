//! The client's side of TLS: settings in, handshakes out.
//!
//! In:    [`UpstreamTls`] and the store whose secrets it names.
//! Out:   [`ClientTls`], which connects with the secrets that are current then.
//! Never: trusts a server because something is missing; shows no certificate when one is named.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    pki_types::ServerName,
    sign::CertifiedKey,
};
use sluis_rules::{SecretName, TlsVersions, UpstreamTls, Validation};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    SecretStore, SettingsError, Slot, provider_of,
    server::versions,
    verify::{ServerVerifier, no_server_name},
};

/// A TLS client's configuration. Cheap to clone; usable on every thread.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    sni: Option<Arc<str>>,
}

impl ClientTls {
    /// Makes a configuration from a resource's settings.
    ///
    /// Reads files at first use of their names: not for data threads.
    ///
    /// # Errors
    ///
    /// [`SettingsError`]. That a secret has no value yet is no error: handshakes fail until then.
    pub fn new(settings: &UpstreamTls, store: &SecretStore) -> Result<Self, SettingsError> {
        let own =
            settings.certificate.as_ref().map(|name| store.slot(name.as_str())).transpose()?;
        let verifier = ServerVerifier::new(
            settings.validation.as_ref(),
            settings.auto_sni_san_validation,
            own.clone(),
            store,
        )?;
        let builder = ClientConfig::builder_with_details(
            provider_of(settings.versions.suites, settings.versions.groups),
            Arc::new(store.clock().clone()),
        )
        .with_protocol_versions(versions(settings.versions))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match own {
            Some(slot) => builder.with_client_cert_resolver(Arc::new(OwnCertificate(slot))),
            None => builder.with_no_client_auth(),
        };
        // A resumed session would be trusted by the roots of its first handshake. Connections are
        // pooled, so that handshakes are rare.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config), sni: settings.sni.clone() })
    }

    /// A client of a gRPC server of the mesh that must have this DNS name.
    ///
    /// Secrets are named as in [`SecretStore::slot`]: `certificate` is the one to show, if any.
    ///
    /// # Errors
    ///
    /// As [`ClientTls::new`].
    pub fn grpc(
        certificate: Option<&str>,
        roots: &str,
        server_name: &str,
        store: &SecretStore,
    ) -> Result<Self, SettingsError> {
        let validation = Validation {
            roots: SecretName::new(roots),
            sans: Vec::new(),
            certificate_hashes: Vec::new(),
            spki_hashes: Vec::new(),
            crl: None,
            crl_leaf_only: false,
        };
        let settings = UpstreamTls {
            certificate: certificate.map(SecretName::new),
            validation: Some(validation),
            sni: Some(server_name.into()),
            auto_host_sni: false,
            auto_sni_san_validation: true,
            alpn: vec!["h2".into()],
            versions: TlsVersions::default(),
        };
        Self::new(&settings, store)
    }

    /// The same, offering these protocols: for a caller who knows them only when it connects.
    #[must_use]
    pub fn offering(&self, protocols: &[impl AsRef<str>]) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        let name = |name: &_| AsRef::<str>::as_ref(name).as_bytes().to_vec();
        config.alpn_protocols = protocols.iter().map(name).collect();
        Self { config: Arc::new(config), sni: self.sni.clone() }
    }

    /// The library's configuration, for a client that drives the handshake itself.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Takes a connection through the handshake. Bound the time outside.
    ///
    /// `sni` is the name that the caller derived (`auto_sni`, `auto_host_sni`); without one the
    /// settings' own is sent, or none.
    ///
    /// # Errors
    ///
    /// Those of the connection; TLS faults and a malformed name as [`io::ErrorKind::InvalidData`].
    pub async fn connect<IO>(&self, io: IO, sni: Option<&str>) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match sni.or(self.sni.as_deref()) {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no server name"))
            })?,
            None => no_server_name(),
        };
        TlsConnector::from(self.config.clone()).connect(name, io).await
    }
}

/// The client's certificate, as it is at each handshake.
#[derive(Debug)]
struct OwnCertificate(Arc<Slot>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.key_pair()?.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
