//! What a running control plane knows, and what it answers of it.
//!
//! In:    the control plane, the authority, the supervisor's statuses, the workloads of this machine.
//! Out:   reports, resources as JSON, bootstraps, jail plans.
//! Never: changes anything but its own list of workloads and faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use serde_json::Value;
use sluis_ca::{Authority, AuthorityStatus, CaFiles};
use sluis_control::{Control, ProxyStatus, Sync};
use sluis_envoy::{Kind, NameTable, unpack};
use sluis_nouns::{ObjectName, WorkloadId};
use sluis_resources::Fault;
use sluis_translate::Role;
use sluis_xds::Peer;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::custody::Custody;
use crate::{
    api::{Answers, Denial, JailPlan, RotateOrder, kind_named},
    bootstrap::{self, ControlPlane, Engine, WORKLOAD_API_SOCKET},
    grants::{self, Asked, CredentialRow, Verdict},
    objects::{self, ObjectReport, UnknownKind},
    state::StateDir,
    status::{ProxyReport, Report, SyncReport},
    supervise::{Phase, Status, Statuses},
    tls_check::{self, TlsRow},
    workload::Workload,
};

/// Everything that questions are answered from.
pub(crate) struct Mesh {
    /// The control plane.
    pub control: Control,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// What the proxies' processes are doing.
    pub statuses: Statuses,
    /// Where files are.
    pub state: StateDir,
    /// The values of credentials.
    pub custody: Custody,
    /// The control plane's gRPC address.
    pub address: SocketAddr,
    /// The workloads of this machine, and what is wrong in the files.
    pub local: RwLock<Local>,
}

/// What follows from the files alone.
#[derive(Clone, Default)]
pub(crate) struct Local {
    /// The workloads that this machine runs a proxy for.
    pub workloads: BTreeMap<ObjectName, Workload>,
    /// Faults of files and of workload annotations.
    pub faults: Vec<Fault>,
}

impl Mesh {
    /// What follows from the files now.
    pub(crate) fn local(&self) -> Local {
        self.local.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what follows from the files.
    pub(crate) fn set_local(&self, local: Local) {
        *self.local.write().unwrap_or_else(PoisonError::into_inner) = local;
    }

    /// All faults, of files and of the translation, each once, in the order of their places.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut faults = self.local().faults;
        let of_conditions = objects::condition_faults(&self.control.snapshot());
        let of_sources = self.custody.faults(&self.control.snapshot());
        for fault in self.control.faults().into_iter().chain(of_conditions).chain(of_sources) {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        faults.sort_by(|a, b| a.at.cmp(&b.at));
        faults
    }

    /// The names that a workload may know, with their addresses.
    pub(crate) fn names_of(&self, name: &ObjectName) -> BTreeMap<String, Vec<String>> {
        let Some(Ok(config)) = self.control.config_of(name) else { return BTreeMap::new() };
        let names = config.config.encoded.of(Kind::NameTable);
        let tables = names.filter_map(|names| unpack::<NameTable>(&names.body).ok());
        tables.flat_map(|names| names.table).map(|(host, info)| (host, info.ips)).collect()
    }

    fn proxy_report(
        &self,
        proxy: &ProxyStatus,
        workload: Option<&Workload>,
        process: Option<&Status>,
    ) -> ProxyReport {
        let sync = proxy.kinds.iter().map(|(kind, status)| {
            let detail = match &status.sync {
                Sync::Nack(detail) => Some(detail.clone()),
                _ => None,
            };
            let state = status.sync.to_string();
            (
                kind.short().to_owned(),
                SyncReport { state, age_seconds: status.age.as_secs(), detail },
            )
        });
        let (shown, pid) = match process.map(|status| &status.phase) {
            Some(Phase::Starting) => ("starting".to_owned(), None),
            Some(Phase::Running(pid)) => ("running".to_owned(), Some(*pid)),
            Some(Phase::Waiting(why)) => (format!("waiting: {why}"), None),
            Some(Phase::Ending) => ("ending".to_owned(), None),
            None => ("not run here".to_owned(), None),
        };
        let is_envoy = workload.is_some_and(|workload| workload.is_envoy);
        ProxyReport {
            namespace: proxy.workload.namespace.to_string(),
            name: proxy.workload.name.to_string(),
            role: if proxy.role == Role::Gateway { "gateway" } else { "sidecar" }.to_owned(),
            engine: match (&proxy.peer, is_envoy) {
                (Some(Peer::Local), _) => "xDS client",
                (_, true) => "envoy",
                (_, false) => "sluis",
            }
            .to_owned(),
            address: proxy.address.to_string(),
            identity: proxy.id.to_string(),
            process: shown,
            pid,
            restarts: process.map_or(0, |status| status.restarts),
            certificate_ends: self.authority.latest_end(&proxy.id).and_then(rfc3339),
            is_connected: proxy.connected.is_some(),
            sync: sync.collect(),
        }
    }

    /// Whether a workload's proxy passes on what nothing claims, as its own name server judges.
    fn allows_any(&self, name: &ObjectName) -> bool {
        let listeners = self.resources(name, "listeners").unwrap_or_default();
        listeners.to_string().contains("\"PassthroughCluster\"")
    }

    fn workload(&self, name: &ObjectName) -> Result<(Local, Workload), Denial> {
        let local = self.local();
        let workload = local.workloads.get(name).cloned().ok_or_else(|| {
            let known: Vec<String> = local.workloads.keys().map(ToString::to_string).collect();
            Denial::NotFound(format!(
                "no WorkloadEntry {name} with annotation sluis.dev/run; there are: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        })?;
        Ok((local, workload))
    }
}

impl Answers for Mesh {
    fn custody(&self) -> (Custody, Control) {
        (self.custody.clone(), self.control.clone())
    }

    fn report(&self) -> Report {
        let local = self.local();
        let processes = self.statuses.all();
        let proxies = self.control.proxies();
        let faults = self.faults();
        Report {
            control_plane: self.address.to_string(),
            trust_domain: self.control.trust_domain().to_string(),
            proxies: proxies
                .iter()
                .map(|proxy| {
                    let name = &proxy.workload;
                    self.proxy_report(proxy, local.workloads.get(name), processes.get(name))
                })
                .collect(),
            errors: faults.iter().filter(|fault| fault.is_error()).count(),
            details: faults.iter().map(Into::into).collect(),
            faults: faults.iter().map(ToString::to_string).collect(),
        }
    }

    fn objects(&self, kinds: &str, is_whole: bool) -> Result<Vec<ObjectReport>, Denial> {
        let kinds = objects::kinds_named(kinds).map_err(|UnknownKind(kind)| {
            Denial::NotFound(format!("no objects of kind {kind:?}"))
        })?;
        Ok(objects::list(&self.control.snapshot(), &self.faults(), &kinds, is_whole))
    }

    fn tls_checks(&self, namespace: &str, workload: Option<&str>) -> Result<Vec<TlsRow>, Denial> {
        let name = workload.map(|workload| ObjectName::new(namespace, workload));
        tls_check::rows(&self.control.snapshot(), name.as_ref(), namespace)
            .map_err(Denial::NotFound)
    }

    fn credential_rows(&self) -> Vec<CredentialRow> {
        grants::rows(&self.control.snapshot(), &self.faults())
    }

    fn credential_test(&self, name: &ObjectName, asked: &Asked) -> Result<Verdict, Denial> {
        grants::test(&self.control.snapshot(), name, asked).map_err(Denial::NotFound)
    }

    fn resources(&self, name: &ObjectName, kind: &str) -> Result<Value, Denial> {
        let kind = kind_named(kind)
            .ok_or_else(|| Denial::NotFound(format!("no resources of kind {kind}")))?;
        let config = match self.control.config_of(name) {
            Some(Ok(config)) => config,
            Some(Err(error)) => return Err(Denial::NotFound(error.to_string())),
            None => return Err(Denial::NotFound(format!("no WorkloadEntry {name}"))),
        };
        let all: Result<Vec<Value>, _> = config
            .config
            .encoded
            .of(kind)
            .map(|resource| sluis_protojson::to_json(&resource.body))
            .collect();
        all.map(Value::Array).map_err(|error| Denial::Failed(error.to_string()))
    }

    fn envoy_bootstrap(&self, name: &ObjectName) -> Result<Value, Denial> {
        let (_, workload) = self.workload(name)?;
        let id = WorkloadId::new(
            self.control.trust_domain().clone(),
            &name.namespace,
            &workload.account,
        )
        .map_err(|error| Denial::Failed(error.to_string()))?;
        let control = ControlPlane { address: self.address, roots: &self.authority.root_path() };
        let files = self.state.workload(name);
        // The Envoy binds its admin socket there, and may start before we have come to this workload.
        files.create().map_err(|error| Denial::Failed(error.to_string()))?;
        Ok(bootstrap::render(&workload, &id, &files, &control, Engine::Envoy))
    }

    fn authority(&self) -> AuthorityStatus {
        self.authority.status()
    }

    fn bundle(&self) -> Value {
        self.authority.spiffe_bundle()
    }

    fn rotate(&self, order: &RotateOrder) -> Result<AuthorityStatus, Denial> {
        let refused = |error: &dyn std::fmt::Display| Denial::Refused(error.to_string());
        let plugin = order.ca_dir.as_deref().map(CaFiles::from_dir).transpose();
        let plugin = plugin.map_err(|error| refused(&error))?;
        let step = order.step.unwrap_or_else(|| self.authority.next_step());
        self.authority
            .rotate(step, order.force, plugin.as_ref())
            .map_err(|error| refused(&error))?;
        Ok(self.authority.status())
    }

    fn jail_plan(&self, name: &ObjectName) -> Result<JailPlan, Denial> {
        let (local, workload) = self.workload(name)?;
        if workload.is_gateway {
            return Err(Denial::NotFound(format!(
                "{name} is a gateway; a command needs a sidecar"
            )));
        }
        let files = self.state.workload(name);
        let mut hidden: BTreeSet<PathBuf> =
            local.workloads.values().flat_map(|workload| workload.hidden.clone()).collect();
        // Who reaches the socket of the Workload API is the workload: each jail sees its own alone.
        let others = local.workloads.values().filter(|other| other.name != workload.name);
        hidden.extend(others.filter_map(|other| other.workload_api.clone()));
        let variables: BTreeSet<String> =
            local.workloads.values().flat_map(|workload| workload.inherited.clone()).collect();
        Ok(JailPlan {
            netns: workload.netns.clone(),
            handoff: (!workload.is_envoy).then(|| files.handoff_socket()),
            capture: files.capture_socket(),
            names: files.names(),
            hidden: hidden.into_iter().collect(),
            policy: workload.policy,
            allows_any: self.allows_any(name),
            roots: self.authority.root_path(),
            workload_api: workload.workload_api.map(|folder| folder.join(WORKLOAD_API_SOCKET)),
            secret_variables: variables.into_iter().collect(),
        })
    }
}

fn rfc3339(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}
