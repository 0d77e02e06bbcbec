//! What happens when files change: the mesh, the workloads and their processes follow.
//!
//! In:    events of the watched files.
//! Out:   a new state of the control plane, of the list of workloads, of the running processes.
//! Never: starts on files of which a part could not be read: what is missing might have been a
//!        restriction.

use std::{future::Future, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use sluis_ca::CaFiles;
use sluis_model::Batch;
use sluis_nouns::{ObjectName, TrustDomain};
use sluis_resources::{Fault, Options, Secret, SecretValue, Spec};
use sluis_sources::{SourceEvent, Watcher};
use tokio::sync::{mpsc, watch};

use super::{
    Follower,
    mesh::{Local, Mesh},
    told,
};
use crate::{output, state::write_private, workload};

/// Events that wait. One is enough: the watcher merges what happens meanwhile.
const EVENTS_MAX: usize = 1;

/// The files, and what they said first.
pub(crate) struct Files {
    first: SourceEvent,
    events: mpsc::Receiver<SourceEvent>,
}

impl Files {
    /// Reads the files and watches them until told to stop.
    ///
    /// # Errors
    ///
    /// When a path does not exist, or a file has an error: at the start there is no last good state.
    pub(crate) async fn load(
        roots: &[PathBuf],
        reading: Options,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self> {
        for root in roots {
            std::fs::metadata(root).with_context(|| format!("cannot read {}", root.display()))?;
        }
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(Watcher::new(roots.to_vec(), reading).run(sender, told(stopped)));
        let first = events.recv().await.context("the files cannot be watched")?;
        if !first.never_good.is_empty() {
            for fault in first.faults.iter().filter(|fault| fault.is_error()) {
                output::print(&format!("{fault}\n"))?;
            }
            bail!("not started: {} of the files have errors", first.never_good.len());
        }
        Ok(Self { first, events })
    }

    /// The trust domain that the mesh configuration names; Istio's default without one.
    ///
    /// Read once: every certificate carries it.
    pub(crate) fn trust_domain(&self) -> TrustDomain {
        let mesh = self.first.upserts.iter().find_map(|resource| match &resource.spec {
            Spec::ConfigMap(map) => map.mesh.as_ref(),
            _ => None,
        });
        mesh.map(|mesh| mesh.trust_domain.clone()).unwrap_or_default()
    }

    /// The other names of the trust domain. Read once, as the trust domain is.
    pub(crate) fn trust_domain_aliases(&self) -> Vec<TrustDomain> {
        let mesh = self.first.upserts.iter().find_map(|resource| match &resource.spec {
            Spec::ConfigMap(map) => map.mesh.as_ref(),
            _ => None,
        });
        mesh.map(|mesh| mesh.trust_domain_aliases.clone()).unwrap_or_default()
    }

    /// The operator's own authority: the Secret `cacerts` in `istio-system`, as Istio reads it.
    ///
    /// # Errors
    ///
    /// When the Secret is there and lacks an entry.
    pub(crate) fn plugin_ca(&self) -> Result<Option<CaFiles>> {
        let secret = self.first.upserts.iter().find_map(|resource| match &resource.spec {
            Spec::Secret(secret)
                if resource.meta.name == ObjectName::new("istio-system", "cacerts") =>
            {
                Some((resource.meta.at.to_string(), secret))
            }
            _ => None,
        });
        let read = |(at, secret): (String, &Secret)| {
            let place = format!("{at}: Secret istio-system/cacerts");
            CaFiles::from_entries(&place, |entry| secret.data.get(entry).map(SecretValue::expose))
        };
        Ok(secret.map(read).transpose()?)
    }

    /// Applies what the files said, and each change, until told to stop; then ends every process.
    ///
    /// # Errors
    ///
    /// When the files are no longer watched although nobody said so.
    pub(crate) async fn follow(
        mut self,
        mesh: Arc<Mesh>,
        mut follower: impl Follower,
        stopped: impl Future<Output = ()>,
    ) -> Result<()> {
        tokio::pin!(stopped);
        let mut next = Some(self.first);
        let mut custody = mesh.custody.changes();
        let outcome = loop {
            if let Some(event) = next.take() {
                // Translating the whole mesh takes long enough to hold up other tasks.
                let local = tokio::task::block_in_place(|| apply(&mesh, event));
                follower.reconcile(local.workloads.into_values().collect()).await;
            }
            tokio::select! {
                biased;
                () = &mut stopped => break Ok(()),
                // Without a custodian, which ends by the same word, nothing changes any more.
                Ok(()) = custody.changed() => {
                    if let Some(batch) = mesh.custody.batch() {
                        tokio::task::block_in_place(|| mesh.control.apply(batch));
                    }
                }
                event = self.events.recv() => match event {
                    Some(event) => next = Some(event),
                    None => {
                        stopped.await;
                        break Ok(());
                    }
                },
            }
        };
        follower.shut_down().await;
        outcome
    }
}

/// Brings the mesh to what the files say now.
fn apply(mesh: &Mesh, event: SourceEvent) -> Local {
    mesh.control.apply(Batch { upserts: event.upserts, removals: event.removals });
    let snapshot = mesh.control.snapshot();
    let mut local = Local { faults: event.faults, ..Local::default() };
    let base = std::env::current_dir().unwrap_or_default();
    for entry in snapshot.workloads() {
        match workload::read(entry, &snapshot, mesh.control.trust_domain(), &base) {
            Ok(Some(workload)) => drop(local.workloads.insert(workload.name.clone(), workload)),
            Ok(None) => {}
            Err(fault) => local.faults.push(*fault),
        }
    }
    local.faults.extend(other_trust_domain(mesh));
    mesh.custody.order(&snapshot, &base, &mesh.state);
    mesh.set_local(local.clone());
    for name in local.workloads.keys() {
        write_names(mesh, name);
    }
    local
}

/// The trust domain is in every certificate and cannot change under running proxies.
fn other_trust_domain(mesh: &Mesh) -> Option<Fault> {
    let snapshot = mesh.control.snapshot();
    let (written, used) = (&snapshot.mesh().trust_domain, mesh.control.trust_domain());
    (written != used).then(|| {
        Fault::warning(snapshot.mesh().at.clone(), format!("{used} stays in use until a restart"))
            .field("trustDomain")
    })
}

/// Keeps the file of names current for jails whose sidecar is a real Envoy.
fn write_names(mesh: &Mesh, name: &ObjectName) {
    let files = mesh.state.workload(name);
    let Ok(text) = serde_json::to_vec(&mesh.names_of(name)) else { return };
    let is_current = std::fs::read(files.names()).is_ok_and(|old| old == text);
    if !is_current
        && let Err(error) = files.create().and_then(|()| Ok(write_private(&files.names(), &text)?))
    {
        tracing::warn!(workload = %name, %error, "names not written");
    }
}
