//! Asks a server for TLS, to learn what it demands; nothing is sent over what comes about.
//!
//! In:    an address, a server name, what the hello offers.
//! Out:   [`TlsAnswer`].
//! Never: trusts the answer: whatever certificate comes is taken, and the connection is closed.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

/// What a server made of a TLS hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsAnswer {
    /// It demands a certificate of the client.
    DemandsCertificate,
    /// It goes on without one.
    Takes,
    /// It speaks no TLS, or none with us; why.
    Refuses(String),
}

/// Offers TLS without a certificate and sees what the server says.
///
/// # Errors
///
/// When no TCP connection can be made.
pub fn ask_tls(
    address: SocketAddr,
    server_name: &str,
    protocols: &[&str],
    within: Duration,
) -> io::Result<TlsAnswer> {
    let asked = Arc::new(Asked::default());
    let provider = crate::provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_cert_resolver(asked.clone());
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(server_name.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let done = tls.complete_io(&mut stream);
    Ok(match done {
        _ if asked.0.load(Ordering::Relaxed) => TlsAnswer::DemandsCertificate,
        Ok(_) => TlsAnswer::Takes,
        Err(error) => TlsAnswer::Refuses(error.to_string()),
    })
}

/// Sends a plain request line and sees whether the server keeps the connection.
///
/// True when it answers, or waits for more; false when it closes without a word.
///
/// # Errors
///
/// When no TCP connection can be made.
pub fn ask_plain(address: SocketAddr, host: &str, within: Duration) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return Ok(false);
    }
    let mut first = [0; 1];
    Ok(match stream.read(&mut first) {
        Ok(count) => count > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    })
}

/// Remembers whether a certificate was asked for, and has none.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes every certificate: nothing is sent to the server.
#[derive(Debug)]
pub(crate) struct Anybody(pub(crate) Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
