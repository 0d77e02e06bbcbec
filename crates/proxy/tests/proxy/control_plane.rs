//! A control plane for one proxy: ADS over mutual TLS, with the set that the test gives.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use envoy_types::pb::envoy::config::core::v3::Node;
use serde_json::{Value, json};
use sluis_envoy::{EncodedSet, Kind, ResourceSet};
use sluis_rules::{DownstreamTls, SecretName, TlsVersions, Validation};
use sluis_tls::{Clock, SecretStore, ServerTls};
use sluis_xds::{Connection, Directory, Peer, ProxyKey, Refusal, Report, Server};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{harness::soon, pki::Pki};

/// The name by which proxies know the control plane.
const NAME: &str = "istiod.istio-system.svc";

/// A control plane.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    sets: watch::Sender<Arc<EncodedSet>>,
    reports: Mutex<mpsc::UnboundedReceiver<(Kind, Report)>>,
    client: String,
    roots: String,
    _task: JoinSet<()>,
}

struct OneSet {
    sets: watch::Receiver<Arc<EncodedSet>>,
    reports: mpsc::UnboundedSender<(Kind, Report)>,
}

impl Directory for OneSet {
    fn connect(&self, _peer: &Peer, _node: &Node) -> Result<Connection, Refusal> {
        Ok(Connection { key: ProxyKey(1), sets: self.sets.clone() })
    }

    fn report(&self, _key: ProxyKey, reports: Vec<(Kind, Report)>) {
        for report in reports {
            self.reports.send(report).ok();
        }
    }

    fn disconnect(&self, _key: ProxyKey) {}
}

impl ControlPlane {
    /// Starts one that holds this set.
    pub(crate) async fn start(pki: &Pki, set: &ResourceSet) -> Self {
        let store = SecretStore::new(Clock::system(), None);
        let settings = DownstreamTls {
            certificates: vec![SecretName::new(&pki.secret(NAME))],
            validation: Some(Validation {
                roots: SecretName::new(&pki.roots_secret()),
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
        let tls = ServerTls::new(&settings, &store).unwrap().config();
        let (sets, receiver) = watch::channel(Arc::new(set.encode()));
        let (sender, reports) = mpsc::unbounded_channel();
        let directory = Arc::new(OneSet { sets: receiver, reports: sender });
        let server = Server::new(Arc::new(move || Arc::clone(&tls)), directory);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            server.serve(listener, std::future::pending()).await.unwrap();
        });
        let client = pki.secret("spiffe://cluster.local/ns/egress/sa/gateway");
        let (roots, reports) = (pki.roots_secret(), Mutex::new(reports));
        Self { address, sets, reports, client, roots, _task: task }
    }

    /// Changes the set.
    pub(crate) fn push(&self, set: &ResourceSet) {
        self.sets.send_replace(Arc::new(set.encode()));
    }

    /// Waits for the next answer to a push of this kind: `Ok` or the reason of the refusal.
    #[expect(clippy::await_holding_lock, reason = "one test thread asks")]
    pub(crate) async fn answer(&self, wanted: Kind) -> Result<(), String> {
        let mut reports = self.reports.lock().unwrap();
        soon("answer", async {
            loop {
                match reports.recv().await.unwrap() {
                    (kind, Report::Ack { .. }) if kind == wanted => return Ok(()),
                    (kind, Report::Nack { detail, .. }) if kind == wanted => return Err(detail),
                    _ => {}
                }
            }
        })
        .await
    }

    /// A bootstrap for a proxy of this control plane.
    pub(crate) fn bootstrap(&self) -> Value {
        let sds = json!({"ads": {}, "resource_api_version": "V3"});
        let mut cluster = crate::harness::cluster("xds-grpc", &[self.address]);
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": NAME,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [{"name": self.client, "sds_config": sds}],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": NAME}},
                        ]},
                        "validation_context_sds_secret_config": {"name": self.roots, "sds_config": sds},
                    },
                },
            },
        });
        json!({
            "node": {"id": "router~127.0.0.1~gateway.egress~egress.svc.cluster.local"},
            "dynamic_resources": {
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [cluster]},
        })
    }
}
