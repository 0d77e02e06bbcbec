//! A gateway with one credential, in front of a server that keeps what it gets.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    capture::{Answer, Capture, Captured, ok},
    harness::{Proxy, cluster, listener, soon},
    pki::Pki,
};

pub(crate) const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// The value that must be seen nowhere but at the one server.
pub(crate) const SECRET: &str = "s3cr3t-v4lue-0001";

/// Where the credential may go.
pub(crate) const HOST: &str = "api.test";

/// How a scene differs from the plain one.
pub(crate) struct Setting {
    /// The injection, as a field of the credential.
    pub(crate) injection: Value,
    /// Further fields of the credential, in the place of its own.
    pub(crate) credential: Value,
    /// Further fields of the cluster.
    pub(crate) cluster: Value,
    /// Routes; without any, everything goes to the cluster `api`.
    pub(crate) routes: Value,
    /// Fields of the connection manager.
    pub(crate) manager: Value,
    /// More clusters.
    pub(crate) others: Vec<Value>,
    /// The entries of the secret; none for a secret that is not there.
    pub(crate) entries: Vec<(&'static str, String)>,
    pub(crate) previous: Vec<(&'static str, String)>,
    /// Whether HTTP/2 is spoken with the server.
    pub(crate) is_http2: bool,
    /// More endpoints of the cluster.
    pub(crate) endpoints: Vec<std::net::SocketAddr>,
    /// Whether clients must have a certificate.
    pub(crate) is_mutual: bool,
    /// The name in the server's certificate.
    pub(crate) certificate: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            injection: json!({ "header": { "name": "x-key", "prefix": "Key ", "key": "k" } }),
            credential: json!({}),
            cluster: json!({}),
            routes: json!([{ "match": { "prefix": "/" }, "route": { "cluster": "api" } }]),
            manager: json!({}),
            others: Vec::new(),
            entries: vec![("k", SECRET.to_owned()), ("@version", "v7".to_owned())],
            previous: Vec::new(),
            is_http2: false,
            endpoints: Vec::new(),
            is_mutual: false,
            certificate: HOST,
        }
    }
}

pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) server: Capture,
    log: PathBuf,
    pub(crate) pki: Pki,
    _dir: tempfile::TempDir,
}

/// Everybody, for everything.
pub(crate) fn any_grant() -> Value {
    json!({ "name": "egress/any", "policy": {
        "permissions": [{ "any": true }], "principals": [{ "any": true }] } })
}

pub(crate) fn credential(setting: &Setting) -> Value {
    let mut credential = json!({
        "name": "egress/api",
        "secret": { "name": "credential://egress/api" },
        "previous_secret": { "name": "credential://egress/api#previous" },
        "grants": [any_grant()],
        "guard": { "hosts": [HOST] },
    });
    for part in [&setting.injection, &setting.credential] {
        for (name, value) in part.as_object().unwrap() {
            credential[name] = value.clone();
        }
    }
    credential
}

/// The cluster's way to the server: TLS with its name from the request, verified; the filters.
pub(crate) fn api(setting: &Setting, pki: &Pki, at: &[std::net::SocketAddr]) -> Value {
    let mut api = cluster("api", at);
    let protocol =
        if setting.is_http2 { "http2_protocol_options" } else { "http_protocol_options" };
    api["transport_socket"] = json!({ "name": "tls", "typed_config": {
        "@type": format!("{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": {
            "alpn_protocols": [if setting.is_http2 { "h2" } else { "http/1.1" }],
            "validation_context_sds_secret_config": {
                "name": pki.roots_secret(), "sds_config": { "ads": {} } } } } });
    api["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { protocol: {} },
            "upstream_http_protocol_options": { "auto_sni": true, "auto_san_validation": true },
            "http_filters": [
                { "name": "sluis.filters.http.credentials", "typed_config": {
                    "@type": "type.googleapis.com/sluis.egress.v1alpha1.CredentialInjection",
                    "credentials": [credential(setting)] } },
                { "name": "envoy.filters.http.upstream_codec", "typed_config": {
                    "@type": format!("{TYPE}.filters.http.upstream_codec.v3.UpstreamCodec") } }] } });
    for (name, value) in setting.cluster.as_object().unwrap() {
        api[name] = value.clone();
    }
    api
}

pub(crate) fn secret(name: &str, entries: &[(&str, String)]) -> Value {
    let entries: serde_json::Map<_, _> = entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!({ "inline_string": value })))
        .collect();
    json!({ "name": name, "generic_secret": { "secrets": entries } })
}

pub(crate) fn gateway(setting: &Setting, log: &std::path::Path) -> Value {
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(X-KEY)% %REQ(:PATH)% \
        %DYNAMIC_METADATA(sluis.credentials:credential)% \
        %DYNAMIC_METADATA(sluis.credentials:version)% \
        %DYNAMIC_METADATA(sluis.credentials:grant)% \
        %DYNAMIC_METADATA(sluis.credentials:result)% \
        %DYNAMIC_METADATA(sluis.credentials:would_grant)%\n";
    let mut manager = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "access_log": [{ "name": "file", "typed_config": {
            "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"), "path": log,
            "log_format": { "text_format_source": { "inline_string": format } } } }],
        "route_config": { "name": "local", "virtual_hosts": [
            { "name": "all", "domains": ["*"], "routes": setting.routes }] },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": format!("{TYPE}.filters.http.router.v3.Router") } }],
    });
    for (name, value) in setting.manager.as_object().unwrap() {
        manager[name] = value.clone();
    }
    json!({ "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

/// TLS of a gateway whose clients have certificates of the mesh.
fn mutual(pki: &Pki) -> Value {
    let sds = |name: String| json!({ "name": name, "sds_config": { "ads": {} } });
    json!({ "name": "tls", "typed_config": {
        "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [sds(pki.secret("gateway.test"))],
            "validation_context_sds_secret_config": sds(pki.roots_secret()) } } })
}

impl Scene {
    pub(crate) async fn plain() -> Self {
        Self::new(Setting::default()).await
    }

    pub(crate) async fn new(setting: Setting) -> Self {
        Self::answering(setting, |_| ok()).await
    }

    pub(crate) async fn answering(
        setting: Setting,
        answer: impl Fn(&Captured) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        let (chain, key) = pki.issue(setting.certificate);
        let server = Capture::start(Some((&chain, &key)), setting.is_http2, answer).await;
        let log = dir.path().join("access.log");
        let endpoints = [&[server.address], &*setting.endpoints].concat();
        let mut clusters = vec![api(&setting, &pki, &endpoints)];
        clusters.extend(setting.others.iter().cloned());
        let mut secrets = Vec::new();
        for (suffix, entries) in [("", &setting.entries), ("#previous", &setting.previous)] {
            if !entries.is_empty() {
                secrets.push(secret(&format!("credential://egress/api{suffix}"), entries));
            }
        }
        // Tests that bring their own TLS do not know the roots.
        let clusters = json!(clusters).to_string().replace("ROOTS", &pki.roots_secret());
        let clusters: Value = serde_json::from_str(&clusters).unwrap();
        let mut front = gateway(&setting, &log);
        if setting.is_mutual {
            front["filter_chains"][0]["transport_socket"] = mutual(&pki);
        }
        let resources = json!({ "clusters": clusters, "secrets": secrets,
            "listeners": [listener("in", front)] });
        let bootstrap = json!({ "static_resources": resources });
        let own = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(own, bootstrap, std::time::Duration::from_secs(5)).await;
        Self { proxy, server, log, pki, _dir: dir }
    }

    /// Sends bytes over a connection of their own, and reads until the server closes or the answer
    /// is whole.
    pub(crate) async fn send(&self, request: &str) -> Reply {
        ask(self.proxy.address("in"), request.as_bytes()).await
    }

    /// A plain request of the host.
    pub(crate) async fn get(&self, target: &str, fields: &str) -> Reply {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await
    }

    /// A request by HTTP/2.
    pub(crate) async fn http2(&self, request: http::Request<()>, body: &[u8]) -> Reply {
        let stream = self.proxy.connect("in").await;
        let (send, connection) = soon("handshake", h2::client::handshake(stream)).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        let mut send = soon("room", send.ready()).await.unwrap();
        let (response, mut stream) = send.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        let Ok(response) = soon("response", response).await else {
            driver.abort();
            return Reply { status: 0, head: String::new(), body: String::new() };
        };
        let (head, mut recv) = response.into_parts();
        let mut body = Vec::new();
        while let Some(Ok(data)) = soon("data", recv.data()).await {
            body.extend_from_slice(&data);
        }
        driver.abort();
        Reply {
            status: head.status.as_u16(),
            head: format!("{:?}", head.headers),
            body: String::from_utf8(body).unwrap(),
        }
    }

    /// Stops the proxy; the lines of its log.
    pub(crate) async fn log(mut self) -> Vec<String> {
        let log = self.log.clone();
        self.proxy.stop_and_read(&log).await
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn ask(at: std::net::SocketAddr, request: &[u8]) -> Reply {
    let mut stream = soon("connect", TcpStream::connect(at)).await.unwrap();
    soon("write", stream.write_all(request)).await.unwrap();
    reply(&mut stream).await
}

pub(crate) async fn reply<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Reply {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            if head.starts_with("http/1.1 100") {
                bytes.drain(..end + 4);
                continue;
            }
            if head.contains("transfer-encoding: chunked") && head.starts_with("http/1.1") {
                if bytes.ends_with(b"0\r\n\r\n") {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    let body = crate::capture::unchunked(&bytes[end + 4..]);
                    let body = String::from_utf8_lossy(&body).into_owned();
                    return Reply { status, head, body };
                }
                if soon("answer", stream.read_buf(&mut bytes)).await.unwrap_or(0) == 0 {
                    return Reply { status: 0, head, body: String::new() };
                }
                continue;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |text| text.trim().parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
                return Reply { status, head, body };
            }
        }
        if soon("answer", stream.read_buf(&mut bytes)).await.unwrap_or(0) == 0 {
            return Reply { status: 0, head: String::new(), body: String::new() };
        }
    }
}
