//! Who connects: certificates, server names, source addresses; and how requests are sent.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

use crate::{harness::soon, requests::Request};

/// The alternative names of each certificate, and its subject; the last client has none.
const CERTIFICATES: [(&[&str], &str); 8] = [
    (&["spiffe://td/ns/a/sa/x"], ""),
    (&["spiffe://td/ns/a/sa/y"], "client"),
    (&["spiffe://td/ns/b/sa/x"], ""),
    (&["spiffe://old/ns/a/sa/x", "x.a.example"], ""),
    (&["x.a.example", "z.b.example"], "client"),
    (&[], "client"),
    (&["https://uri.example/1", "https://uri.example/2", "q.example"], ""),
    (&[], ""),
];

const SOURCES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// The client certificates, made once.
pub(crate) struct Pki {
    roots: Vec<u8>,
    clients: Vec<Option<(String, String)>>,
}

impl Pki {
    /// Makes everything; writes what servers need: `roots.pem`, `server.pem`, `server.key`.
    pub(crate) fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |names: &[&str], subject: &str| {
            let mut params = CertificateParams::default();
            let name = |name: &&str| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            };
            params.subject_alt_names = names.iter().map(name).collect();
            params.distinguished_name = DistinguishedName::new();
            if !subject.is_empty() {
                params.distinguished_name.push(DnType::OrganizationName, "org");
                params.distinguished_name.push(DnType::CommonName, subject);
            }
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let (certificate, key) = issue(&["a.example", "b.a.example"], "");
        std::fs::write(dir.join("roots.pem"), issuer.pem()).unwrap();
        std::fs::write(dir.join("server.pem"), certificate).unwrap();
        std::fs::write(dir.join("server.key"), key).unwrap();
        let last = CERTIFICATES.len() - 1;
        let clients = CERTIFICATES
            .iter()
            .enumerate()
            .map(|(at, (names, subject))| (at < last).then(|| issue(names, subject)));
        Self { roots: issuer.pem().into_bytes(), clients: clients.collect() }
    }

    /// Everybody who connects: to the port without TLS, and to the one with it.
    pub(crate) fn clients(&self) -> Vec<Client> {
        let mut all: Vec<Client> = SOURCES
            .iter()
            .map(|source| Client { source, tls: None, what: format!("plain from {source}") })
            .collect();
        for (at, certificate) in self.clients.iter().enumerate() {
            for server in ["a.example", "b.a.example", ""] {
                let source = SOURCES[at % SOURCES.len()];
                all.push(Client {
                    source,
                    tls: Some((self.tls(certificate.as_ref(), server), server)),
                    what: format!("certificate {at} with SNI {server:?}"),
                });
            }
        }
        all
    }

    fn tls(&self, certificate: Option<&(String, String)>, server: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.roots).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.enable_sni = !server.is_empty();
        Arc::new(config)
    }
}

/// One who connects.
pub(crate) struct Client {
    source: &'static str,
    /// The server name, which may be empty.
    tls: Option<(Arc<ClientConfig>, &'static str)>,
    pub(crate) what: String,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Client {
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects; says from where.
    async fn connect(&self, at: SocketAddr) -> std::io::Result<(Box<dyn Stream>, SocketAddr)> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(self.source.parse().unwrap(), 0)).unwrap();
        let stream = socket.connect(at).await?;
        stream.set_nodelay(true).unwrap();
        let from = stream.local_addr().unwrap();
        let Some((config, server)) = &self.tls else { return Ok((Box::new(stream), from)) };
        // Without a name of its own the certificate is still verified by one.
        let name = if server.is_empty() { "a.example" } else { server };
        let name = ServerName::try_from(name).unwrap();
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Ok((Box::new(stream), from))
    }

    /// Sends all requests on as few connections as the proxy allows.
    pub(crate) async fn ask(&self, at: SocketAddr, requests: &[&Request]) {
        let mut left = requests;
        while !left.is_empty() {
            let (stream, _) = soon("connect", self.connect(at)).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(stream);
            let done = exchange(&mut reader, &mut writer, left).await;
            assert!(done > 0, "{}: no answer", self.what);
            left = &left[done..];
        }
    }

    /// Connects and sends a byte: from where, and whether the byte came back.
    pub(crate) async fn knock(&self, at: SocketAddr) -> (SocketAddr, bool) {
        let (mut stream, from) = soon("connect", self.connect(at)).await.unwrap();
        let mut byte = [0];
        let echoed = async {
            stream.write_all(b"?").await.ok()?;
            stream.read_exact(&mut byte).await.ok()
        };
        let is_echoed = soon("echo", echoed).await.is_some();
        (from, is_echoed)
    }
}

/// How many requests were answered before the connection ended.
async fn exchange(
    reader: &mut ReadHalf<Box<dyn Stream>>,
    writer: &mut WriteHalf<Box<dyn Stream>>,
    requests: &[&Request],
) -> usize {
    let mut done = 0;
    let mut bytes = Vec::new();
    // One after the other: Envoy closes a connection on which an answer of its own comes before
    // the next request has been read.
    for request in requests {
        if writer.write_all(&request.text).await.is_err() {
            return done;
        }
        let (length, closes) = loop {
            if let Some(found) = answer_len(&bytes) {
                break found;
            }
            if soon("answer", reader.read_buf(&mut bytes)).await.unwrap_or(0) == 0 {
                return done;
            }
        };
        bytes.drain(..length);
        done += 1;
        if closes {
            break;
        }
    }
    done
}

/// The length of the answer that the bytes begin with, once it is there, and whether it is the last.
fn answer_len(bytes: &[u8]) -> Option<(usize, bool)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let whole = end + length.map_or(0, |length| length.trim().parse().unwrap());
    let closes = head.contains("connection: close");
    (bytes.len() >= whole).then_some((whole, closes))
}
