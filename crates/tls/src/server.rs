//! The server's side of TLS: settings in, handshakes out.
//!
//! In:    [`DownstreamTls`] and the store whose secrets it names.
//! Out:   [`ServerTls`], which accepts connections with the secrets that are current then.
//! Never: serves without a certificate or forgets a client's certificate by resumption.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::Ticketer,
    pki_types::CertificateDer,
    server::{
        Acceptor, ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use sluis_rules::{DownstreamTls, SecretName, TlsVersion, TlsVersions, Validation};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    MESH_ROOTS, SecretStore, Slot, StoreError, WORKLOAD_CERTIFICATE, provider_of,
    verify::{ClientVerifier, covers},
};

/// Why settings do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A secret's name is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No certificate is named.
    #[error("a TLS server needs a certificate")]
    NoCertificate,
    /// A client certificate is required and nothing says how to judge it.
    #[error("a client certificate is required without a validation")]
    NoValidation,
    /// The TLS library refuses the settings.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

/// A TLS server's configuration. Cheap to clone; usable on every thread.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// For clients with whom no protocol is shared: Envoy goes on without one, rustls would not.
    without_alpn: Arc<ServerConfig>,
    require_sni: bool,
    certificates: Vec<Arc<Slot>>,
}

impl ServerTls {
    /// Makes a configuration from a resource's settings.
    ///
    /// Reads files at first use of their names: not for data threads.
    ///
    /// # Errors
    ///
    /// [`SettingsError`]. That a secret has no value yet is no error: handshakes fail until then.
    pub fn new(settings: &DownstreamTls, store: &SecretStore) -> Result<Self, SettingsError> {
        let slots: Vec<_> = settings
            .certificates
            .iter()
            .map(|name| store.slot(name.as_str()))
            .collect::<Result<_, _>>()?;
        if slots.is_empty() {
            return Err(SettingsError::NoCertificate);
        }
        let verifier: Arc<dyn ClientCertVerifier> = match &settings.validation {
            Some(rules) => {
                Arc::new(ClientVerifier::new(rules, settings.require_client_certificate, store)?)
            }
            None if settings.require_client_certificate => return Err(SettingsError::NoValidation),
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_details(
            provider_of(settings.versions.suites, settings.versions.groups),
            Arc::new(store.clock().clone()),
        )
        .with_protocol_versions(versions(settings.versions))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Certificates(slots.clone())));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if settings.validation.is_some() {
            // A resumed session would skip the certificate: it may have expired since.
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Ticketer::new()?;
        }
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            without_alpn,
            require_sni: settings.require_sni,
            certificates: slots,
        })
    }

    /// A gRPC server of the mesh: shows `default`, and asks for a certificate by `ROOTCA` without
    /// requiring one; who shows none is anonymous.
    ///
    /// # Errors
    ///
    /// As [`ServerTls::new`].
    pub fn grpc(store: &SecretStore) -> Result<Self, SettingsError> {
        let validation = Validation {
            roots: SecretName::new(MESH_ROOTS),
            sans: Vec::new(),
            certificate_hashes: Vec::new(),
            spki_hashes: Vec::new(),
            crl: None,
            crl_leaf_only: false,
        };
        let settings = DownstreamTls {
            certificates: vec![SecretName::new(WORKLOAD_CERTIFICATE)],
            validation: Some(validation),
            require_client_certificate: false,
            require_sni: false,
            alpn: vec!["h2".into()],
            versions: TlsVersions::default(),
        };
        Self::new(&settings, store)
    }

    /// The library's configuration, for a server that drives the handshake itself.
    ///
    /// [`ServerTls::accept`] does more: it knows `require_sni`, and it goes on without ALPN when no
    /// protocol is shared.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Whether a client that has finished its handshake of TLS 1.3 is sent something at once.
    #[must_use]
    pub fn sends_tickets(&self) -> bool {
        self.config.send_tls13_tickets > 0
    }

    /// The URI names of the certificate that is shown to clients: those of the first, which is the
    /// only one where certificates have such names.
    #[must_use]
    pub fn own_uris(&self) -> Vec<String> {
        let pair = self.certificates.first().and_then(|slot| slot.key_pair());
        pair.map(|pair| pair.leaf().uris.clone()).unwrap_or_default()
    }

    /// The certificate that is shown to clients: the first.
    #[must_use]
    pub fn own_certificate(&self) -> Option<CertificateDer<'static>> {
        let pair = self.certificates.first().and_then(|slot| slot.key_pair())?;
        pair.chain().first().cloned()
    }

    /// The configuration for one client, by what its hello offers.
    ///
    /// # Errors
    ///
    /// When the client must send an SNI and did not.
    pub fn config_for(&self, hello: &ClientHello<'_>) -> io::Result<Arc<ServerConfig>> {
        if self.require_sni && hello.server_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client sent no SNI"));
        }
        let ours = &self.config.alpn_protocols;
        let offered = hello.alpn();
        let shares =
            offered.is_none_or(|mut names| names.any(|name| ours.iter().any(|own| own == name)));
        Ok(if shares { self.config.clone() } else { self.without_alpn.clone() })
    }

    /// Takes a client through the handshake. Bound the time outside.
    ///
    /// # Errors
    ///
    /// Those of the connection; TLS faults as [`io::ErrorKind::InvalidData`].
    pub async fn accept<IO>(&self, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let config = self.config_for(&start.client_hello())?;
        start.into_stream(config).await
    }
}

/// The certificates of one server; which one is chosen at each handshake.
#[derive(Debug)]
struct Certificates(Vec<Arc<Slot>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = hello.server_name().and_then(|host| {
            self.0.iter().filter_map(|slot| slot.key_pair()).map(|pair| pair.certified()).find(
                |certified| {
                    certified.key.choose_scheme(hello.signature_schemes()).is_some()
                        && certified
                            .end_entity_cert()
                            .and_then(ParsedCertificate::try_from)
                            .is_ok_and(|parsed| covers(&parsed, host))
                },
            )
        });
        let chosen = fitting.or_else(|| Some(self.0.first()?.key_pair()?.certified()));
        if chosen.is_none() {
            let secret = self.0.first().map_or("", |slot| slot.name());
            tracing::warn!(secret, "handshake refused: the server's certificate is not available");
        }
        chosen
    }
}

/// The library's versions for a range; none for a range that is upside down, which it refuses.
pub(crate) fn versions(range: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];
    static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (range.min, range.max) {
        (TlsVersion::V1_2, TlsVersion::V1_2) => &OLD,
        (TlsVersion::V1_2, TlsVersion::V1_3) => &BOTH,
        (TlsVersion::V1_3, TlsVersion::V1_3) => &NEW,
        (TlsVersion::V1_3, TlsVersion::V1_2) => &[],
    }
}
