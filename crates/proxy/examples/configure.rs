//! A control plane whose sets come from files: `configure PORT FOLDER`, for the bench's swaps.
//!
//! In:    a folder with server.pem, server.key and ca.pem; on standard input, paths of files, a line
//!        each: `{"clusters": […], "routes": […], "listeners": […]}` in protobuf's JSON.
//! Out:   ADS over mutual TLS for one proxy; a line when it serves, and one for each set that the
//!        proxy has taken: how many microseconds after the file was read.
//! Never: gives another set before the one under way is answered.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{
    env,
    error::Error,
    fs, io,
    sync::Arc,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::config::core::v3::Node;
use serde_json::Value;
use sluis_envoy::{EncodedSet, Kind, ResourceSet};
use sluis_rules::{DownstreamTls, SecretName, TlsVersions, Validation};
use sluis_tls::{Clock, SecretStore, ServerTls};
use sluis_xds::{Connection, Directory, Peer, ProxyKey, Refusal, Report, Server};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};

type Failure = Box<dyn Error + Send + Sync>;

/// Longest that a proxy may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

struct OneSet {
    sets: watch::Receiver<Arc<EncodedSet>>,
    reports: mpsc::UnboundedSender<(Kind, Report)>,
}

impl Directory for OneSet {
    fn connect(&self, _: &Peer, _: &Node) -> Result<Connection, Refusal> {
        Ok(Connection { key: ProxyKey(1), sets: self.sets.clone() })
    }

    fn report(&self, _: ProxyKey, reports: Vec<(Kind, Report)>) {
        for report in reports {
            self.reports.send(report).ok();
        }
    }

    fn disconnect(&self, _: ProxyKey) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [port, folder] = arguments.as_slice() else {
        return Err("configure PORT FOLDER".into());
    };
    let (sets, receiver) = watch::channel(Arc::new(ResourceSet::default().encode()));
    let (sender, mut reports) = mpsc::unbounded_channel();
    let tls = tls(folder)?;
    let directory = Arc::new(OneSet { sets: receiver, reports: sender });
    let server = Server::new(Arc::new(move || Arc::clone(&tls)), directory);
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    println!("serving");
    loop {
        let line = tokio::task::spawn_blocking(|| io::stdin().lines().next().transpose()).await??;
        let Some(line) = line else { return Ok(()) };
        let (set, last) = read(&line)?;
        let begin = Instant::now();
        sets.send_replace(Arc::new(set.encode()));
        loop {
            let report = timeout(ANSWER_WITHIN, reports.recv()).await?.ok_or("nobody asks")?;
            match report {
                (kind, Report::Ack { .. }) if kind == last => break,
                (kind, Report::Nack { detail, .. }) => {
                    return Err(format!("{kind:?} was refused: {detail}").into());
                }
                _ => {}
            }
        }
        println!("{}", begin.elapsed().as_micros());
    }
}

fn tls(folder: &str) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let store = SecretStore::new(Clock::system(), None);
    let settings = DownstreamTls {
        certificates: vec![SecretName::new(&format!(
            "file-cert:{folder}/server.pem~{folder}/server.key"
        ))],
        validation: Some(Validation {
            roots: SecretName::new(&format!("file-root:{folder}/ca.pem")),
            sans: Vec::new(),
            certificate_hashes: Vec::new(),
            spki_hashes: Vec::new(),
            crl: None,
            crl_leaf_only: false,
        }),
        require_client_certificate: true,
        require_sni: false,
        alpn: vec!["h2".into()],
        versions: TlsVersions::default(),
    };
    Ok(ServerTls::new(&settings, &store)?.config())
}

/// The set of a file, and the kind whose answer comes last.
fn read(path: &str) -> Result<(ResourceSet, Kind), Failure> {
    let mut json: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let mut set = ResourceSet::default();
    for (field, kind) in
        [("clusters", Kind::Cluster), ("listeners", Kind::Listener), ("routes", Kind::Route)]
    {
        for resource in json[field].take().as_array().unwrap_or(&Vec::new()) {
            set.insert(kind, &sluis_protojson::from_json(kind.type_url(), resource)?)?;
        }
    }
    let last = if set.routes.is_empty() { Kind::Listener } else { Kind::Route };
    Ok((set, last))
}
