//! Keeps a proxy subscribed to its control plane: incremental ADS, for as long as it takes.
//!
//! In:    the control plane's address, the node, the TLS configuration of the moment, and which
//!        names the proxy wants.
//! Out:   one [`Delivery`] at a time, which the proxy accepts or rejects.
//! Never: forgets what was accepted: after a lost stream only what changed is sent again.
//!
//! Start at [`Client`].

mod backoff;
mod ledger;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::protobuf::Any,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use sluis_envoy::Kind;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tracing::{debug, info, warn};

use self::{backoff::Backoff, ledger::Ledger};

pub use self::backoff::Jitter;

/// The name in the control plane's certificate.
pub const CONTROL_PLANE_NAME: &str = "istiod.istio-system.svc";

/// Wait for a connection, name resolution and handshake included.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Wait for the response headers of the stream, which the server sends once it has let the proxy in.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(15);

/// Interval of HTTP/2 pings: a control plane that vanished is noticed within half a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Wait for the answer to a ping.
const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of one response. The largest is the first one of a kind; a mesh of ten thousand hosts
/// stays below this.
const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Requests that wait for the transport: for each kind a subscription and an answer.
const REQUESTS_QUEUED_MAX: usize = 2 * Kind::ALL.len();

/// Bytes of a rejection's detail; the rest is in the proxy's own log.
const DETAIL_BYTES_MAX: usize = 4096;

/// The TLS configuration for the next connection, with the proxy's certificate of the moment.
///
/// `None` while there is no certificate; the client then waits and asks again.
pub type ClientTlsSource = Arc<dyn Fn() -> Option<Arc<ClientConfig>> + Send + Sync>;

/// What a client needs to know.
pub struct Config {
    /// Host and port of the control plane, as `host:port`.
    pub endpoint: String,
    /// The TLS configuration for each connection.
    pub tls: ClientTlsSource,
    /// Who the proxy says it is. The certificate must agree.
    pub node: Node,
    /// Draws for the back-off.
    pub jitter: Jitter,
}

/// A change to what the proxy holds of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The kind of all of it.
    pub kind: Kind,
    /// New and changed resources.
    pub upserts: Vec<Any>,
    /// Names of resources that are gone, or that never were although asked for by name.
    pub removed: Vec<String>,
}

/// An update that waits for its answer.
///
/// Dropping it without an answer rejects it.
#[derive(Debug)]
pub struct Delivery {
    /// What changed.
    pub update: Update,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Delivery {
    /// The proxy has taken the update in.
    pub fn accept(self) {
        // A client that has gone meanwhile needs no answer.
        drop(self.answer.send(Ok(())));
    }

    /// The proxy keeps what it had; `detail` says why, and reaches the control plane.
    pub fn reject(self, detail: impl Into<String>) {
        drop(self.answer.send(Err(detail.into())));
    }
}

/// Says which names the proxy wants of each kind. Cheap to clone.
///
/// Clusters and listeners are subscribed to as a whole from the start; the other kinds by name.
/// `*` stands for everything of a kind.
#[derive(Clone, Debug)]
pub struct Subscriptions(Arc<watch::Sender<Wanted>>);

/// Names by kind.
type Wanted = BTreeMap<Kind, BTreeSet<String>>;

impl Subscriptions {
    /// Wants exactly these names of a kind. Never waits; takes effect on the stream soon after.
    pub fn set(&self, kind: Kind, names: BTreeSet<String>) {
        self.0.send_if_modified(|wanted| {
            let is_new = wanted.get(&kind) != Some(&names);
            wanted.insert(kind, names);
            is_new
        });
    }
}

/// The proxy's ends of a client.
#[derive(Debug)]
pub struct Handle {
    /// Updates, one at a time: the next comes after the answer to this one.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// What the proxy wants.
    pub subscriptions: Subscriptions,
    /// Whether there is a stream at the moment.
    pub connected: watch::Receiver<bool>,
}

/// The proxy's side of ADS. Run it as one task, away from the data plane's threads.
///
/// # Cancel safety
///
/// Dropping it at any point leaves the proxy with what it has accepted.
pub struct Client {
    config: Config,
    deliveries: mpsc::Sender<Delivery>,
    subscriptions: Subscriptions,
    connected: watch::Sender<bool>,
    ledger: Ledger,
    backoff: Backoff,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no certificate yet")]
    NoCertificate,
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("the control plane did not open the stream in time")]
    Silent,
    #[error("{}: {}", .0.code(), .0.message())]
    Status(tonic::Status),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("the proxy takes no more updates")]
    SinkGone,
}

impl Client {
    /// A client and the proxy's ends of it. Nothing happens before [`Client::run`].
    #[must_use]
    pub fn new(mut config: Config) -> (Self, Handle) {
        let (delivery_sender, deliveries) = mpsc::channel(1);
        let everything = || BTreeSet::from(["*".to_owned()]);
        let (wanted, _) = watch::channel(BTreeMap::from([
            (Kind::Cluster, everything()),
            (Kind::Listener, everything()),
        ]));
        let (connected_sender, connected) = watch::channel(false);
        let subscriptions = Subscriptions(Arc::new(wanted));
        let backoff = Backoff::new(std::mem::replace(&mut config.jitter, Box::new(|| 0.0)));
        let client = Self {
            config,
            deliveries: delivery_sender,
            subscriptions: subscriptions.clone(),
            connected: connected_sender,
            ledger: Ledger::default(),
            backoff,
        };
        (client, Handle { deliveries, subscriptions, connected })
    }

    /// Connects, and connects again whenever the stream ends, until `shutdown` is done or the
    /// proxy drops its [`Handle::deliveries`].
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.stay_connected() => {}
        }
    }

    async fn stay_connected(&mut self) {
        loop {
            let Err(error) = self.stream().await;
            self.connected.send_replace(false);
            if matches!(error, StreamError::SinkGone) {
                return;
            }
            let wait = self.backoff.next();
            let cause = std::error::Error::source(&error).map(chain);
            let endpoint = &self.config.endpoint;
            if matches!(error, StreamError::NoCertificate) {
                // So every proxy begins: the certificate is on its way.
                debug!(%endpoint, ?wait, "control plane not called yet: no certificate");
            } else {
                warn!(%endpoint, %error, cause, ?wait, "control plane lost");
            }
            sleep(wait).await;
        }
    }

    /// Drives one stream until it ends.
    async fn stream(&mut self) -> Result<std::convert::Infallible, StreamError> {
        let (requests, outbound) = mpsc::channel(REQUESTS_QUEUED_MAX);
        self.ledger.begin();
        let mut wanted = self.subscriptions.0.subscribe();
        let first = self.ledger.want(&wanted.borrow_and_update().clone());
        for (index, mut request) in first.into_iter().enumerate() {
            // "Only the first request on a stream needs to carry the node."
            request.node = (index == 0).then(|| self.config.node.clone());
            requests.send(request).await.map_err(|_closed| StreamError::Ended)?;
        }
        let mut responses = open(self.config.endpoint.clone(), &self.config.tls, outbound).await?;
        info!(endpoint = %self.config.endpoint, "control plane connected");
        self.connected.send_replace(true);
        loop {
            let next = tokio::select! {
                changed = wanted.changed() => {
                    changed.expect("the client holds a sender itself");
                    let names = wanted.borrow_and_update().clone();
                    self.ledger.want(&names)
                }
                response = responses.message() => {
                    let response = response
                        .map_err(StreamError::Status)?
                        .ok_or(StreamError::Ended)?;
                    self.backoff.reset();
                    self.take(response).await?.into_iter().collect()
                }
            };
            for request in next {
                requests.send(request).await.map_err(|_closed| StreamError::Ended)?;
            }
        }
    }

    /// Hands one response to the proxy and makes its answer.
    async fn take(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> Result<Option<DeltaDiscoveryRequest>, StreamError> {
        let Some((update, receipt)) = ledger::read(response) else {
            return Ok(None);
        };
        debug!(
            kind = %update.kind,
            upserts = update.upserts.len(),
            removed = update.removed.len(),
            "update received"
        );
        let (answer, answered) = oneshot::channel();
        self.deliveries
            .send(Delivery { update, answer })
            .await
            .map_err(|_closed| StreamError::SinkGone)?;
        let result = answered.await.unwrap_or_else(|_dropped| Err("no answer".to_owned()));
        let refusal = result.err().map(|mut detail| {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            detail
        });
        Ok(Some(self.ledger.settle(receipt, refusal)))
    }
}

/// Opens a stream whose requests come from `outbound`.
async fn open(
    endpoint: String,
    tls: &ClientTlsSource,
    outbound: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<Streaming<DeltaDiscoveryResponse>, StreamError> {
    let tls = tls().ok_or(StreamError::NoCertificate)?;
    let channel = connect(endpoint, tls).await.map_err(StreamError::Connect)?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(RESPONSE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let opening = client.delta_aggregated_resources(ReceiverStream::new(outbound));
    let response = timeout(OPEN_WAIT_MAX, opening)
        .await
        .map_err(|_elapsed| StreamError::Silent)?
        .map_err(StreamError::Status)?;
    Ok(response.into_inner())
}

/// Opens a channel over one TLS connection of our own making.
async fn connect(
    endpoint: String,
    tls: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_uri: Uri| {
        let (endpoint, tls) = (endpoint.clone(), Arc::clone(&tls));
        async move { dial(&endpoint, tls).await.map(TokioIo::new) }
    });
    // The scheme only tells tonic not to add TLS of its own.
    Endpoint::from_static("http://istiod.istio-system.svc")
        .connect_timeout(CONNECT_WAIT_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_WAIT_MAX)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

async fn dial(endpoint: &str, tls: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let dialing = async {
        let tcp = TcpStream::connect(endpoint).await?;
        tcp.set_nodelay(true)?;
        let mut tls = tls;
        if tls.alpn_protocols != [b"h2"] {
            Arc::make_mut(&mut tls).alpn_protocols = vec![b"h2".to_vec()];
        }
        let name = ServerName::try_from(CONTROL_PLANE_NAME).expect("the name is a DNS name");
        TlsConnector::from(tls).connect(name, tcp).await
    };
    timeout(CONNECT_WAIT_MAX, dialing).await.unwrap_or_else(|_elapsed| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))
    })
}

/// An error and its causes, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
