//! Secrets over the socket, to a client of the generated kind and to a real Envoy.

mod envoy;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret as EnvoySecret, secret::Type},
        service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    google::rpc,
};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa,
    KeyPair as SigningKey, SanType,
};
use sluis_envoy::unpack;
use sluis_tls::{Clock, KeyPair, MESH_ROOTS, Roots, WORKLOAD_CERTIFICATE};
use tempfile::TempDir;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const NOTEBOOK: &str = "spiffe://cluster.local/ns/team-a/sa/notebook";

pub(super) struct Pki(CertifiedIssuer<'static, SigningKey>);

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, SigningKey::generate().unwrap()).unwrap())
    }

    pub(super) fn pems(&self) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(NOTEBOOK.try_into().unwrap())];
        let key = SigningKey::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(super) fn give(&self, store: &SecretStore) {
        let (chain, key) = self.pems();
        let pair = KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        store.set_identity(pair, Roots::from_pem(self.0.pem().as_bytes()).unwrap());
    }
}

/// A server on a socket of its own.
pub(super) struct Served {
    dir: TempDir,
    store: SecretStore,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), SdsError>>,
}

impl Served {
    pub(super) async fn start(store: SecretStore) -> Self {
        let dir = TempDir::new().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let path = dir.path().join("sds");
        let server = SdsServer::new(store.clone());
        let at = path.clone();
        let task =
            tokio::spawn(async move { server.serve(&at, async { drop(stopped.await) }).await });
        timeout(DEADLINE, async {
            while UnixStream::connect(&path).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the socket opens");
        Self { dir, store, stop: Some(stop), task }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("sds")
    }

    fn client(&self) -> SecretDiscoveryServiceClient<Channel> {
        let path = self.path();
        let connect = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let channel = Endpoint::from_static("http://sds").connect_with_connector_lazy(connect);
        SecretDiscoveryServiceClient::new(channel)
    }

    /// A state-of-the-world stream that has asked for these names.
    async fn stream(
        &self,
        names: &[&str],
    ) -> (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>) {
        let (sender, requests) = mpsc::channel(4);
        sender.send(request(names)).await.unwrap();
        let answers = self.client().stream_secrets(ReceiverStream::new(requests)).await.unwrap();
        (sender, answers.into_inner())
    }
}

fn store() -> SecretStore {
    SecretStore::new(Clock::system(), None)
}

fn request(names: &[&str]) -> DiscoveryRequest {
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    DiscoveryRequest { resource_names, ..DiscoveryRequest::default() }
}

async fn next<T>(answers: &mut Streaming<T>) -> T {
    timeout(DEADLINE, answers.message()).await.expect("in time").unwrap().expect("no end")
}

/// The names of an answer.
fn names(answer: &DiscoveryResponse) -> Vec<String> {
    let secrets = answer.resources.iter().map(|any| unpack::<EnvoySecret>(any).unwrap());
    secrets.map(|secret| secret.name).collect()
}

fn inline(source: Option<&DataSource>) -> String {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("not inline: {other:?}"),
    }
}

#[tokio::test]
async fn the_socket_is_for_its_user_only_replaces_a_stale_one_and_goes_with_the_server() {
    let mut served = Served::start(store()).await;
    let mode = fs::metadata(served.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (_sender, mut answers) = served.stream(&[WORKLOAD_CERTIFICATE]).await;
    served.stop.take().unwrap().send(()).unwrap();
    timeout(DEADLINE, &mut served.task).await.expect("in time").unwrap().unwrap();
    assert!(
        timeout(DEADLINE, answers.message())
            .await
            .expect("the stream ends")
            .is_ok_and(|m| m.is_none())
    );
    assert!(!served.path().exists());

    drop(std::os::unix::net::UnixListener::bind(served.path()).unwrap());
    let listener = bind(&served.path()).unwrap();
    assert!(UnixStream::connect(served.path()).await.is_ok());
    drop(listener);
}

#[tokio::test]
async fn a_secret_is_sent_when_it_has_a_value_and_again_when_that_changes() {
    let served = Served::start(store()).await;
    let (sender, mut answers) = served.stream(&[WORKLOAD_CERTIFICATE, MESH_ROOTS]).await;
    let pki = Pki::new();
    pki.give(&served.store);
    let mut first = names(&next(&mut answers).await);
    if first.len() == 1 {
        first.extend(names(&next(&mut answers).await));
    }
    first.sort();
    assert_eq!(first, [MESH_ROOTS, WORKLOAD_CERTIFICATE]);

    // The same roots again: only the certificate is new.
    pki.give(&served.store);
    let again = next(&mut answers).await;
    assert_eq!(names(&again), [WORKLOAD_CERTIFICATE]);
    let ack = DiscoveryRequest { response_nonce: again.nonce.clone(), ..request(&[MESH_ROOTS]) };
    sender.send(ack).await.unwrap();
    // No longer asked for, and a stale request changes nothing.
    let stale =
        DiscoveryRequest { response_nonce: "0".to_owned(), ..request(&[WORKLOAD_CERTIFICATE]) };
    sender.send(stale).await.unwrap();
    let fresh = DiscoveryRequest {
        response_nonce: again.nonce,
        ..request(&[MESH_ROOTS, WORKLOAD_CERTIFICATE])
    };
    sender.send(fresh).await.unwrap();
    assert_eq!(names(&next(&mut answers).await), [WORKLOAD_CERTIFICATE]);
}

#[tokio::test]
async fn a_refusal_is_not_answered_with_the_same_again() {
    let served = Served::start(store()).await;
    let pki = Pki::new();
    pki.give(&served.store);
    let (sender, mut answers) = served.stream(&[WORKLOAD_CERTIFICATE]).await;
    let first = next(&mut answers).await;
    let refusal = DiscoveryRequest {
        response_nonce: first.nonce,
        error_detail: Some(rpc::Status { message: "no".to_owned(), ..rpc::Status::default() }),
        ..request(&[WORKLOAD_CERTIFICATE])
    };
    sender.send(refusal).await.unwrap();
    pki.give(&served.store);
    let second = next(&mut answers).await;
    assert_eq!((second.nonce.as_str(), names(&second).len()), ("2", 1));
}

#[tokio::test]
async fn files_are_served_under_the_name_that_holds_their_paths() {
    let served = Served::start(store()).await;
    let (chain, key) = Pki::new().pems();
    let (cert, key_path) = (served.dir.path().join("c"), served.dir.path().join("k"));
    fs::write(&cert, &chain).unwrap();
    fs::write(&key_path, &key).unwrap();
    let name = format!("file-cert:{}~{}", cert.display(), key_path.display());
    let (_sender, mut answers) = served.stream(&[&name]).await;
    let secret: EnvoySecret = unpack(&next(&mut answers).await.resources[0]).unwrap();
    assert_eq!(secret.name, name);
    let Some(Type::TlsCertificate(pair)) = secret.r#type else { panic!("not a certificate") };
    assert_eq!(inline(pair.certificate_chain.as_ref()), chain);
    assert_eq!(inline(pair.private_key.as_ref()), key);
}

#[tokio::test]
async fn the_incremental_form_sends_what_the_client_does_not_have() {
    let served = Served::start(store()).await;
    Pki::new().give(&served.store);
    let roots = served.store.slot(MESH_ROOTS).unwrap().get().unwrap();
    let (sender, requests) = mpsc::channel(4);
    let both = vec![WORKLOAD_CERTIFICATE.to_owned(), MESH_ROOTS.to_owned()];
    let first = DeltaDiscoveryRequest {
        resource_names_subscribe: both,
        initial_resource_versions: [(MESH_ROOTS.to_owned(), roots.fingerprint().to_owned())].into(),
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(first).await.unwrap();
    let mut answers =
        served.client().delta_secrets(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let answer = next(&mut answers).await;
    let sent: Vec<_> = answer.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(sent, [WORKLOAD_CERTIFICATE]);

    let leave = DeltaDiscoveryRequest {
        response_nonce: answer.nonce,
        resource_names_unsubscribe: vec![WORKLOAD_CERTIFICATE.to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(leave).await.unwrap();
    // Both are sent anew when they are asked for anew and changed.
    Pki::new().give(&served.store);
    let answer = next(&mut answers).await;
    assert!(answer.resources.iter().any(|resource| resource.name == MESH_ROOTS));
}

#[tokio::test]
async fn other_types_and_malformed_names_are_refused_by_name() {
    let served = Served::start(store()).await;
    let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let wrong_type = DiscoveryRequest { type_url: listener.to_owned(), ..request(&["x"]) };
    for (request, named) in [(wrong_type, "Listener"), (request(&["file-cert:x"]), "file-cert:x")] {
        let refused = served.client().fetch_secrets(request).await.unwrap_err();
        assert!(refused.message().contains(named), "{refused}");
    }
    let absent = served.client().fetch_secrets(request(&["absent"])).await.unwrap_err();
    assert_eq!(absent.code(), tonic::Code::NotFound);
}
