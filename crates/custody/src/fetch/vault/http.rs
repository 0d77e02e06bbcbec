//! One question to Vault: a connection, a request, a bounded answer.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use sluis_tls::{Clock, SecretStore};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::{FetchError, VaultOrigin, value::BYTES_MAX};

/// Longest that one question may take.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer: those of all values twice, for escapes, and room for metadata.
const ANSWER_MAX: usize = 3 * BYTES_MAX;
/// Vault's port, where the address names none.
const PORT: u16 = 8200;

/// A Vault server.
pub(super) struct Server {
    host: String,
    port: u16,
    /// What comes before `/v1` in its paths; behind a proxy there may be something.
    base: String,
    authority: String,
    namespace: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

/// What it said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Server {
    /// Reads the address and the roots.
    pub(super) fn new(origin: &VaultOrigin) -> Result<Self, FetchError> {
        let wrong = |why: &str| FetchError::Address(format!("{}: {why}", origin.address));
        let uri: Uri = origin.address.parse().map_err(|_| wrong("this is no URL"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a user name does not belong there"));
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let is_loopback = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = match uri.scheme_str() {
            Some("https") => Some(config(origin)?),
            Some("http") if is_loopback => None,
            Some("http") => return Err(wrong("a token goes over http:// on loopback only")),
            _ => return Err(wrong("it must begin with https://")),
        };
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Self {
            port: uri.port_u16().unwrap_or(PORT),
            base: uri.path().trim_end_matches('/').to_owned(),
            authority,
            namespace: origin.namespace.clone(),
            host,
            tls,
        })
    }

    /// The server, for logs.
    pub(super) fn name(&self) -> &str {
        &self.authority
    }

    /// Asks one thing.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&Zeroizing<String>>,
        body: Option<&[u8]>,
    ) -> Result<Answer, FetchError> {
        let asked = timeout(ASK_MAX, self.converse(method, path, token, body)).await;
        asked.unwrap_or(Err(FetchError::Timeout(ASK_MAX)))
    }

    async fn converse(
        &self,
        method: Method,
        path: &str,
        token: Option<&Zeroizing<String>>,
        body: Option<&[u8]>,
    ) -> Result<Answer, FetchError> {
        let request = self.request(method, path, token, body)?;
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = connected.map_err(|error| self.unreachable(&error))?;
        let Some(tls) = &self.tls else { return self.exchange(stream, request).await };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| FetchError::Address(format!("{:?} is no host", self.host)))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, stream).await;
        self.exchange(stream.map_err(|error| self.unreachable(&error))?, request).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&Zeroizing<String>>,
        body: Option<&[u8]>,
    ) -> Result<Request<Full<Bytes>>, FetchError> {
        let path: String = path.split('/').map(encoded).collect::<Vec<_>>().join("/");
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.base))
            .header(header::HOST, &self.authority)
            // Without it a Vault agent that guards against forged requests refuses.
            .header("x-vault-request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = token {
            let mut value = header::HeaderValue::from_str(token)
                .map_err(|_| FetchError::Malformed("the token has odd characters".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("x-vault-token", value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::copy_from_slice(body.unwrap_or_default()));
        request.body(body).map_err(|error| FetchError::Address(error.to_string()))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, FetchError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let answering = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            Ok::<_, hyper::Error>((status, body))
        };
        // The connection is driven beside the question, and given up after it.
        let answered = tokio::select! {
            answered = answering => answered,
            ended = connection => match ended {
                Err(error) => Err(error),
                Ok(()) => return Err(self.unreachable(&"it closed the connection")),
            },
        };
        let (status, body) = answered.map_err(|error| self.unreachable(&error))?;
        let body = body.map_err(|_| FetchError::TooLarge)?.to_bytes();
        Ok(Answer { status, body: Zeroizing::new(body.to_vec()) })
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> FetchError {
        FetchError::Unreachable {
            address: format!("{}:{}", self.host, self.port),
            error: error.to_string(),
        }
    }
}

/// The roots are read at each question: they may change.
fn config(origin: &VaultOrigin) -> Result<Arc<ClientConfig>, FetchError> {
    let (name, place) = match &origin.roots {
        Some(path) => (format!("file-root:{}", path.display()), path.display().to_string()),
        None => ("file-root:system".to_owned(), "the system".to_owned()),
    };
    let store = SecretStore::new(Clock::system(), None);
    let slot = store.slot(&name).map_err(|error| FetchError::Address(error.to_string()))?;
    let Some(given) = slot.roots() else {
        return Err(FetchError::Address(format!("there are no roots in {place}")));
    };
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(given.certificates());
    if taken == 0 {
        return Err(FetchError::Address(format!("no root in {place} can be used")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Address(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// One part of a path, with what is no unreserved character (RFC 3986) as `%XX`.
fn encoded(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
