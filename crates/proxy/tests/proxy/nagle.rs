//! Clients that leave Nagle's algorithm on, as most libraries do.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use crate::{
    harness::{Echo, Proxy, cluster, listener, log_in, soon, tcp_chain},
    pki::Pki,
    tls::{sds, server_tls},
};

/// Connections measured; the median is judged.
const TIMES: usize = 9;

/// A client holds its first request back for 40 ms where the end of its handshake is acknowledged
/// late; it takes two or three otherwise.
const WAIT_MAX: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_client_with_a_certificate_need_not_wait_for_an_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let echo = Echo::start("").await;
    let mut chain = tcp_chain("echo", &log_in(&dir));
    chain["transport_socket"] = server_tls(&pki.secret("gateway.local"));
    let config = &mut chain["transport_socket"]["typed_config"];
    config["require_client_certificate"] = json!(true);
    config["common_tls_context"]["validation_context_sds_secret_config"] = sds(&pki.roots_secret());
    let proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [chain]}))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.roots()).unwrap()).unwrap();
    let (certificate, key) = pki.issue("spiffe://cluster.local/ns/a/sa/b");
    let own = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(own, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut waits = Vec::new();
    for _ in 0..TIMES {
        let stream = TcpStream::connect(proxy.address("in")).await.unwrap();
        assert!(!stream.nodelay().unwrap(), "Nagle's algorithm is on");
        let name = ServerName::try_from("gateway.local").unwrap();
        let mut stream = soon("handshake", connector.connect(name, stream)).await.unwrap();
        let start = Instant::now();
        stream.write_all(b"?").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(soon("answer", stream.read_u8()).await.unwrap(), b'?');
        waits.push(start.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[TIMES / 2] < WAIT_MAX, "{waits:?}");
}
