//! One listener inside another: an application's TLS inside of the mesh's.

use std::sync::Arc;

use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    harness::{Proxy, listener, listener_filter, log_in, soon, tcp_chain},
    pki::Pki,
    tls::{dial_over, sds, server_tls},
};

const CLIENT: &str = "spiffe://cluster.local/ns/team-a/sa/notebook";
const GATEWAY: &str = "spiffe://cluster.local/ns/egress/sa/gateway";
const API: &str = "api.data.local";

/// A cluster that leads into a listener of the proxy.
fn into(listener: &str) -> Value {
    let address = json!({"envoy_internal_address": {"server_listener_name": listener}});
    json!({
        "name": listener, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": listener, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address}}]},
        ]},
    })
}

/// The mesh's TLS: clients show a certificate.
fn mesh_tls(pki: &Pki) -> Value {
    let mut tls = server_tls(&pki.secret(GATEWAY));
    let config = &mut tls["typed_config"];
    config["require_client_certificate"] = json!(true);
    config["common_tls_context"]["validation_context_sds_secret_config"] = sds(&pki.roots_secret());
    tls
}

/// A chain that says to a client who it is.
fn who_chain(pki: &Pki) -> Value {
    let named = json!({"header": {"key": "x-who", "value": "%DOWNSTREAM_PEER_URI_SAN%"}});
    json!({
        "transport_socket": server_tls(&pki.secret(API)),
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "inner",
                "route_config": {"virtual_hosts": [{
                    "name": "all", "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                    "response_headers_to_add": [named],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }],
    })
}

fn internal(name: &str, chain: Value) -> Value {
    json!({
        "name": name,
        "internal_listener": {},
        "listener_filters": [listener_filter("tls_inspector", "TlsInspector")],
        "filter_chains": [chain],
    })
}

/// A gateway whose only door is for the mesh's TLS.
async fn gateway(dir: &tempfile::TempDir, pki: &Pki) -> Proxy {
    let mut outer = tcp_chain("inner", &log_in(dir));
    outer["transport_socket"] = mesh_tls(pki);
    Proxy::with(
        json!([
            listener("in", json!({"filter_chains": [outer]})),
            internal("inner", who_chain(pki))
        ]),
        json!([into("inner")]),
    )
    .await
}

/// Speaks the mesh's TLS, as this identity if there is one. With TLS 1.3 a client has shaken hands
/// before the server has judged its certificate.
async fn enter(proxy: &Proxy, pki: &Pki, identity: Option<&str>) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting));
    let config = match identity {
        Some(identity) => {
            let (certificate, key) = pki.issue(identity);
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(API).unwrap();
    let stream = proxy.connect("in").await;
    soon("mesh handshake", TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .unwrap()
}

/// The gateway's own certificate has an identity and no DNS name; who it is matters to other tests.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[tokio::test]
async fn a_client_inside_of_the_meshs_tls_is_who_it_was_outside() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let proxy = gateway(&dir, &pki).await;
    for identity in [CLIENT, "spiffe://cluster.local/ns/team-b/sa/batch"] {
        let mesh = enter(&proxy, &pki, Some(identity)).await;
        let mut stream = dial_over(mesh, API, &pki).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {API}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        soon("response", stream.read_to_string(&mut response)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.contains(&format!("x-who: {identity}\r\n")), "{response}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_does_not_come_inside() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let proxy = gateway(&dir, &pki).await;
    let mesh = enter(&proxy, &pki, None).await;
    let error = dial_over(mesh, API, &pki).await.expect_err("nobody answers inside");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn an_inner_listener_does_not_lead_into_another() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("inner.log");
    let mut proxy = Proxy::with(
        json!([
            listener("in", json!({"filter_chains": [tcp_chain("one", &dir.path().join("outer.log"))]})),
            {"name": "one", "internal_listener": {}, "filter_chains": [tcp_chain("one", &log)]},
        ]),
        json!([into("one")]),
    )
    .await;
    let mut stream = proxy.connect("in").await;
    assert_eq!(soon("end", stream.read(&mut [0; 8])).await.unwrap_or(0), 0);
    drop(stream);
    assert_eq!(proxy.stop_and_read(&log).await, ["UF 0 0 one -"]);
}
