//! What `sluis up` runs for one WorkloadEntry.
//!
//! In:    the WorkloadEntry's address, service account and `sluis.dev/` annotations.
//! Out:   a [`Workload`]: who it is, which program serves it, its environment; or what is wrong.
//! Never: reads the environment itself: it only names the variables that the proxy may have.
//!
//! | annotation | meaning |
//! |---|---|
//! | `sluis.dev/run` | `sidecar` or `gateway`: start a proxy for this workload |
//! | `sluis.dev/proxy` | `sluis` (default) or `envoy`: only the agent is started, Envoy is yours to run |
//! | `sluis.dev/env` | names of variables, separated by commas, that the proxy gets from `sluis up` |
//! | `sluis.dev/lua-path` | the folder in which a Lua filter's `require` looks |
//! | `sluis.dev/netns` | the network namespace, by path, in which the proxy runs: capture is a packet filter's |
//! | `sluis.dev/workload-api` | a folder, for this workload alone: SPIFFE's Workload API on `workload.sock` in it |
//! | `sluis.dev/hide` | paths, separated by commas, that `sluis exec` covers in the jail |
//! | `sluis.dev/read-only`, `sluis.dev/writable` | paths that a command in the jail cannot change; what it can within them |
//! | `sluis.dev/unix-sockets` | the sockets that it can call: `none`, `any`, or paths; others that exist are covered |
//! | `sluis.dev/clean-env` | `"true"`: `sluis exec` takes away variables with names of secrets |
//! | `sluis.dev/ca-certificates` | files of authorities that it should trust besides the system's |
//! | `proxy.istio.io/config` | Istio's own: `proxyMetadata` (environment), `concurrency` (workers), `interceptionMode`; goes over `ProxyConfig` objects |

mod policy;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sluis_control::{NETNS_ANNOTATION, PROXY_ANNOTATION, proxy_view, wants_proxy};
use sluis_model::{Snapshot, Workload as MeshWorkload};
use sluis_nouns::{ObjectName, TrustDomain};
use sluis_resources::{Fault, InterceptionMode};
use sluis_translate::{ProxyView, Role};

pub(crate) use policy::JailPolicy;

/// One workload whose proxy, or agent, this machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// The WorkloadEntry's name.
    pub name: ObjectName,
    /// Its service account; `default` when it names none.
    pub account: String,
    /// Its own address.
    pub address: IpAddr,
    /// A gateway, or else a sidecar.
    pub is_gateway: bool,
    /// A real Envoy serves it, and we run only the agent.
    pub is_envoy: bool,
    /// Variables set for the proxy.
    pub environment: BTreeMap<String, String>,
    /// Names of variables that the proxy gets from `sluis up`.
    pub inherited: Vec<String>,
    /// How many worker threads; the proxy decides when none is given.
    pub workers: Option<u32>,
    /// Where a Lua filter's `require` looks.
    pub lua_path: Option<PathBuf>,
    /// The network namespace that the proxy enters as it starts.
    pub netns: Option<PathBuf>,
    /// Whether a packet filter brings what it receives with the client's address kept (TPROXY).
    pub is_transparent: bool,
    /// The port on which a sidecar in a namespace answers for the application's health.
    pub status_port: u16,
    /// The folder of the socket on which the application gets the workload's own certificate.
    pub workload_api: Option<PathBuf>,
    /// What a jail of this workload must not see.
    pub hidden: Vec<PathBuf>,
    /// What a command of this workload may do.
    pub policy: JailPolicy,
}

/// The part of Istio's ProxyConfig that bears on a process on this machine.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ProxyConfig {
    proxy_metadata: BTreeMap<String, String>,
    concurrency: Option<u32>,
    interception_mode: Option<Interception>,
}

/// Istio's `ProxyConfig.interceptionMode`.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Interception {
    Redirect,
    Tproxy,
    None,
}

/// Reads the workload off its entry; `None` when the entry asks for no proxy, or for one that it
/// cannot have: the control plane's own faults name what is wrong then.
///
/// Relative paths in annotations are taken from `base`, the directory in which `sluis up` runs.
///
/// # Errors
///
/// A fault for an annotation with a value that is not understood: nothing is started then.
pub(crate) fn read(
    entry: &MeshWorkload,
    snapshot: &Snapshot,
    domain: &TrustDomain,
    base: &Path,
) -> Result<Option<Workload>, Box<Fault>> {
    let meta = entry.meta();
    if !wants_proxy(entry) {
        return Ok(None);
    }
    let Ok(view) = proxy_view(entry, None, domain) else { return Ok(None) };
    let annotation = |key: &str| meta.annotations.get(key).map(String::as_str);
    let fault = |key: &str, message: String| {
        let fault = Fault::error(meta.at.clone(), message)
            .of(format!("{} {}", meta.kind, meta.name))
            .field(format!("metadata.annotations[{key}]"));
        Box::new(fault)
    };
    let is_envoy = match annotation(PROXY_ANNOTATION) {
        None | Some("sluis") => false,
        Some("envoy") => true,
        Some(other) => {
            return Err(fault(PROXY_ANNOTATION, format!("{other:?} is neither sluis nor envoy")));
        }
    };
    let config = match annotation(PROXY_CONFIG) {
        Some(text) => {
            serde_saphyr::from_str(text).map_err(|error| fault(PROXY_CONFIG, error.to_string()))?
        }
        None => ProxyConfig::default(),
    };
    let of_mesh = snapshot.mesh().default_config.interception_mode == InterceptionMode::Tproxy;
    let written = config.interception_mode.map(|mode| mode == Interception::Tproxy);
    // The entry's own annotation is in the view.
    let is_transparent = view.node.is_transparent.or(written).unwrap_or(of_mesh);
    let (environment, workers) = settings(snapshot, &view, config);
    let policy = policy::read(annotation, base).map_err(|(key, message)| fault(key, message))?;
    Ok(Some(Workload {
        name: meta.name.clone(),
        account: view.id.service_account().to_owned(),
        address: view.address,
        is_gateway: view.role == Role::Gateway,
        is_envoy,
        environment,
        inherited: list(annotation("sluis.dev/env")),
        workers,
        lua_path: annotation("sluis.dev/lua-path").map(|path| base.join(path)),
        is_transparent,
        status_port: match annotation(STATUS_PORT) {
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| fault(STATUS_PORT, format!("{text:?} is no port")))?,
            None => snapshot.mesh().default_config.status_port,
        },
        netns: annotation(NETNS_ANNOTATION).map(|path| base.join(path)),
        workload_api: annotation("sluis.dev/workload-api").map(|path| base.join(path)),
        hidden: list(annotation("sluis.dev/hide")).iter().map(|path| base.join(path)).collect(),
        policy,
    }))
}

/// Istio's own: the port of the agent's health checks, which capture leaves alone.
const STATUS_PORT: &str = "status.sidecar.istio.io/port";

const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// Environment and workers of a proxy: the mesh's `defaultConfig`, over it the `ProxyConfig` objects that
/// hold for the workload, over them its annotation.
fn settings(
    snapshot: &Snapshot,
    view: &ProxyView,
    own: ProxyConfig,
) -> (BTreeMap<String, String>, Option<u32>) {
    let default = &snapshot.mesh().default_config;
    let mut environment = default.proxy_metadata.clone();
    let mut workers = default.concurrency;
    for config in snapshot.proxy_configs(&view.name.namespace, &view.labels) {
        let config = config.spec();
        environment.extend(config.environment.clone());
        workers = config.concurrency.or(workers);
    }
    environment.extend(own.proxy_metadata);
    // As Istio: 0 is one for each core, which is what a proxy does by itself.
    (environment, own.concurrency.or(workers).filter(|workers| *workers > 0))
}

fn list(value: Option<&str>) -> Vec<String> {
    let items = value.unwrap_or_default().split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}
