//! What a real Envoy does with `mode: SIMPLE` for bytes that are encrypted already (docs/adr/0002).
//!
//! One Envoy holds the gateway's listener and, as two plain listeners, a sidecar's way to it: through
//! the cluster as the DestinationRule asks for it, and through its variant without TLS. Listener and
//! clusters are those of `golden/article/expect.yaml`; only secrets, addresses and the API behind the
//! gateway are replaced. Runs where `ENVOY_BIN` names an Envoy.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

const HOST: &str = "api.data.local";
const MITM: &str = "outbound|443|mitm|istio-egressgateway.egress.svc.cluster.local";

/// What Envoy says when it takes connections.
const READY: &str = "starting main dispatch loop";

/// A client of a few lines, as an application would have it.
const CLIENT: &str = "
import socket, ssl, sys
port, roots, host = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=roots)
try:
    with socket.create_connection(('127.0.0.1', port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=host) as stream:
            stream.sendall(f'GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n'.encode())
            print(stream.recv(4096).decode().splitlines()[0])
except ssl.SSLError as error:
    print('SSLError', error.reason)
";

/// An Envoy and its files; both end with the value.
struct Envoy {
    child: Child,
    folder: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Envoy {
    /// Starts an Envoy; returns when it takes connections.
    fn start(binary: &Path, folder: PathBuf, bootstrap: &Value) -> Self {
        let config = folder.join("envoy.json");
        fs::write(&config, bootstrap.to_string()).unwrap();
        let mut child = Command::new(binary)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "info", "-c"])
            .arg(&config)
            .stdout(fs::File::create(folder.join("log")).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let envoy = Self { child, folder };
        let mut lines = said.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(READY)), "Envoy ended before it was ready");
        // Somebody must go on reading, or Envoy would block.
        std::thread::spawn(move || lines.for_each(drop));
        envoy
    }

    fn ask(&self, port: u16) -> String {
        let output = Command::new("python3")
            .args(["-c", CLIENT, &port.to_string()])
            .arg(self.folder.join("root.pem"))
            .arg(HOST)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said.trim().to_owned()
    }
}

#[test]
fn a_real_envoy_wraps_tls_in_tls_and_the_gateway_cannot_read_it() {
    let Some(binary) = env::var_os("ENVOY_BIN") else { return };
    let folder = env::temp_dir().join(format!("sluis-tls-in-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    certificates(&folder);
    let [gateway, plainly, variant] = std::array::from_fn(|_| spare_port());
    let bootstrap = bootstrap(&folder, gateway, [(plainly, MITM), (variant, &client_tls())]);
    let envoy = Envoy::start(Path::new(&binary), folder, &bootstrap);
    assert_eq!(envoy.ask(variant), "HTTP/1.1 200 OK");
    assert_eq!(envoy.ask(plainly), "SSLError WRONG_VERSION_NUMBER");
    // Access logs are written as Envoy ends, if not before.
    let log = ended(envoy);
    let refused = log.lines().find(|line| line.contains(" 400 "));
    assert!(refused.is_some_and(|line| line.contains("DPE http1.codec_error")), "{log}");
    // The sidecar sees a connection like any other.
    let carried = log.lines().find(|line| line.contains(&format!(" {MITM} ")));
    assert!(carried.is_some_and(|line| line.contains(" 0 - - - \"-\" ")), "{log}");
}

/// Ends an Envoy as its user would, and returns what it logged.
fn ended(mut envoy: Envoy) -> String {
    let pid = envoy.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    envoy.child.wait().unwrap();
    fs::read_to_string(envoy.folder.join("log")).unwrap()
}

fn client_tls() -> String {
    format!("{MITM}~client-tls")
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

/// A root, and a certificate of the gateway for the API's name.
fn certificates(folder: &Path) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A leaf of the same name would look as if it had signed itself.
    root.distinguished_name.push(DnType::CommonName, "root");
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    fs::write(folder.join("leaf.pem"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(folder.join("leaf.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("root.pem"), root_pem).unwrap();
}

fn bootstrap(folder: &Path, gateway: u16, sidecars: [(u16, &str); 2]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/article/expect.yaml");
    let golden: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut names = Vec::new();
    let mut listeners = vec![gateway_listener(&golden["gateway"], gateway)];
    let mut clusters = Vec::new();
    for (port, name) in sidecars {
        listeners.push(sidecar_listener(&golden["sidecar that is a real Envoy"], port, name));
        clusters.push(cluster(&golden["sidecar that is a real Envoy"], name, gateway));
    }
    let mut resources = json!({ "listeners": listeners, "clusters": clusters });
    without_sds(&mut resources, &mut names);
    names.sort();
    names.dedup();
    let file = |name: &str| json!({ "filename": folder.join(name) });
    let secret = |name: &String| {
        if name.starts_with("file-root:") {
            json!({ "name": name, "validation_context": { "trusted_ca": file("root.pem") } })
        } else {
            json!({ "name": name, "tls_certificate":
                { "certificate_chain": file("leaf.pem"), "private_key": file("leaf.key") } })
        }
    };
    resources["secrets"] = names.iter().map(secret).collect();
    json!({ "static_resources": resources })
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    list.as_array().unwrap().iter().find(|one| one["name"] == name).expect("the golden has it")
}

/// The gateway's listener, in front of an API that answers at once.
fn gateway_listener(golden: &Value, port: u16) -> Value {
    let mut listener = golden["listeners"][0].clone();
    listener["address"] = address(port);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let filters = manager["http_filters"].as_array_mut().unwrap();
    filters.retain(|filter| filter["name"] == "envoy.filters.http.router");
    manager.as_object_mut().unwrap().remove("rds");
    manager["route_config"] = json!({ "virtual_hosts": [{ "name": "api", "domains": ["*"],
        "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }] }] });
    listener
}

/// A sidecar's way to one cluster, with the log of the listener that the golden has for it.
fn sidecar_listener(golden: &Value, port: u16, cluster: &str) -> Value {
    let listeners = golden["listeners"].as_array().unwrap();
    let filters = listeners.iter().flat_map(|listener| listener["filter_chains"].as_array());
    let filters = filters.flatten().map(|chain| &chain["filters"][0]);
    let of_article = |filter: &&Value| filter["typed_config"]["cluster"] == client_tls();
    let mut filter = filters.into_iter().find(of_article).expect("the golden has it").clone();
    filter["typed_config"]["cluster"] = cluster.into();
    json!({ "name": cluster, "address": address(port), "filter_chains": [{ "filters": [filter] }] })
}

/// A cluster as it is, but for where its endpoint is.
fn cluster(golden: &Value, name: &str, port: u16) -> Value {
    let mut cluster = named(&golden["clusters"], name).clone();
    cluster.as_object_mut().unwrap().remove("eds_cluster_config");
    cluster["type"] = "STATIC".into();
    cluster["load_assignment"] = json!({ "cluster_name": name, "endpoints":
        [{ "lb_endpoints": [{ "endpoint": { "address": address(port) } }] }] });
    cluster
}

/// Turns secrets that a server would send into static ones, and notes their names.
fn without_sds(value: &mut Value, names: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| without_sds(item, names)),
        Value::Object(fields) => {
            if fields.remove("sds_config").is_some() {
                names.push(fields["name"].as_str().unwrap().to_owned());
            }
            fields.values_mut().for_each(|field| without_sds(field, names));
        }
        _ => {}
    }
}
