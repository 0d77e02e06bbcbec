//! A TLS server that keeps every request as it came, in HTTP/1.1 or HTTP/2.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    pub(crate) method: String,
    pub(crate) target: String,
    /// `Host` or `:authority`.
    pub(crate) host: String,
    /// Names as they came; without `Host`.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Everything, for searches.
    pub(crate) raw: Vec<u8>,
}

impl Captured {
    /// All values of a field, joined as RFC 9110 §5.3 has it.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let named = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<_> =
            named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        self.raw.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// What a server answers: status, fields, body.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, String);
type Answers = Arc<dyn Fn(&Captured) -> Answer + Send + Sync>;

pub(crate) fn ok() -> Answer {
    (200, Vec::new(), "fine".to_owned())
}

/// The server.
pub(crate) struct Capture {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Captured>>>,
    _task: JoinSet<()>,
}

impl Capture {
    /// One with this certificate and key, or without TLS.
    pub(crate) async fn start(
        certificate: Option<(&Path, &Path)>,
        is_http2: bool,
        answer: impl Fn(&Captured) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(certificate, (is_http2, true), answer).await
    }

    /// One of HTTP/1.1 that keeps nothing, for many requests.
    pub(crate) async fn forgetful(
        certificate: (&Path, &Path),
        answer: impl Fn(&Captured) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(certificate), (false, false), answer).await
    }

    async fn listen(
        certificate: Option<(&Path, &Path)>,
        (is_http2, keeps): (bool, bool),
        answer: impl Fn(&Captured) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let tls = certificate.map(|(chain, key)| acceptor(chain, key, is_http2));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Captured>>>::default();
        let answer: Answers = Arc::new(answer);
        let mut task = JoinSet::new();
        let kept = Arc::clone(&seen);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = (keeps.then(|| Arc::clone(&kept)), Arc::clone(&answer));
                connections.spawn(serve(stream, tls.clone(), shared, is_http2));
            }
        });
        Self { address, seen, _task: task }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Captured> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request so far; it is forgotten.
    pub(crate) fn only(&self) -> Captured {
        let mut seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.pop().unwrap()
    }
}

fn acceptor(chain: &Path, key: &Path, is_http2: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TlsAcceptor::from(Arc::new(config))
}

type Shared = (Option<Arc<Mutex<Vec<Captured>>>>, Answers);

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Shared, is_http2: bool) {
    match tls {
        None => plain(stream, &shared).await,
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            if is_http2 { streams(stream, shared).await } else { plain(stream, &shared).await }
        }
    }
}

async fn plain<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, (seen, answer): &Shared) {
    let mut ahead = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(stream.read_buf(&mut ahead).await, Ok(1..)) {
                return;
            }
        };
        let head: Vec<u8> = ahead.drain(..end).collect();
        let mut captured = of_head(&head);
        let chunked = captured.field("transfer-encoding").is_some();
        let length = captured.field("content-length").map_or(0, |text| text.parse().unwrap());
        while if chunked { !ahead.ends_with(b"0\r\n\r\n") } else { ahead.len() < length } {
            if !matches!(stream.read_buf(&mut ahead).await, Ok(1..)) {
                return;
            }
        }
        let framed: Vec<u8> = ahead.drain(..if chunked { ahead.len() } else { length }).collect();
        captured.raw.extend_from_slice(&framed);
        captured.body = if chunked { unchunked(&framed) } else { framed };
        let (status, fields, body) = answer(&captured);
        if let Some(seen) = seen {
            seen.lock().unwrap().push(captured);
        }
        let mut out = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        fields.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\r\n")));
        out.push_str(&format!("\r\n{body}"));
        if stream.write_all(out.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

fn of_head(head: &[u8]) -> Captured {
    let mut lines = head[..head.len() - 4].split(|byte| *byte == b'\n');
    let first = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
    let mut words = first.trim_end().split(' ');
    let mut captured = Captured {
        method: words.next().unwrap().to_owned(),
        target: words.next().unwrap().to_owned(),
        raw: head.to_vec(),
        ..Captured::default()
    };
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        let name = String::from_utf8(line[..colon].to_vec()).unwrap();
        let value = line[colon + 1..].trim_ascii().to_vec();
        match name.eq_ignore_ascii_case("host") {
            true => captured.host = String::from_utf8(value).unwrap(),
            false => captured.fields.push((name, value)),
        }
    }
    captured
}

pub(crate) fn unchunked(mut framed: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = framed.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&framed[..end]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&framed[end + 2..end + 2 + size]);
        framed = &framed[end + 4 + size..];
    }
}

async fn streams<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: Shared) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut tasks = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (seen, answer) = shared.clone();
        tasks.spawn(async move {
            let (head, mut recv) = request.into_parts();
            let mut captured = Captured {
                method: head.method.to_string(),
                target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                host: head.uri.authority().map(ToString::to_string).unwrap_or_default(),
                ..Captured::default()
            };
            for (name, value) in &head.headers {
                captured.fields.push((name.to_string(), value.as_bytes().to_vec()));
                captured.raw.extend_from_slice(name.as_str().as_bytes());
                captured.raw.extend_from_slice(b": ");
                captured.raw.extend_from_slice(value.as_bytes());
                captured.raw.push(b'\n');
            }
            captured.raw.extend_from_slice(head.uri.to_string().as_bytes());
            while let Some(Ok(data)) = recv.data().await {
                recv.flow_control().release_capacity(data.len()).unwrap();
                captured.body.extend_from_slice(&data);
            }
            if let Ok(Some(trailers)) = recv.trailers().await {
                for (name, value) in &trailers {
                    captured.raw.extend_from_slice(format!("\n{name}: {value:?}").as_bytes());
                }
            }
            let (status, fields, body) = answer(&captured);
            if let Some(seen) = seen {
                seen.lock().unwrap().push(captured);
            }
            let mut response = http::Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name, value);
            }
            let head = response.body(()).unwrap();
            if let Ok(mut send) = respond.send_response(head, body.is_empty())
                && !body.is_empty()
            {
                send.send_data(Bytes::from(body), true).ok();
            }
        });
    }
}
