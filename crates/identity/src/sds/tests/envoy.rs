//! A real Envoy that gets its secrets from us. Runs where `ENVOY_BIN` names one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use sluis_rules::{SecretName, TlsVersions, UpstreamTls, Validation};
use sluis_tls::{ClientTls, Leaf};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

/// Kills Envoy when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two listeners that terminate TLS: one mutual with `default` and `ROOTCA`, one by files.
fn bootstrap(sds: &Path, mutual: u16, files: u16, name: &str) -> String {
    let source = "sds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, \
        transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}";
    let listener = |port: u16, context: &str| {
        format!(
            "
  - name: l{port}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          {context}
      filters:
      - name: envoy.filters.network.echo
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"
        )
    };
    let mutual = listener(
        mutual,
        &format!(
            "require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs: [{{name: default, {source}}}]
            validation_context_sds_secret_config: {{name: ROOTCA, {source}}}"
        ),
    );
    let files = listener(
        files,
        &format!(
            "common_tls_context:
            tls_certificate_sds_secret_configs: [{{name: \"{name}\", {source}}}]"
        ),
    );
    format!(
        "node: {{id: test, cluster: test}}
static_resources:
  listeners: {mutual}{files}
  clusters:
  - name: sds-grpc
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: sds-grpc
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {}}}}}}}}}]}}]
",
        sds.display()
    )
}

/// A port that nobody has: below those that the system hands out, and another at each call, so that
/// tests beside each other cannot meet.
fn spare_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (first + CALLS.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The serial of the certificate that is shown, after a whole exchange.
async fn serial(tls: &ClientTls, port: u16) -> io::Result<String> {
    let socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let mut stream = tls.connect(socket, None).await?;
    stream.write_all(b"hello").await?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"hello");
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(Leaf::parse(&chain[0]).unwrap().serial)
}

/// Tries until the serial is the wanted one: Envoy does not say when it has taken a secret in.
async fn until_serial(tls: &ClientTls, port: u16, wanted: &str) {
    timeout(DEADLINE, async {
        while serial(tls, port).await.ok().as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the certificate is shown in time");
}

fn client(store: &SecretStore, certificate: Option<&str>) -> ClientTls {
    let validation = Validation {
        roots: SecretName::new(MESH_ROOTS),
        sans: Vec::new(),
        certificate_hashes: Vec::new(),
        spki_hashes: Vec::new(),
        crl: None,
        crl_leaf_only: false,
    };
    let settings = UpstreamTls {
        certificate: certificate.map(SecretName::new),
        validation: Some(validation),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        alpn: Vec::new(),
        versions: TlsVersions::default(),
    };
    ClientTls::new(&settings, store).unwrap()
}

#[tokio::test]
async fn a_real_envoy_shows_verifies_and_rotates_what_we_serve() {
    let Ok(envoy) = std::env::var("ENVOY_BIN") else {
        eprintln!("ENVOY_BIN is not set: nothing was tried");
        return;
    };
    let served = Served::start(store()).await;
    let pki = Pki::new();
    let write_files = || {
        let (chain, key) = pki.pems();
        fs::write(served.dir.path().join("c"), &chain).unwrap();
        fs::write(served.dir.path().join("k"), &key).unwrap();
        KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap().leaf().serial.clone()
    };
    let from_files = write_files();
    let name = format!("file-cert:{0}/c~{0}/k", served.dir.path().display());
    let (mutual, files) = (spare_port(), spare_port());
    let config = served.dir.path().join("envoy.yaml");
    fs::write(&config, bootstrap(&served.path(), mutual, files, &name)).unwrap();
    let _envoy = Running(
        Command::new(envoy)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warn", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let current = || {
        let slot = served.store.slot(WORKLOAD_CERTIFICATE).unwrap();
        slot.key_pair().unwrap().leaf().serial.clone()
    };
    // Envoy has asked by now or will ask: both must do.
    pki.give(&served.store);
    let tls = client(&served.store, Some(WORKLOAD_CERTIFICATE));
    until_serial(&tls, mutual, &current()).await;
    until_serial(&client(&served.store, None), files, &from_files).await;
    assert!(serial(&client(&served.store, None), mutual).await.is_err(), "no certificate shown");

    pki.give(&served.store);
    until_serial(&tls, mutual, &current()).await;
    let from_files = write_files();
    served.store.poll();
    until_serial(&client(&served.store, None), files, &from_files).await;
}
