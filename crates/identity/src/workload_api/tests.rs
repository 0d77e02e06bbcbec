//! The Workload API over its socket: who is answered, and that rotation is followed.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair as SigningKey, SanType};
use sluis_tls::{Clock, KeyPair, Roots};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};
use tonic::{Code, Streaming, client::Grpc as Client, transport::Endpoint};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const ID: &str = "spiffe://cluster.local/ns/team-a/sa/notebook";

struct Running {
    dir: TempDir,
    store: SecretStore,
    _stop: oneshot::Sender<()>,
}

impl Running {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let store = SecretStore::new(Clock::system(), None);
        let path = dir.path().join("workload.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let api = WorkloadApi::new(store.clone());
        let (at, ready) = (path.clone(), oneshot::channel::<()>());
        tokio::spawn(async move {
            drop(ready.0);
            api.serve(&at, async { drop(stopped.await) }).await.unwrap();
        });
        let _ = ready.1.await;
        Self { dir, store, _stop: stop }
    }

    fn rotate(&self) -> Vec<u8> {
        let root_key = SigningKey::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let issuer = Issuer::new(root, root_key);
        let key = SigningKey::generate().unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let pair =
            KeyPair::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        self.store.set_identity(pair, Roots::from_pem(root_pem.as_bytes()).unwrap());
        leaf.der().to_vec()
    }

    async fn call<M: Message + Default + 'static>(
        &self,
        call: &'static str,
        guard: Option<&'static str>,
    ) -> Result<Streaming<M>, Status> {
        let path = self.dir.path().join("workload.sock");
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move {
                // The server may be about to bind.
                loop {
                    match UnixStream::connect(&path).await {
                        Ok(stream) => return Ok::<_, io::Error>(TokioIo::new(stream)),
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            }
        });
        let channel =
            Endpoint::from_static("http://workload").connect_with_connector_lazy(connector);
        let mut client = Client::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(Empty {});
        if let Some(value) = guard {
            request.metadata_mut().insert(GUARD, value.parse().unwrap());
        }
        let path = http::uri::PathAndQuery::from_static(call);
        let answer = timeout(
            DEADLINE,
            client.server_streaming(request, path, ProstCodec::<Empty, M>::default()),
        );
        Ok(answer.await.expect("in time")?.into_inner())
    }
}

const SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";

async fn next<M: Message + Default + 'static>(stream: &mut Streaming<M>) -> M {
    timeout(DEADLINE, stream.message()).await.expect("in time").unwrap().expect("not the end")
}

#[tokio::test]
async fn a_program_gets_its_workloads_certificate_and_each_renewal() {
    let api = Running::start().await;
    let mut stream = api.call::<X509Svids>(SVID, Some("true")).await.unwrap();
    for _ in 0..3 {
        let leaf = api.rotate();
        let answer = loop {
            // Roots and certificate change one after the other: the last word counts.
            let answer = next(&mut stream).await;
            if answer.svids[0].x509_svid == leaf {
                break answer;
            }
        };
        assert_eq!(answer.svids.len(), 1);
        assert_eq!(answer.svids[0].spiffe_id, ID);
        assert!(!answer.svids[0].x509_svid_key.is_empty() && !answer.svids[0].bundle.is_empty());
        assert!(!format!("{answer:?}").contains("key"));
    }
    let mut bundles = api.call::<X509Bundles>(BUNDLES, Some("true")).await.unwrap();
    let answer = next(&mut bundles).await;
    assert_eq!(answer.bundles.keys().collect::<Vec<_>>(), ["spiffe://cluster.local"]);
}

#[tokio::test]
async fn a_call_without_the_header_is_refused() {
    let api = Running::start().await;
    api.rotate();
    for guard in [None, Some("false"), Some("TRUE"), Some("")] {
        let refused = api.call::<X509Svids>(SVID, guard).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{guard:?}");
    }
}

#[tokio::test]
async fn jwt_svids_are_refused_by_name() {
    let api = Running::start().await;
    for call in [
        "/SpiffeWorkloadAPI/FetchJWTSVID",
        "/SpiffeWorkloadAPI/FetchJWTBundles",
        "/SpiffeWorkloadAPI/ValidateJWTSVID",
        "/SpiffeWorkloadAPI/Other",
    ] {
        let refused = api.call::<X509Svids>(call, Some("true")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{call}");
    }
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let api = Running::start().await;
    api.rotate();
    let mut stream = api.call::<X509Svids>(SVID, Some("true")).await.unwrap();
    next(&mut stream).await;
    let mode = std::fs::metadata(api.dir.path().join("workload.sock")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}
