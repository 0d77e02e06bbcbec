//! A workload's certificate over the wire: first by token, then by itself, for as long as it lives.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use envoy_types::pb::envoy::service::{
    discovery::v3::DiscoveryRequest,
    secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
};
use hyper_util::rt::TokioIo;
use sluis_identity::{Agent, CertificateService, Renewal, RenewalConfig, Status};
use sluis_nouns::WorkloadId;
use sluis_tls::{
    ClientTls, Clock, MESH_ROOTS, PeerIdentity, SecretStore, ServerTls, WORKLOAD_CERTIFICATE,
    peer_identity,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_stream::StreamExt as _;
use tonic::transport::{Endpoint, Server, server::Connected};

use crate::{Authority, AuthorityConfig, Desk, JoinTokens, ServerCertificate};

const NAME: &str = "istiod.istio-system.svc";
const DEADLINE: Duration = Duration::from_secs(30);

/// A control plane with nothing but its certificate service.
struct Plane {
    dir: TempDir,
    tokens: Arc<JoinTokens>,
    address: SocketAddr,
}

impl Plane {
    async fn start(lifetime_max: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        let config = AuthorityConfig { lifetime_max, ..AuthorityConfig::default() };
        let clock = Clock::system();
        let authority = Arc::new(Authority::open(dir.path(), config, clock.clone()).unwrap());
        let tokens = Arc::new(JoinTokens::new(clock.clone()));
        let store = SecretStore::new(clock, None);
        let own = ServerCertificate::new(authority.clone(), store.clone(), vec![NAME.to_owned()])
            .unwrap();
        tokio::spawn(own.run(std::future::pending()));
        let tls = ServerTls::grpc(&store).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener)
            .then(move |socket| accept(tls.clone(), socket))
            .filter(Result::is_ok);
        let service = CertificateService::new(Arc::new(Desk::new(authority, tokens.clone())));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { dir, tokens, address }
    }

    fn token(&self, id: &WorkloadId) -> PathBuf {
        let path = self.dir.path().join("token");
        let token = self.tokens.create(id.clone(), Duration::from_secs(60)).unwrap();
        fs::write(&path, token.reveal()).unwrap();
        path
    }

    fn renewal(&self, id: &WorkloadId, token: PathBuf, store: &SecretStore) -> Renewal {
        let config = RenewalConfig {
            id: id.clone(),
            ca_address: self.address.to_string(),
            ca_name: NAME.to_owned(),
            ca_roots: self.dir.path().join("root-cert.pem"),
            token,
            lifetime: None,
            key: sluis_identity::KeyKind::default(),
        };
        Renewal::new(config, store.clone())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("issued.jsonl")).unwrap()
    }
}

async fn accept(tls: ServerTls, socket: io::Result<TcpStream>) -> io::Result<Peer> {
    let stream = tls.accept(socket?).await?;
    let peer = stream.get_ref().1.peer_certificates().map(|chain| peer_identity(chain).unwrap());
    Ok(Peer { stream, peer })
}

struct Peer {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    peer: Option<PeerIdentity>,
}

impl Connected for Peer {
    type ConnectInfo = Option<PeerIdentity>;
    fn connect_info(&self) -> Option<PeerIdentity> {
        self.peer.clone()
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn id(account: &str) -> WorkloadId {
    format!("spiffe://cluster.local/ns/team-a/sa/{account}").parse().unwrap()
}

fn store() -> SecretStore {
    SecretStore::new(Clock::system(), None)
}

/// Waits for a state, within the deadline.
async fn until(
    status: &mut watch::Receiver<Status>,
    wanted: impl FnMut(&Status) -> bool,
) -> Status {
    timeout(DEADLINE, status.wait_for(wanted)).await.expect("in time").unwrap().clone()
}

#[tokio::test]
async fn a_token_opens_the_door_once_and_the_certificate_keeps_it_open() {
    let plane = Plane::start(Duration::from_secs(2)).await;
    let (store, id) = (store(), id("notebook"));
    let token = plane.token(&id);
    let renewal = plane.renewal(&id, token, &store);
    let mut status = renewal.status();
    tokio::spawn(renewal.run(std::future::pending()));

    let first = until(&mut status, |status| status.issued == 1).await;
    assert!(store.slot(MESH_ROOTS).unwrap().roots().is_some());

    // A connection between two workloads, open over all rotations.
    let server = ServerTls::grpc(&store).unwrap();
    let client = ClientTls::grpc(Some(WORKLOAD_CERTIFICATE), MESH_ROOTS, NAME, &store).unwrap();
    let (near, far) = tokio::io::duplex(64 << 10);
    // The workload's certificate has no such DNS name: the client must not take it.
    let (_, refused) = tokio::join!(server.accept(far), client.connect(near, None));
    assert!(refused.is_err());

    let third = until(&mut status, |status| status.issued >= 4).await;
    assert_eq!(third.last_error, None);
    let (old, new) = (first.certificate.unwrap(), third.certificate.unwrap());
    assert!(new.serial != old.serial && new.not_after > old.not_after);
    assert_eq!(
        store.slot(WORKLOAD_CERTIFICATE).unwrap().key_pair().unwrap().leaf().serial,
        new.serial
    );
    let log = plane.log();
    assert_eq!(log.matches(r#""proof":"token""#).count(), 1, "{log}");
    assert!(log.matches(r#""proof":"certificate""#).count() >= 3, "{log}");
    assert!(log.matches(r#""proof":"own""#).count() >= 2, "its own certificate too: {log}");
}

#[tokio::test]
async fn a_connection_outlives_the_certificates_with_which_it_began() {
    let plane = Plane::start(Duration::from_secs(2)).await;
    let (store, id) = (store(), id("notebook"));
    let renewal = plane.renewal(&id, plane.token(&id), &store);
    let mut status = renewal.status();
    tokio::spawn(renewal.run(std::future::pending()));
    until(&mut status, |status| status.issued == 1).await;

    let tls = ClientTls::grpc(
        Some(WORKLOAD_CERTIFICATE),
        &format!("file-root:{}/root-cert.pem", plane.dir.path().display()),
        NAME,
        &store,
    )
    .unwrap();
    let socket = TcpStream::connect(plane.address).await.unwrap();
    let mut stream = tls.connect(socket, None).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream.flush().await.unwrap();
    until(&mut status, |status| status.issued >= 4).await;

    // RFC 9113 §6.7: a ping is answered with its own eight bytes and the ACK flag.
    stream.write_all(b"\0\0\x08\x06\0\0\0\0\0eightbyt").await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = Vec::new();
    let wanted = b"\0\0\x08\x06\x01\0\0\0\0eightbyt";
    timeout(DEADLINE, async {
        while !heard.windows(wanted.len()).any(|part| part == wanted) {
            heard.push(stream.read_u8().await.unwrap());
        }
    })
    .await
    .expect("the ping is answered");
}

#[tokio::test]
async fn who_shows_nothing_or_a_used_token_gets_nothing_and_a_new_token_helps() {
    let plane = Plane::start(Duration::from_secs(60)).await;
    let (store, id) = (store(), id("notebook"));
    let token = plane.token(&id);
    plane.tokens.redeem(&fs::read_to_string(&token).unwrap()).unwrap();
    let renewal = plane.renewal(&id, token, &store);
    let mut status = renewal.status();
    tokio::spawn(renewal.run(std::future::pending()));
    let refused = until(&mut status, |status| status.last_error.is_some()).await;
    assert!(refused.last_error.unwrap().contains("unknown or used"));
    assert!(store.slot(WORKLOAD_CERTIFICATE).unwrap().get().is_none());

    plane.token(&id);
    let issued = until(&mut status, |status| status.issued == 1).await;
    assert_eq!(issued.last_error, None);
}

#[tokio::test]
async fn a_token_of_another_workload_does_not_make_us_that_workload() {
    let plane = Plane::start(Duration::from_secs(60)).await;
    let store = store();
    let renewal = plane.renewal(&id("notebook"), plane.token(&id("gateway")), &store);
    let mut status = renewal.status();
    tokio::spawn(renewal.run(std::future::pending()));
    let refused = until(&mut status, |status| status.last_error.is_some()).await;
    assert!(refused.last_error.unwrap().contains("sa/gateway"));
    assert!(store.slot(WORKLOAD_CERTIFICATE).unwrap().get().is_none());
}

#[tokio::test]
async fn an_authority_that_is_not_ours_hears_no_token() {
    let (plane, other) =
        (Plane::start(Duration::from_secs(60)).await, Plane::start(Duration::from_secs(60)).await);
    let (store, id) = (store(), id("notebook"));
    let token = plane.token(&id);
    copy_root(other.dir.path(), plane.dir.path());
    let renewal = plane.renewal(&id, token.clone(), &store);
    let mut status = renewal.status();
    tokio::spawn(renewal.run(std::future::pending()));
    let refused = until(&mut status, |status| status.last_error.is_some()).await;
    let error = refused.last_error.unwrap();
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert_eq!(plane.tokens.check(&fs::read_to_string(token).unwrap()), Ok(id));
}

fn copy_root(from: &Path, to: &Path) {
    fs::copy(from.join("root-cert.pem"), to.join("root-cert.pem")).unwrap();
}

#[tokio::test]
async fn an_agent_serves_what_it_was_issued_and_ends_when_told() {
    let plane = Plane::start(Duration::from_secs(60)).await;
    let (store, id) = (store(), id("notebook"));
    let renewal = plane.renewal(&id, plane.token(&id), &store);
    let socket = plane.dir.path().join("sds");
    let agent = Agent::new(renewal, store, socket.clone());
    let mut status = agent.status();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(agent.run(async { drop(stopped.await) }));
    until(&mut status, |status| status.issued == 1).await;

    let path = socket.clone();
    let channel = Endpoint::from_static("http://sds").connect_with_connector_lazy(
        tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        }),
    );
    let names = [WORKLOAD_CERTIFICATE, MESH_ROOTS].map(str::to_owned).to_vec();
    let request = DiscoveryRequest { resource_names: names, ..DiscoveryRequest::default() };
    let answer = SecretDiscoveryServiceClient::new(channel).fetch_secrets(request).await.unwrap();
    assert_eq!(answer.into_inner().resources.len(), 2);

    stop.send(()).unwrap();
    timeout(DEADLINE, task).await.expect("in time").unwrap().unwrap();
    assert!(!socket.exists());
}
