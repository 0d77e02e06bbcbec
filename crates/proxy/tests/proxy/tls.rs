//! TLS: passed on by server name, terminated, originated.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    harness::{Echo, Proxy, cluster, file_log, listener, listener_filter, log_in, soon, tcp_chain},
    pki::Pki,
};

pub(crate) async fn dial(
    at: SocketAddr,
    name: &str,
    pki: &Pki,
) -> std::io::Result<TlsStream<TcpStream>> {
    dial_over(TcpStream::connect(at).await?, name, pki).await
}

pub(crate) async fn dial_over<S>(stream: S, name: &str, pki: &Pki) -> std::io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.roots()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

pub(crate) async fn greeting(mut stream: TlsStream<TcpStream>, length: usize) -> String {
    let mut text = vec![0; length];
    soon("greeting", stream.read_exact(&mut text)).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    assert_eq!(soon("echo", stream.read_u8()).await.unwrap(), b'?');
    String::from_utf8(text).unwrap()
}

pub(crate) fn sds(name: &str) -> Value {
    json!({"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}})
}

pub(crate) fn server_tls(certificate: &str) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs": [sds(certificate)]},
        },
    })
}

pub(crate) fn client_tls(sni: &str, pki: &Pki) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": sni,
            "common_tls_context": {"combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [
                    {"san_type": "DNS", "matcher": {"exact": sni}},
                ]},
                "validation_context_sds_secret_config": sds(&pki.roots_secret()),
            }},
        },
    })
}

/// A listener that terminates TLS for a name and greets in plaintext behind it.
pub(crate) fn terminator(name: &str, to: &str, certificate: &str, log: &std::path::Path) -> Value {
    let mut chain = tcp_chain(to, log);
    chain["transport_socket"] = server_tls(certificate);
    listener(name, json!({"filter_chains": [chain]}))
}

#[tokio::test]
async fn tls_is_passed_on_by_its_server_name_and_other_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("sni.log");
    let pki = Pki::new(dir.path());
    let echo = Echo::start("api").await;
    // The server behind is another proxy, which terminates.
    let behind = Proxy::with(
        json!([terminator("tls", "echo", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let mut api = tcp_chain("api", &log);
    api["filter_chain_match"] = json!({"server_names": ["api.data.local"]});
    let mut front = Proxy::with(
        json!([listener(
            "in",
            json!({
                "listener_filters": [listener_filter("tls_inspector", "TlsInspector")],
                "filter_chains": [api],
                "access_log": [file_log(&log)],
            })
        )]),
        json!([cluster("api", &[behind.address("tls")])]),
    )
    .await;
    let stream = dial(front.address("in"), "api.data.local", &pki).await.unwrap();
    assert_eq!(greeting(stream, 3).await, "api");
    assert!(dial(front.address("in"), "evil.test", &pki).await.is_err());
    let lines = front.stop_and_read(&log).await;
    assert!(
        lines.iter().any(|line| line.starts_with("- ") && line.ends_with(" api api.data.local")),
        "{lines:?}"
    );
    assert!(lines.contains(&"NR 0 0 - evil.test".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn the_name_that_a_blocked_client_asks_for_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("blocked.log");
    let pki = Pki::new(dir.path());
    // No listener filter reads the hello: so it is with a connection to an unknown address.
    let mut proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [tcp_chain("BlackHoleCluster", &log)]}))]),
        json!([{"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "1s"}]),
    )
    .await;
    assert!(soon("refusal", dial(proxy.address("in"), "evil.example", &pki)).await.is_err());
    assert_eq!(proxy.stop_and_read(&log).await, ["UH 0 0 BlackHoleCluster evil.example"]);
}

#[tokio::test]
async fn tls_is_terminated_and_originated_anew_and_the_server_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let pki = Pki::new(dir.path());
    let echo = Echo::start("secret").await;
    let behind = Proxy::with(
        json!([terminator("tls", "echo", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let to = |name: &str, sni: &str| {
        let mut cluster = cluster(name, &[behind.address("tls")]);
        cluster["transport_socket"] = client_tls(sni, &pki);
        cluster
    };
    let certificate = pki.secret("gateway.local");
    let front = Proxy::with(
        json!([
            terminator("good", "right", &certificate, &log),
            terminator("bad", "wrong", &certificate, &log),
        ]),
        json!([to("right", "api.data.local"), to("wrong", "other.data.local")]),
    )
    .await;
    let stream = dial(front.address("good"), "gateway.local", &pki).await.unwrap();
    assert_eq!(greeting(stream, 6).await, "secret");
    // The server's certificate is for another name: nothing may pass.
    let mut stream = dial(front.address("bad"), "gateway.local", &pki).await.unwrap();
    let mut rest = Vec::new();
    drop(soon("close", stream.read_to_end(&mut rest)).await);
    assert!(rest.is_empty());
    front.until_counter("upstream_cx_connect_fail", 1).await;
}

#[tokio::test]
async fn why_a_client_was_refused_by_tls_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let pki = Pki::new(dir.path());
    let mut terminator = terminator("tls", "nowhere", &pki.secret("api.data.local"), &log);
    let format = "%UPSTREAM_CLUSTER% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n";
    terminator["filter_chains"][0]["filters"][0]["typed_config"]["access_log"][0]["typed_config"]
        ["log_format"] = json!({"text_format_source": {"inline_string": format}});
    let mut proxy = Proxy::with(json!([terminator]), json!([cluster("nowhere", &[])])).await;
    let mut plain = TcpStream::connect(proxy.address("tls")).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: api.data.local\r\n\r\n").await.unwrap();
    drop(soon("close", plain.read_to_end(&mut Vec::new())).await);
    let lines = proxy.stop_and_read(&log).await;
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let (cluster, reason) = line.split_once(' ').unwrap();
    assert_eq!(cluster, "nowhere");
    // One word, as Envoy writes it.
    assert!(reason.len() > 1 && !reason.contains(' '), "{line}");
}

#[tokio::test]
async fn a_server_name_outside_must_be_the_one_inside_where_it_decides() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let pki = Pki::new(dir.path());
    let cache = json!({"name": "cache", "dns_lookup_family": "V4_ONLY"});
    let guarded = json!({"name": "guarded", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "2s",
        "metadata": {"filter_metadata": {"sluis.dev": {"patterns": ["api.data.local"]}}},
        "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            "dns_cache_config": cache}}});
    let mut terminator = terminator("tls", "guarded", &pki.secret("api.data.local"), &log);
    let format = "%CONNECTION_TERMINATION_DETAILS%\n";
    let filters = &mut terminator["filter_chains"][0]["filters"];
    filters[0]["typed_config"]["access_log"][0]["typed_config"]["log_format"] =
        json!({"text_format_source": {"inline_string": format}});
    let forward = json!({"name": "sni", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        "dns_cache_config": cache}});
    filters.as_array_mut().unwrap().insert(0, forward);
    let mut proxy = Proxy::with(json!([terminator]), json!([guarded])).await;
    // Outside api.data.local, inside another name; then no TLS inside at all.
    let outside = dial(proxy.address("tls"), "api.data.local", &pki).await.unwrap();
    assert!(soon("refusal", dial_over(outside, "evil.test", &pki)).await.is_err());
    let mut outside = dial(proxy.address("tls"), "api.data.local", &pki).await.unwrap();
    outside.write_all(b"no TLS at all").await.unwrap();
    drop(soon("close", outside.read_to_end(&mut Vec::new())).await);
    let differs = "dynamic_forward_host_differs_from_sni";
    let mut lines = proxy.stop_and_read(&log).await;
    // Two workers may have served the two.
    lines.sort();
    assert_eq!(lines, [differs, "no_healthy_upstream"]);
}

#[tokio::test]
async fn a_chain_without_its_certificate_serves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let echo = Echo::start("x").await;
    let proxy = Proxy::with(
        json!([terminator("tls", "echo", "file-cert:/nowhere.crt~/nowhere.key", &log_in(&dir))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    assert!(dial(proxy.address("tls"), "api.data.local", &pki).await.is_err());
    proxy.until_counter("ssl.connection_error", 1).await;
}

/// A filter chain that speaks HTTP and sends everything to one cluster.
pub(crate) fn http_chain(to: &str) -> Value {
    json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": to,
            "route_config": {"name": "all", "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                },
            }],
        },
    }]})
}

/// A server that answers one request per connection, with TLS in front of it.
async fn web() -> (SocketAddr, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let host = String::from_utf8_lossy(&head).to_lowercase().contains("host: api");
                let answer = if host { "yes" } else { "no!" };
                let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{answer}");
                stream.write_all(reply.as_bytes()).await.ok();
            });
        }
    });
    (address, task)
}

#[tokio::test]
async fn https_is_terminated_served_and_originated_anew() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let (server, _task) = web().await;
    let behind = Proxy::with(
        json!([terminator("tls", "web", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("web", &[server])]),
    )
    .await;
    let mut api = cluster("api", &[behind.address("tls")]);
    api["transport_socket"] = client_tls("api.data.local", &pki);
    let mut chain = http_chain("api");
    chain["transport_socket"] = server_tls(&pki.secret("gateway.local"));
    let front =
        Proxy::with(json!([listener("https", json!({"filter_chains": [chain]}))]), json!([api]))
            .await;
    let mut stream = dial(front.address("https"), "gateway.local", &pki).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: api.data.local\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    drop(soon("response", stream.read_to_string(&mut response)).await);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("yes"), "{response}");
    front.until_counter("http.downstream_rq_2xx", 1).await;
}

#[tokio::test]
async fn a_host_too_long_for_a_server_name_is_answered_and_not_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let (server, _task) = web().await;
    let behind = Proxy::with(
        json!([terminator("tls", "web", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("web", &[server])]),
    )
    .await;
    let mut api = cluster("api", &[behind.address("tls")]);
    api["transport_socket"] = client_tls("api.data.local", &pki);
    api["transport_socket"]["typed_config"]["sni"] = json!("");
    api["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {}},
            "upstream_http_protocol_options": {"auto_sni": true},
        },
    });
    let chain = http_chain("api");
    let front =
        Proxy::with(json!([listener("http", json!({"filter_chains": [chain]}))]), json!([api]))
            .await;
    let ask = async |host: &str| {
        let mut stream = front.connect("http").await;
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        drop(soon("response", stream.read_to_string(&mut response)).await);
        response.get(9..12).unwrap_or_default().to_owned()
    };
    assert_eq!(ask("api.data.local").await, "200");
    let long = "a.".repeat(200) + "local";
    let label = "a".repeat(64) + ".local";
    for host in [long.as_str(), &label, "..", "a..b", "-"] {
        let status = ask(host).await;
        assert!(["400", "503"].contains(&status.as_str()), "{host}: {status}");
    }
    assert_eq!(ask("api.data.local").await, "200");
}
