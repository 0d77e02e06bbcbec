//! Fetches key sets from their servers, again and again before they are too old.
//!
//! In:    the sets that filters name, the clusters of each published configuration.
//! Out:   keys in the `KeyRing`, or why there are none.
//! Never: runs on a worker; asks twice at once for one set; follows a redirect; reads more than a key
//!        set may have; speaks to anything but the cluster that the configuration names.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use sluis_jwt::{KEY_SET_BYTES_MAX, KeySet, Origin, Refusal};
use sluis_rules::{Draw, EndpointAddress, RemoteKeys, Runtime, Turns, UpstreamProtocol};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    config::{Backend, Config},
    control::exchange::exchange,
    key_ring::KeySlot,
    random::Random,
    upstream::{ConnectContext, ConnectError, Pick},
};

/// Keys are fetched anew so long before they are too old, or a fifth of their life before.
const AHEAD_MAX: Duration = Duration::from_secs(30);

/// Longest time between questions to a server that does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The tasks that fetch key sets.
#[derive(Debug, Default)]
pub(super) struct KeySets {
    tasks: BTreeMap<Arc<RemoteKeys>, AbortHandle>,
    set: JoinSet<()>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("there is no cluster {0}")]
    Cluster(Arc<str>),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the cluster has no endpoint")]
    Endpoint,
    #[error(transparent)]
    Request(#[from] http::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is too long, or breaks off")]
    Body,
    #[error("{0}")]
    Keys(Refusal),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl FetchError {
    /// What a request is told.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Keys(refusal) => *refusal,
            _ => Refusal::Fetch,
        }
    }
}

impl KeySets {
    /// Fetches exactly the sets that this runtime names.
    pub(super) fn follow(&mut self, runtime: &Runtime, config: &watch::Sender<Arc<Config>>) {
        while self.set.try_join_next().is_some() {}
        let wanted = runtime.remote_keys();
        let ring = Arc::clone(&config.borrow().settings.keys);
        self.tasks.retain(|remote, task| {
            let is_kept = wanted.contains(remote);
            if !is_kept {
                task.abort();
            }
            is_kept
        });
        ring.retain(&wanted);
        for remote in wanted {
            if !self.tasks.contains_key(&remote) {
                let slot = ring.slot(&remote);
                let task = keep(Arc::clone(&remote), slot, config.subscribe());
                self.tasks.insert(remote, self.set.spawn_local(task));
            }
        }
    }
}

/// Keeps one set fresh.
async fn keep(remote: Arc<RemoteKeys>, slot: Arc<KeySlot>, config: watch::Receiver<Arc<Config>>) {
    let random = Random::from_os();
    let mut pause = remote.refetch_after;
    loop {
        match fetch(&remote, &config, &random).await {
            Ok(keys) => {
                debug!(uri = %remote.uri, keys = keys.len(), "key set fetched");
                let ahead = (remote.cache_duration / 5).min(AHEAD_MAX);
                slot.fill(keys, Instant::now() + remote.cache_duration);
                pause = remote.refetch_after;
                sleep(remote.cache_duration - ahead).await;
            }
            Err(error) => {
                let was_filled = slot.is_filled();
                warn!(uri = %remote.uri, cluster = %remote.cluster, %error, was_filled, "key set cannot be fetched");
                slot.fail(error.refusal());
                // Whoever wants the keys meanwhile has them asked for, but not more often than this.
                sleep(remote.refetch_after).await;
                tokio::select! {
                    () = slot.wanted.notified() => {}
                    () = sleep(pause.saturating_sub(remote.refetch_after)) => {}
                }
                pause = (pause * 2).min(PAUSE_MAX.max(remote.refetch_after));
            }
        }
    }
}

/// Fetches a set, trying again as often as the configuration says.
async fn fetch(
    remote: &RemoteKeys,
    config: &watch::Receiver<Arc<Config>>,
    random: &Random,
) -> Result<KeySet, FetchError> {
    let (mut pause, longest) = remote.backoff;
    let mut tries = 0;
    loop {
        let now = Arc::clone(&config.borrow());
        let asked = timeout(remote.timeout, ask(remote, &now, random)).await;
        match asked.unwrap_or(Err(FetchError::Late(remote.timeout))) {
            Err(error) if tries < remote.retries => {
                info!(uri = %remote.uri, %error, "key set is asked for again");
                tries += 1;
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            done => return done,
        }
    }
}

async fn ask(remote: &RemoteKeys, config: &Config, random: &Random) -> Result<KeySet, FetchError> {
    let cluster = || FetchError::Cluster(Arc::clone(&remote.cluster));
    let backend = config.backend(&remote.cluster).ok_or_else(cluster)?;
    let pick = pick(backend, random).ok_or(FetchError::Endpoint)?;
    let host = remote.host.rsplit_once(':').map_or(&*remote.host, |(host, _)| host);
    let context = ConnectContext { host: Some(host), ..ConnectContext::default() };
    let io = crate::upstream::open(backend, &pick, &context).await?;
    let is_http2 = backend.protocol == UpstreamProtocol::Http2;
    let uri = if is_http2 {
        let uri = Uri::builder().scheme("http").authority(&*remote.host);
        uri.path_and_query(&*remote.path).build()?
    } else {
        remote.path.parse::<Uri>().map_err(http::Error::from)?
    };
    let mut request = Request::builder().method("GET").uri(uri).body(Full::<Bytes>::default())?;
    let headers = request.headers_mut();
    headers.insert("accept", HeaderValue::from_static("application/json"));
    if !is_http2 {
        let host = HeaderValue::from_str(&remote.host).map_err(http::Error::from)?;
        headers.insert("host", host);
    }
    // Ends with this question, whatever the server does.
    let mut tasks = JoinSet::new();
    let response = exchange(&mut tasks, io, request, is_http2).await?;
    if response.status() != 200 {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), KEY_SET_BYTES_MAX).collect().await;
    let body = body.map_err(|_| FetchError::Body)?.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|_| FetchError::Keys(Refusal::KeySetJson))?;
    KeySet::parse(text, Origin::Remote).map_err(FetchError::Keys)
}

/// One of the cluster's endpoints, as its balancer chooses.
fn pick(backend: &Arc<Backend>, random: &Random) -> Option<Pick> {
    let mut turns = Turns::new(random.next());
    let mut draw = Draw {
        random: random.next(),
        hash: None,
        labels: None,
        attempt: 0,
        spurned: 0,
        turns: &mut turns,
    };
    let place = backend.choice().balancer.pick(&mut draw, |_| 0).ok()?;
    let is_fixed = matches!(backend.endpoints.list.get(place)?.address, EndpointAddress::Fixed(_));
    is_fixed.then(|| Pick::of(backend, place)).flatten()
}
