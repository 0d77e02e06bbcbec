//! Who may connect, and what each one gets: a proxy gets its own workload's configuration only.

use std::{net::IpAddr, sync::Arc};

use envoy_types::pb::envoy::config::core::v3::Node;
use sluis_envoy::Kind;
use sluis_model::{Snapshot, Workload};
use sluis_nouns::{TrustDomain, WorkloadId};
use sluis_resources::WorkloadAddress;
use sluis_translate::ProxyView;
use sluis_xds::{Connection, Directory, Peer, ProxyKey, Refusal, Report};
use tokio::{sync::watch, time::Instant};

use crate::{
    Control, NodeId, ProxyNode, RUN_ANNOTATION, ViewError,
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

    fn absent(&self, _key: ProxyKey, kind: Kind, names: &[String]) {
        self.metrics().absent(kind, names.len());
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
        let own = workload_id(workload, domain).map_err(malformed)?;
        if !is_same(&own, proved, &snapshot.mesh().trust_domain_aliases) {
            return Err(Refusal::Forbidden(format!("workload {name} is not {proved}")));
        }
        refuse_false_claims(node, &own, workload).map_err(Refusal::Forbidden)?;
        let mut view = proxy_view(workload, Some(node), domain)
            .map_err(|error| Refusal::Malformed(format!("workload {name}: {error}")))?;
        // What belongs to others it cannot claim by saying so.
        let of_others = |ip: &IpAddr| {
            snapshot.workloads().any(|other| {
                other.meta().name != *name && other.spec().address == Some(WorkloadAddress::Ip(*ip))
            })
        };
        view.node.instance_ips.retain(|ip| *ip == view.address || !of_others(ip));
        Ok(view)
    }
}

/// Whether two identities are the same workload's: a trust domain may have other names.
fn is_same(own: &WorkloadId, proved: &WorkloadId, aliases: &[TrustDomain]) -> bool {
    let is_ours =
        own.trust_domain() == proved.trust_domain() || aliases.contains(proved.trust_domain());
    is_ours
        && own.namespace() == proved.namespace()
        && own.service_account() == proved.service_account()
}

/// A proxy whose own word contradicts what it has proved is broken or an attacker: it is not served.
fn refuse_false_claims(
    node: &ProxyNode,
    own: &WorkloadId,
    workload: &Workload,
) -> Result<(), String> {
    if let Some(account) = node.account.as_deref().filter(|name| *name != own.service_account()) {
        return Err(format!("SERVICE_ACCOUNT {account:?} is not that of {own}"));
    }
    let parts: Vec<&str> = node.id.split('~').collect();
    let [role, _, name, domain] = parts[..] else { return Ok(()) };
    let namespaces = [
        name.rsplit_once('.').map(|(_, namespace)| namespace),
        domain.split_once(".svc").map(|(namespace, _)| namespace),
    ];
    if let Some(other) = namespaces.into_iter().flatten().find(|one| *one != own.namespace()) {
        return Err(format!("node id {:?} is of the namespace {other:?}, not {own}", node.id));
    }
    let written = workload.meta().annotations.get(RUN_ANNOTATION).map(String::as_str);
    if role == "router" && written == Some("sidecar") {
        return Err(format!("node id {:?} is a gateway's, and {own} is a sidecar", node.id));
    }
    Ok(())
}
