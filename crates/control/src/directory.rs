//! Who may connect, and what each one gets: a proxy gets its own workload's configuration only.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use sluis_envoy::Kind;
use sluis_nouns::WorkloadId;
use sluis_xds::{Connection, Directory, ProxyKey, Refusal, Report};
use tokio::{sync::watch, time::Instant};

use crate::{Control, ProxyNode, control::Stream, status::Progress, view::workload_id};

impl Directory for Control {
    /// Lets a proxy in whose node names a `WorkloadEntry` with the namespace and service account
    /// of its certificate.
    fn connect(&self, peer: &WorkloadId, node: &Node) -> Result<Connection, Refusal> {
        let node = ProxyNode::read(node);
        let name = node.workload.clone().ok_or_else(|| {
            Refusal::Malformed("node metadata NAMESPACE and WORKLOAD_NAME are required".to_owned())
        })?;
        loop {
            let (snapshot, generation) = {
                let state = self.lock();
                (state.snapshot.clone(), state.generation)
            };
            if generation == 0 {
                return Err(Refusal::Unavailable("the mesh is not known yet".to_owned()));
            }
            let workload = snapshot
                .workload(&name)
                .ok_or_else(|| Refusal::Forbidden(format!("there is no workload {name}")))?;
            let id = workload_id(workload, self.trust_domain())
                .map_err(|error| Refusal::Malformed(error.to_string()))?;
            if id != *peer {
                return Err(Refusal::Forbidden(format!("workload {name} is not {peer}")));
            }
            let (view, config) = self
                .build(workload, &node, &snapshot)
                .map_err(|error| Refusal::Malformed(format!("workload {name}: {error}")))?;
            let mut state = self.lock();
            if state.generation != generation {
                // The mesh changed during the build. Changes are debounced, so this ends.
                continue;
            }
            state.keys += 1;
            let key = ProxyKey(state.keys);
            let (sets, receiver) = watch::channel(Arc::clone(&config.encoded));
            let progress = Progress::new(Instant::now());
            state.streams.insert(key, Stream { node, view, config, generation, sets, progress });
            drop(state);
            self.tell();
            return Ok(Connection { key, sets: receiver });
        }
    }

    fn report(&self, key: ProxyKey, kind: Kind, report: Report) {
        if let Some(stream) = self.lock().streams.get_mut(&key) {
            stream.progress.take(kind, report, Instant::now());
        }
        self.tell();
    }

    fn disconnect(&self, key: ProxyKey) {
        self.lock().streams.remove(&key);
        self.tell();
    }
}
