//! Who may connect, and what each one gets: a proxy gets its own workload's configuration only.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use sluis_envoy::Kind;
use sluis_model::Snapshot;
use sluis_translate::ProxyView;
use sluis_xds::{Connection, Directory, Peer, ProxyKey, Refusal, Report};
use tokio::{sync::watch, time::Instant};

use crate::{
    Control, NodeId, ProxyNode, ViewError,
    control::Stream,
    proxy_view,
    status::Progress,
    view::{claimed_view, workload_id},
};

impl Directory for Control {
    /// Lets a proxy in whose node names a `WorkloadEntry` with the namespace and service account
    /// of its certificate; and on the port without TLS whoever says what it is.
    fn connect(&self, peer: &Peer, node: &Node) -> Result<Connection, Refusal> {
        let node = Arc::new(ProxyNode::read(node));
        loop {
            let (snapshot, generation) = {
                let state = self.lock();
                (state.snapshot.clone(), state.generation)
            };
            if generation == 0 {
                return Err(Refusal::Unavailable("the mesh is not known yet".to_owned()));
            }
            let view = self.admit(peer, &node, &snapshot)?;
            let config = self.config(&view, &snapshot);
            let mut state = self.lock();
            if state.generation != generation {
                // The mesh changed during the build. Changes are debounced, so this ends.
                continue;
            }
            state.keys += 1;
            let key = ProxyKey(state.keys);
            let (sets, receiver) = watch::channel(Arc::clone(config.encoded_for(peer)));
            let progress = Progress::new(Instant::now());
            let peer = peer.clone();
            let stream = Stream { peer, node, view, config, generation, sets, progress };
            state.streams.insert(key, stream);
            drop(state);
            self.tell();
            return Ok(Connection { key, sets: receiver });
        }
    }

    fn report(&self, key: ProxyKey, reports: Vec<(Kind, Report)>) {
        self.metrics().take(&reports);
        let settled = self
            .lock()
            .streams
            .get_mut(&key)
            .and_then(|stream| stream.progress.take(reports, Instant::now()));
        if let Some(after) = settled {
            self.metrics().converged(after);
        }
        self.tell();
    }

    fn disconnect(&self, key: ProxyKey) {
        self.lock().streams.remove(&key);
        self.tell();
    }
}

impl Control {
    /// The view of a proxy, or why it is not served.
    ///
    /// [`Refusal::Malformed`] may be mended by the next change; after another refusal the proxy is
    /// not the one it was.
    pub(crate) fn admit(
        &self,
        peer: &Peer,
        node: &ProxyNode,
        snapshot: &Snapshot,
    ) -> Result<ProxyView, Refusal> {
        let domain = self.trust_domain();
        let malformed = |error: ViewError| Refusal::Malformed(error.to_string());
        let Peer::Verified(proved) = peer else {
            let id = NodeId::read(node).map_err(|error| malformed(error.into()))?;
            return claimed_view(node, id, snapshot, domain).map_err(malformed);
        };
        let name = node.workload.as_ref().ok_or_else(|| {
            Refusal::Malformed("node metadata NAMESPACE and WORKLOAD_NAME are required".to_owned())
        })?;
        let workload = snapshot
            .workload(name)
            .ok_or_else(|| Refusal::Forbidden(format!("there is no workload {name}")))?;
        if workload_id(workload, domain).map_err(malformed)? != *proved {
            return Err(Refusal::Forbidden(format!("workload {name} is not {proved}")));
        }
        proxy_view(workload, Some(node), domain)
            .map_err(|error| Refusal::Malformed(format!("workload {name}: {error}")))
    }
}
