//! A client and an origin whose every byte the test writes and reads.

use std::path::Path;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Proxy, cluster, listener, soon};

/// An origin: the test accepts its connections itself.
pub(crate) struct Origin {
    listener: TcpListener,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer::new(self.accept_stream().await)
    }

    pub(crate) async fn accept_stream(&self) -> TcpStream {
        soon("connection", self.listener.accept()).await.unwrap().0
    }

    /// Asserts that nobody waits to be accepted.
    pub(crate) fn has_no_connection(&self) {
        use std::{
            future::Future as _,
            pin::pin,
            task::{Context, Poll, Waker},
        };
        let mut accept = pin!(self.listener.accept());
        let polled = accept.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending), "a connection that nobody asked for");
    }
}

/// One end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The same connection twice: to write and to read at once.
    pub(crate) fn split(self) -> (Self, Self) {
        let stream = self.stream.into_std().unwrap();
        let other = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        let own = TcpStream::from_std(stream).unwrap();
        (Self::new(other), Self { stream: own, ahead: self.ahead })
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        soon("write", self.stream.write_all(bytes)).await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let read = soon("bytes", self.stream.read_buf(&mut self.ahead)).await;
        matches!(read, Ok(1..))
    }

    fn take(&mut self, len: usize) -> String {
        let rest = self.ahead.split_off(len);
        String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap()
    }

    /// Reads a head, lower-case names sorted behind the start line, without `date`, ids and times.
    pub(crate) async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.more().await,
                "ended in a head: {:?}",
                String::from_utf8_lossy(&self.ahead)
            );
        };
        Head(self.take(end))
    }

    /// Reads exactly this.
    pub(crate) async fn expect(&mut self, text: &str) {
        while self.ahead.len() < text.len() {
            assert!(self.more().await, "ended before {text:?}");
        }
        assert_eq!(self.take(text.len()), text);
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len {
            assert!(self.more().await, "ended after {} of {len} bytes", self.ahead.len());
        }
        let rest = self.ahead.split_off(len);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads to the end; how it ends does not matter.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        self.take(self.ahead.len())
    }

    /// Reads to the end what is no text.
    pub(crate) async fn frames(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.ahead)
    }

    pub(crate) async fn shutdown(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

/// A message head as it came.
#[derive(Debug)]
pub(crate) struct Head(pub(crate) String);

impl Head {
    pub(crate) fn line(&self) -> &str {
        self.0.lines().next().unwrap()
    }

    /// The value of a field; several are joined by `|`.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .0
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join("|"))
    }

    #[track_caller]
    pub(crate) fn has(&self, name: &str, value: &str) {
        assert_eq!(self.get(name).as_deref(), Some(value), "{name} in {}", self.0);
    }

    #[track_caller]
    pub(crate) fn lacks(&self, name: &str) {
        assert_eq!(self.get(name), None, "{name} in {}", self.0);
    }
}

pub(crate) const FORMAT: &str = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% \
    %UPSTREAM_CLUSTER% %ROUTE_NAME%\n";

/// A listener `in` that serves HTTP by these routes; `settings` are further fields of the manager.
pub(crate) fn manager(routes: &Value, log: &Path, settings: &Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "local", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": routes},
        ]},
        "http_filters": [router()],
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": log,
                "log_format": {"text_format_source": {"inline_string": FORMAT}},
            },
        }],
    });
    for (name, value) in settings.as_object().unwrap() {
        manager[name] = value.clone();
    }
    let filter = json!({"name": "http", "typed_config": manager});
    listener("in", json!({"filter_chains": [{"filters": [filter]}]}))
}

pub(crate) fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    })
}

/// A route for everything to the cluster `origin`.
pub(crate) fn to_origin() -> Value {
    json!([{"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "origin"}}])
}

fn http2_options() -> Value {
    json!({"explicit_http_config": {"http2_protocol_options": {"allow_connect": true}}})
}

/// The HTTP options of a cluster.
fn protocol(options: &Value) -> Value {
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut options = options.clone();
    options["@type"] = json!(format!("type.googleapis.com/{name}"));
    json!({name: options})
}

/// A proxy in front of one origin.
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) origin: Origin,
    log: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(&to_origin(), &json!({})).await
    }

    pub(crate) async fn with(routes: &Value, settings: &Value) -> Self {
        Self::start(routes, settings, None, &http2_options()).await
    }

    /// With these options of the cluster `http2`.
    pub(crate) async fn with_http2(routes: &Value, settings: &Value, options: &Value) -> Self {
        Self::start(routes, settings, None, options).await
    }

    /// With a further cluster of one endpoint.
    pub(crate) async fn with_cluster(
        routes: &Value,
        settings: &Value,
        further: (&str, std::net::SocketAddr),
    ) -> Self {
        Self::start(routes, settings, Some(further), &http2_options()).await
    }

    async fn start(
        routes: &Value,
        settings: &Value,
        further: Option<(&str, std::net::SocketAddr)>,
        options: &Value,
    ) -> Self {
        let origin = Origin::start().await;
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let mut http2 = cluster("http2", &[origin.address()]);
        http2["typed_extension_protocol_options"] = protocol(options);
        let mut trailing = cluster("trailing", &[origin.address()]);
        let options =
            json!({"explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}});
        trailing["typed_extension_protocol_options"] = protocol(&options);
        let mut clusters = json!([
            http2,
            trailing,
            cluster("origin", &[origin.address()]),
            {"name": "nowhere", "type": "STATIC", "connect_timeout": "1s"},
        ]);
        if let (Some((name, at)), Some(list)) = (further, clusters.as_array_mut()) {
            list.push(cluster(name, &[at]));
        }
        let proxy = Proxy::with(json!([manager(routes, &log, settings)]), clusters).await;
        Self { proxy, origin, log, _dir: dir }
    }

    pub(crate) async fn client(&self) -> Peer {
        Peer::new(self.proxy.connect("in").await)
    }

    /// Stops the proxy and returns its log.
    pub(crate) async fn log(mut self) -> Vec<String> {
        self.proxy.stop_and_read(&self.log).await
    }
}
