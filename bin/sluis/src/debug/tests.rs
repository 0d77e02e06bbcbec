//! The debug port over loopback, beside a control plane that one proxy is connected to.

use std::{collections::HashMap, future::pending};

use envoy_types::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, Value as ProtoValue, value::Kind as ValueKind},
};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use sluis_ca::{AuthorityConfig, JoinTokens};
use sluis_envoy::Kind;
use sluis_model::Batch;
use sluis_nouns::TrustDomain;
use sluis_tls::Clock;
use sluis_xds::{Directory, Peer, Report};
use tokio::net::TcpStream;

use super::*;

const MESH: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
";

const TOKEN: &str = "a-token-of-the-state-directory";
const NODE: &str = "sidecar~127.0.0.1~web.shop~shop.svc.cluster.local";

async fn get_text(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    get_with(address, path, TOKEN).await
}

async fn get_with(address: std::net::SocketAddr, path: &str, token: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "debug")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_page_answers_under_istios_path() {
    let state = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let authority =
        Authority::open(&state.path().join("ca"), AuthorityConfig::default(), clock.clone())
            .unwrap();
    let authority = Arc::new(authority);
    let desk = Desk::new(Arc::clone(&authority), Arc::new(JoinTokens::new(clock)));
    let control = Control::new(TrustDomain::default());
    let (began, token) = (Instant::now(), TOKEN.to_owned());
    let (custody, _) = Custody::new();
    let desk = Arc::new(desk);
    let debug = Debug { control: control.clone(), authority, desk, custody, began, token };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(debug, listener, pending()));

    assert_eq!(get_text(address, "/ready").await.0, 503);
    let parsed = sluis_resources::parse("mesh.yaml", MESH);
    control.apply(Batch { upserts: parsed.resources, removals: Vec::new() });
    assert_eq!(get_text(address, "/ready").await.0, 200);
    assert_eq!(get_text(address, "/version").await.1, env!("CARGO_PKG_VERSION"));

    let version = ProtoValue { kind: Some(ValueKind::StringValue("1.27.0".to_owned())) };
    let fields = HashMap::from([("ISTIO_VERSION".to_owned(), version)]);
    let node = Node { id: NODE.to_owned(), metadata: Some(Struct { fields }), ..Node::default() };
    let connection = control.connect(&Peer::Local, &node).unwrap();
    let version = || "v1".to_owned();
    let sent = (Kind::Cluster, Report::Sent { version: version() });
    control.report(connection.key, vec![sent, (Kind::Cluster, Report::Ack { version: version() })]);

    let json = async |path: &str| -> Value {
        let (status, text) = get_text(address, path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    let syncz = json("/debug/syncz").await;
    assert_eq!(syncz[0]["proxy"], "web.shop");
    assert_eq!(syncz[0]["istio_version"], "1.27.0");
    assert_eq!(
        (&syncz[0]["cluster_sent"], &syncz[0]["cluster_acked"]),
        (&"v1".into(), &"v1".into())
    );
    assert_eq!(json("/debug/adsz").await["totalClients"], 1);
    for id in ["web.shop", NODE] {
        let dump = json(&format!("/debug/config_dump?proxyID={id}")).await;
        let names: Vec<&str> = dump["configs"][0]["dynamic_active_clusters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["cluster"]["name"].as_str())
            .collect();
        assert!(names.contains(&"outbound|80||api.example.com"), "{names:?}");
    }
    assert_eq!(get_text(address, "/debug/config_dump?proxyID=db.shop").await.0, 404);
    assert_eq!(get_text(address, "/debug/config_dump").await.0, 400);
    assert_eq!(json("/debug/registryz").await[0]["hostname"], "api.example.com");
    assert_eq!(json("/debug/endpointz").await[0]["ep"][0]["Addresses"][0], "10.0.0.1");
    assert!(json("/debug/endpointz?proxyID=web.shop").await.is_array());
    assert_eq!(json("/debug/configz").await[0]["kind"], "ServiceEntry");
    for token in ["", "x", "a-token-of-the-state-directorx"] {
        for page in ["syncz", "adsz", "config_dump?proxyID=web.shop", "endpointz", "configz"] {
            let (status, text) = get_with(address, &format!("/debug/{page}"), token).await;
            assert_eq!(status, 401, "{page}: {text}");
            assert!(!text.contains("example.com"), "{text}");
        }
        assert_eq!(get_with(address, "/ready", token).await.0, 200);
    }
    let (_, text) = get_with(address, "/metrics", "").await;
    for line in ["pilot_xds 1", "pilot_services 1", "citadel_server_csr_count 0"] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
