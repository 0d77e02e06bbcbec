//! Our client against our server.

use std::{collections::BTreeSet, convert::Infallible, future::pending};

use envoy_types::pb::envoy::{
    extensions::transport_sockets::tls::v3::Secret,
    service::discovery::v3::{
        DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use http::Request;
use hyper_util::rt::TokioIo;
use sluis_tls::PeerIdentity;
use tokio_stream::StreamExt as _;
use tonic::{body::Body, server::NamedService};
use tower::service_fn;

use super::*;
use crate::{Client, ClientConfig, ClientHandle, Delivery};

/// Starts a client and returns the proxy's ends of it.
fn client(pki: &Pki, id: Option<&str>, address: SocketAddr) -> (ClientHandle, JoinHandle<()>) {
    let (client, handle) = Client::new(ClientConfig {
        endpoint: address.to_string(),
        tls: pki.client_tls(id),
        node: node(),
        jitter: Box::new(|| 1.0),
    });
    (handle, tokio::spawn(client.run(pending())))
}

async fn next(handle: &mut ClientHandle) -> Delivery {
    timeout(DEADLINE, handle.deliveries.recv()).await.expect("an update in time").unwrap()
}

/// Takes the next update, accepts it, and returns its kind, the number of its resources, and the
/// names of what is gone.
async fn accept(handle: &mut ClientHandle) -> (Kind, usize, Vec<String>) {
    let delivery = next(handle).await;
    let update = delivery.update.clone();
    delivery.accept();
    (update.kind, update.upserts.len(), update.removed)
}

#[tokio::test]
async fn a_proxy_gets_what_it_should_hold_and_every_change() {
    let (pki, world) = (Pki::new(), World::with(&resources(&["a", "b"], &["l"])));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    let (mut proxy, task) = client(&pki, Some(KNOWN), server.address);
    assert_eq!(accept(&mut proxy).await, (Kind::Cluster, 2, vec![]));
    assert_eq!(accept(&mut proxy).await, (Kind::Listener, 1, vec![]));
    world.acked(Kind::Cluster).await;
    world.acked(Kind::Listener).await;
    assert!(*proxy.connected.borrow());

    world.push(&resources(&["a", "c"], &["l"]));
    let (kind, upserts, removed) = accept(&mut proxy).await;
    assert_eq!((kind, upserts), (Kind::Cluster, 1));
    assert_eq!(removed, ["b"]);

    proxy.subscriptions.set(Kind::Route, BTreeSet::from(["unknown".to_owned()]));
    assert_eq!(accept(&mut proxy).await, (Kind::Route, 0, vec!["unknown".to_owned()]));

    task.abort();
    let mut open = world.open.subscribe();
    timeout(DEADLINE, open.wait_for(|open| *open == 0)).await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn what_a_proxy_asks_for_in_vain_is_told_once_and_what_it_is_given_is_not() {
    let (pki, world) = (Pki::new(), World::with(&resources(&["a"], &["l"])));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    let (mut proxy, _task) = client(&pki, Some(KNOWN), server.address);
    accept(&mut proxy).await;
    accept(&mut proxy).await;
    let theirs =
        |name: &str| BTreeSet::from(["kubernetes://egress/pair".to_owned(), name.to_owned()]);
    for name in ["kubernetes://first", "kubernetes://second"] {
        proxy.subscriptions.set(Kind::Secret, theirs(name));
        let mut absent = world.absent.subscribe();
        let is_told = |all: &Vec<(Kind, String)>| all.iter().any(|(_, found)| found == name);
        timeout(DEADLINE, absent.wait_for(is_told)).await.expect("in time").unwrap();
        // The client asks for no more before this answer is taken.
        assert_eq!(accept(&mut proxy).await.0, Kind::Secret);
    }
    let mut told = world.absent.borrow().clone();
    told.sort();
    let names: Vec<&str> = told.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["kubernetes://egress/pair", "kubernetes://first", "kubernetes://second"]);
    assert!(told.iter().all(|(kind, _)| *kind == Kind::Secret));
}

/// A credential has a version before for a while only: to ask for it is no theft, unless the credential
/// is not given either.
#[tokio::test]
async fn who_is_given_a_credential_may_ask_for_the_version_before() {
    let name = "credential://egress/api".to_owned();
    let given = Secret { name: name.clone(), ..Secret::default() };
    let mut set = resources(&["a"], &["l"]);
    set.secrets.insert(name, Arc::new(given));
    let (pki, world) = (Pki::new(), World::with(&set));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    let (mut proxy, _task) = client(&pki, Some(KNOWN), server.address);
    accept(&mut proxy).await;
    accept(&mut proxy).await;
    let names = [
        "credential://egress/api",
        "credential://egress/api#previous",
        "credential://other/api#previous",
    ];
    proxy.subscriptions.set(Kind::Secret, names.map(str::to_owned).into());
    let mut absent = world.absent.subscribe();
    let told = timeout(DEADLINE, absent.wait_for(|all| !all.is_empty())).await;
    let told = told.expect("in time").unwrap().clone();
    assert_eq!(told, [(Kind::Secret, "credential://other/api#previous".to_owned())]);
}

#[tokio::test]
async fn a_rejected_update_is_reported_with_its_detail_and_the_next_change_is_sent() {
    let (pki, world) = (Pki::new(), World::with(&resources(&["a"], &[])));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    let (mut proxy, _task) = client(&pki, Some(KNOWN), server.address);
    next(&mut proxy).await.reject("cluster a: no such thing");
    let report =
        world.reported(Kind::Cluster, |report| matches!(report, Report::Nack { .. })).await;
    let Report::Nack { detail, .. } = report else { unreachable!() };
    assert_eq!(detail, "cluster a: no such thing");
    assert_eq!(accept(&mut proxy).await.0, Kind::Listener);
    world.push(&resources(&["b"], &[]));
    let (kind, upserts, _) = accept(&mut proxy).await;
    assert_eq!((kind, upserts), (Kind::Cluster, 1));
    world.acked(Kind::Cluster).await;
}

#[tokio::test]
async fn after_a_restart_of_the_control_plane_only_changes_are_sent() {
    let (pki, world) = (Pki::new(), World::with(&resources(&["a", "b"], &["l"])));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    let address = server.address;
    let (mut proxy, _task) = client(&pki, Some(KNOWN), address);
    accept(&mut proxy).await;
    accept(&mut proxy).await;
    world.acked(Kind::Listener).await;
    server.stop().await;

    let world = World::with(&resources(&["a", "b", "c"], &["l"]));
    let _server = Running::start(&pki, &world, &address.to_string()).await;
    assert_eq!(accept(&mut proxy).await, (Kind::Cluster, 1, vec![]));
    assert_eq!(accept(&mut proxy).await, (Kind::Listener, 0, vec![]));
    world.acked(Kind::Listener).await;
}

#[tokio::test]
async fn a_proxy_without_a_certificate_or_unknown_to_the_directory_gets_nothing() {
    let (pki, world) = (Pki::new(), World::with(&resources(&["a"], &[])));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    for id in [None, Some("spiffe://cluster.local/ns/shop/sa/other")] {
        let status = raw_stream(&pki, id, server.address).await.unwrap_err();
        let expected = match id {
            None => tonic::Code::Unauthenticated,
            Some(_) => tonic::Code::PermissionDenied,
        };
        assert_eq!(status.code(), expected, "{id:?}");
    }
}

#[tokio::test]
async fn without_tls_only_this_machine_is_served() {
    let world = World::with(&resources(&["a"], &[]));
    let everywhere = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let server = Server::plaintext(Arc::clone(&world) as Arc<dyn Directory>);
    let refused = server.serve(everywhere, pending()).await.unwrap_err();
    assert!(refused.to_string().contains("not a loopback address"), "{refused}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Running::serve(listener, Server::plaintext(world));
    let endpoint = format!("http://{}", server.address);
    let mut client = AggregatedDiscoveryServiceClient::connect(endpoint).await.unwrap();
    let unknown = DiscoveryRequest {
        node: Some(node()),
        type_url: "type.googleapis.com/unknown.Type".to_owned(),
        ..DiscoveryRequest::default()
    };
    let clusters = DiscoveryRequest {
        type_url: Kind::Cluster.type_url().to_owned(),
        ..DiscoveryRequest::default()
    };
    let requests = tokio_stream::iter([unknown, clusters]).chain(tokio_stream::pending());
    let mut stream = client.stream_aggregated_resources(requests).await.unwrap().into_inner();
    let response = timeout(DEADLINE, stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(response.type_url, Kind::Cluster.type_url());
}

#[tokio::test]
async fn the_stream_of_a_proxy_that_is_no_longer_served_ends() {
    let (pki, world) = (Pki::new(), World::with(&resources(&["a"], &[])));
    let server = Running::start(&pki, &world, "127.0.0.1:0").await;
    let mut stream = raw_stream(&pki, Some(KNOWN), server.address).await.unwrap();
    assert!(timeout(DEADLINE, stream.message()).await.unwrap().unwrap().is_some());
    let stopping = tokio::spawn(server.stop());
    let status = timeout(DEADLINE, stream.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    stopping.await.unwrap();
}

#[tokio::test]
async fn another_service_on_the_port_learns_who_calls() {
    #[derive(Clone)]
    struct Named<S>(S);
    impl<S> NamedService for Named<S> {
        const NAME: &'static str = "test.WhoAmI";
    }
    impl<S: tower::Service<Request<Body>>> tower::Service<Request<Body>> for Named<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;
        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }
        fn call(&mut self, request: Request<Body>) -> S::Future {
            self.0.call(request)
        }
    }
    let who = Named(service_fn(async |request: Request<Body>| {
        let peer = request.extensions().get::<PeerIdentity>().unwrap();
        let name = peer.id.as_ref().map_or("nobody".to_owned(), ToString::to_string);
        let response = http::Response::builder().header("grpc-status", "0").header("peer", name);
        Ok::<_, Infallible>(response.body(Body::empty()).unwrap())
    }));
    let (pki, world) = (Pki::new(), World::with(&resources(&[], &[])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::new(pki.server_tls(), world).with(who);
    let server = Running::serve(listener, server);
    for (id, expected) in [(None, "nobody"), (Some(KNOWN), KNOWN)] {
        let mut channel = channel(&pki, id, server.address).await;
        let request = Request::builder()
            .method("POST")
            .uri("http://istiod.istio-system.svc/test.WhoAmI/Ask")
            .body(Body::empty())
            .unwrap();
        tower::ServiceExt::ready(&mut channel).await.unwrap();
        let response = tower::Service::call(&mut channel, request).await.unwrap();
        assert_eq!(response.headers()["peer"], expected);
    }
}

async fn channel(pki: &Pki, id: Option<&str>, address: SocketAddr) -> tonic::transport::Channel {
    let mut tls = (pki.client_tls(id))().unwrap();
    Arc::make_mut(&mut tls).alpn_protocols = vec![b"h2".to_vec()];
    let connector = service_fn(move |_: http::Uri| {
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
        async move {
            let tcp = tokio::net::TcpStream::connect(address).await?;
            let name = crate::CONTROL_PLANE_NAME.try_into().unwrap();
            tls.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://istiod.istio-system.svc");
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// A stream of the state-of-the-world form that asks for clusters.
async fn raw_stream(
    pki: &Pki,
    id: Option<&str>,
    address: SocketAddr,
) -> Result<tonic::Streaming<DiscoveryResponse>, tonic::Status> {
    let request = DiscoveryRequest {
        node: Some(node()),
        type_url: Kind::Cluster.type_url().to_owned(),
        ..DiscoveryRequest::default()
    };
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    let mut client = AggregatedDiscoveryServiceClient::new(channel(pki, id, address).await);
    Ok(client.stream_aggregated_resources(requests).await?.into_inner())
}
