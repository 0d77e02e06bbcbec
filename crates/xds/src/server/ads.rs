//! The aggregated discovery service: one session per stream.
//!
//! In:    a proxy's requests; the sets that the directory has for it.
//! Out:   responses, as fast as the proxy takes them.
//! Never: spawns a task or queues: a stream that is not read does no work.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use futures_util::{Stream, stream};
use http::{HeaderMap, Request, Response, header};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use prost::Message;
use sluis_envoy::{EncodedSet, Kind};
use sluis_tls::PeerIdentity;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;
use tracing::{debug, info, warn};

use super::{Directory, Peer, ProxyKey, Refusal, incoming::Incoming, outgoing::Outgoing};
use crate::{
    session::{self, Action, Ask, Dialect, Event, Names, Session},
    wire::{self, Unserved},
};

/// ADS streams at once, over all proxies. Above it a proxy is told to come back.
const STREAMS_MAX: usize = 8192;

/// Bytes of a proxy's description of itself. Istio's largest are near ten kilobytes.
const NODE_BYTES_MAX: usize = 256 * 1024;

/// Names that one stream is noted to have asked for in vain. Who asks for more is known by then.
const TOLD_MAX: usize = 256;

/// So much of a name that a proxy made up goes into the log.
const NAME_SHOWN_MAX: usize = 256;

/// Everything of a kind.
const WILDCARD: &str = "*";

/// Wait for the first request of a stream, which proxies send at once.
const FIRST_REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);

/// The paths of the two methods.
const SOTW_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The service. It writes gRPC's frames itself, because resources are shared by all streams and a
/// message is written as its peer takes it.
#[derive(Clone)]
pub(super) struct Ads {
    directory: Arc<dyn Directory>,
    closing: watch::Receiver<bool>,
    places: Arc<Semaphore>,
    /// The port has no TLS: whoever comes is [`Peer::Local`].
    takes_local: bool,
}

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<Request<Body>> for Ads {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ads = self.clone();
        Box::pin(async move {
            let opened = match request.uri().path() {
                SOTW_PATH => ads.open::<DiscoveryRequest>(request, Dialect::Sotw).await,
                DELTA_PATH => ads.open::<DeltaDiscoveryRequest>(request, Dialect::Delta).await,
                other => Err(Status::unimplemented(format!("there is no method {other}"))),
            };
            Ok(opened.unwrap_or_else(Status::into_http))
        })
    }
}

impl Ads {
    /// A service that ends its streams once `closing` holds true.
    pub(super) fn new(
        directory: Arc<dyn Directory>,
        closing: watch::Receiver<bool>,
        takes_local: bool,
    ) -> Self {
        Self { directory, closing, places: Arc::new(Semaphore::new(STREAMS_MAX)), takes_local }
    }

    async fn open<Q: Asked>(
        &self,
        request: Request<Body>,
        dialect: Dialect,
    ) -> Result<Response<Body>, Status> {
        let peer = if self.takes_local { Peer::Local } else { verified_peer(&request)? };
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_full| Status::resource_exhausted("too many streams"))?;
        let mut requests = Incoming::<Q>::new(request.into_body());
        let first = timeout(FIRST_REQUEST_WAIT_MAX, requests.message())
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no first request"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its first request"))?;
        let node = first
            .node()
            .ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
        if node.encoded_len() > NODE_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "the node has more than {NODE_BYTES_MAX} bytes"
            )));
        }
        let connection = self.directory.connect(&peer, node).map_err(|refusal| {
            warn!(%peer, node = %node.id, reason = %refusal, "proxy refused");
            status_of(&refusal)
        })?;
        info!(%peer, node = %node.id, ?dialect, "proxy connected");
        let mut sets = connection.sets;
        let set = Arc::clone(&sets.borrow_and_update());
        let mut stream = AdsStream {
            session: Session::new(dialect, set),
            requests,
            sets,
            closing: self.closing.clone(),
            pending: VecDeque::new(),
            end: End::Open,
            told: HashSet::new(),
            guard: Guard {
                directory: Arc::clone(&self.directory),
                key: connection.key,
                name: node.id.clone(),
                peer,
                _place: place,
            },
        };
        stream.take_request(first);
        let response = Response::builder()
            .header(header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE)
            .body(Body::new(StreamBody::new(frames(stream, dialect))));
        response.map_err(|error| Status::internal(error.to_string()))
    }
}

/// The responses of a stream as frames of its body, the status as the last one.
fn frames<Q: Asked>(
    stream: AdsStream<Q>,
    dialect: Dialect,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
    stream::unfold(Some((stream, None)), move |state| async move {
        let (mut stream, mut outgoing): (AdsStream<Q>, Option<Outgoing>) = state?;
        loop {
            if let Some(piece) = outgoing.as_mut().and_then(Outgoing::next) {
                return Some((Ok(Frame::data(piece)), Some((stream, outgoing))));
            }
            let status = match stream.next().await {
                Some(Ok(response)) => {
                    outgoing = Some(Outgoing::new(response, dialect));
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            let mut trailers = HeaderMap::new();
            return match status.add_header(&mut trailers) {
                Ok(()) => Some((Ok(Frame::trailers(trailers)), None)),
                Err(status) => Some((Err(status), None)),
            };
        }
    })
}

/// A request of either form.
trait Asked: Message + Default + Send + 'static {
    fn node(&self) -> Option<&Node>;
    fn ask(self) -> Result<Ask, Unserved>;
}

impl Asked for DiscoveryRequest {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn ask(self) -> Result<Ask, Unserved> {
        wire::ask_sotw(self)
    }
}

impl Asked for DeltaDiscoveryRequest {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn ask(self) -> Result<Ask, Unserved> {
        wire::ask_delta(self)
    }
}

/// One proxy's stream. It is driven by the transport asking for the next response, so the queue
/// holds at most one response per kind.
struct AdsStream<Q> {
    session: Session,
    requests: Incoming<Q>,
    sets: watch::Receiver<Arc<EncodedSet>>,
    closing: watch::Receiver<bool>,
    pending: VecDeque<session::Response>,
    end: End,
    /// What it was noted to have asked for and not got.
    told: HashSet<(Kind, String)>,
    guard: Guard,
}

/// What happened to a stream.
enum Heard<Q> {
    Request(Result<Option<Q>, Status>),
    /// There is a new set.
    Set,
    /// The directory has given the proxy up.
    Dropped,
    /// The server is stopping.
    Closing,
}

/// How far the end of a stream has come.
enum End {
    /// It goes on.
    Open,
    /// This is to be said, and nothing after it.
    LastWord(Status),
    /// Nothing follows.
    Over,
}

/// Tells the directory that the stream has ended, however it ends.
struct Guard {
    directory: Arc<dyn Directory>,
    key: ProxyKey,
    name: String,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

impl Drop for Guard {
    fn drop(&mut self) {
        info!(node = %self.name, "proxy disconnected");
        self.directory.disconnect(self.key);
    }
}

impl<Q: Asked> AdsStream<Q> {
    /// Waits for the next response. `None` ends the stream.
    async fn next(&mut self) -> Option<Result<session::Response, Status>> {
        loop {
            if let Some(response) = self.pending.pop_front() {
                return Some(Ok(response));
            }
            match std::mem::replace(&mut self.end, End::Over) {
                End::Open => self.end = End::Open,
                End::LastWord(status) => return Some(Err(status)),
                End::Over => return None,
            }
            match self.hear().await {
                Heard::Request(Ok(Some(request))) => self.take_request(request),
                Heard::Request(Ok(None)) => return None,
                Heard::Request(Err(status)) => {
                    debug!(node = %self.guard.name, %status, "stream broke");
                    return None;
                }
                Heard::Set => {
                    let set = Arc::clone(&self.sets.borrow_and_update());
                    self.act(Event::Set(set));
                }
                Heard::Dropped => {
                    self.close(Status::unavailable("this proxy is no longer served"));
                }
                Heard::Closing => {
                    self.close(Status::unavailable("the control plane is stopping"));
                }
            }
        }
    }

    async fn hear(&mut self) -> Heard<Q> {
        tokio::select! {
            request = self.requests.message() => Heard::Request(request),
            changed = self.sets.changed() => match changed {
                Ok(()) => Heard::Set,
                Err(_gone) => Heard::Dropped,
            },
            // An error means that the server is gone.
            _ = self.closing.wait_for(|closing| *closing) => Heard::Closing,
        }
    }

    fn take_request(&mut self, request: Q) {
        match request.ask() {
            Ok(ask) => {
                self.note_absent(&ask);
                self.act(Event::Ask(ask));
            }
            // Envoy subscribes to further types when its bootstrap says so, and lives without them.
            Err(unserved) => warn!(node = %self.guard.name, %unserved, "request ignored"),
        }
    }

    /// Notes the names in a request that are not in the proxy's set. A proxy that keeps to what it was
    /// told names what is there, but for what is changing; one that does not is looking for what is
    /// others'.
    fn note_absent(&mut self, ask: &Ask) {
        let names = match &ask.names {
            Names::All(names) => names,
            Names::Change { subscribe, .. } => subscribe,
        };
        let absent: Vec<String> = {
            let set = self.sets.borrow();
            let is_given = |name: &str| set.get(ask.kind, name).is_some();
            // A credential has a version before for a while only; whoever is given the credential may
            // ask for it at any time.
            let is_absent = |name: &&String| {
                let asked = name.strip_suffix("#previous").unwrap_or(name);
                *name != WILDCARD && !is_given(name) && (asked == *name || !is_given(asked))
            };
            names.iter().filter(is_absent).take(TOLD_MAX).cloned().collect()
        };
        let new: Vec<String> = absent
            .into_iter()
            .filter(|name| self.told.len() < TOLD_MAX && self.told.insert((ask.kind, name.clone())))
            .collect();
        if new.is_empty() {
            return;
        }
        let (peer, node) = (&self.guard.peer, &self.guard.name);
        for name in &new {
            let name: String = name.chars().take(NAME_SHOWN_MAX).collect();
            if ask.kind == Kind::Secret {
                warn!(%peer, %node, name, "asked for a secret that it is not given");
            } else {
                info!(%peer, %node, kind = %ask.kind, name, "asked for what it is not given");
            }
        }
        self.guard.directory.absent(self.guard.key, ask.kind, &new);
    }

    fn act(&mut self, event: Event) {
        let mut reports = Vec::new();
        for action in self.session.on(event) {
            match action {
                Action::Send(response) => {
                    debug!(
                        node = %self.guard.name,
                        kind = %response.kind,
                        version = %response.version,
                        upserts = response.upserts.len(),
                        removed = response.removed.len(),
                        "pushed"
                    );
                    self.pending.push_back(response);
                }
                Action::Report(kind, report) => {
                    if let session::Report::Nack { version, detail } = &report {
                        warn!(node = %self.guard.name, %kind, version, detail, "refused by proxy");
                    }
                    reports.push((kind, report));
                }
                Action::Close(breach) => {
                    warn!(node = %self.guard.name, %breach, "stream closed");
                    self.close(Status::resource_exhausted(breach.to_string()));
                }
            }
        }
        if !reports.is_empty() {
            self.guard.directory.report(self.guard.key, reports);
        }
    }

    fn close(&mut self, status: Status) {
        self.pending.clear();
        self.end = End::LastWord(status);
    }
}

/// The peer's identity; a stream without one is refused.
fn verified_peer(request: &Request<Body>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<PeerIdentity>()
        .and_then(|peer| peer.id.clone())
        .map(Peer::Verified)
        .ok_or_else(|| Status::unauthenticated("a client certificate of the mesh is required"))
}

fn status_of(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Forbidden(reason) => Status::permission_denied(reason.clone()),
        Refusal::Malformed(reason) => Status::invalid_argument(reason.clone()),
        Refusal::Unavailable(reason) => Status::unavailable(reason.clone()),
    }
}
