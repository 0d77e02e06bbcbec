//! How a proxy's view follows from its workload and from what the proxy says of itself. Pure.

use sluis_model::{Snapshot, Workload};
use sluis_nouns::{SourceRef, TrustDomain, WorkloadId, WorkloadIdError};
use sluis_resources::{Fault, WorkloadAddress};
use sluis_translate::{Capture, ProxyView, Role};

use crate::{
    ProxyNode,
    node::{Interception, NodeId, NodeIdError},
};

/// Says that a local proxy is to be run for the workload, and which: `sidecar` or `gateway`.
pub const RUN_ANNOTATION: &str = "sluis.dev/run";

/// Says which program the local proxy is: `sluis` (the default) or `envoy`.
pub const PROXY_ANNOTATION: &str = "sluis.dev/proxy";

/// Says in which network namespace the local proxy is started, by path; its connections are captured
/// there by a packet filter.
pub const NETNS_ANNOTATION: &str = "sluis.dev/netns";

/// Istio's own: `REDIRECT`, `TPROXY` or `NONE`.
const INTERCEPTION_ANNOTATION: &str = "sidecar.istio.io/interceptionMode";

/// Node metadata: the unix socket through which the workload's connections come.
const CAPTURE_PIPE_KEY: &str = "SLUIS_CAPTURE_PIPE";

/// The service account of an entry that names none, as in Kubernetes.
const ACCOUNT_DEFAULT: &str = "default";

/// Bytes of a unix socket's path that Linux takes (`sun_path` without its final zero).
const PIPE_BYTES_MAX: usize = 107;

/// Why a workload can have no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The entry has no IP address.
    #[error("a proxy needs an IP address as spec.address")]
    Address,
    /// An annotation has another value than those that are known.
    #[error("annotation {annotation} is {value:?}; {expected} are known")]
    Annotation {
        /// The annotation's key.
        annotation: &'static str,
        /// The value that it has.
        value: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// The namespace or account does not make an identity.
    #[error("no identity can be made: {0}")]
    Identity(#[from] WorkloadIdError),
    /// The proxy's own word about itself is not understood.
    #[error(transparent)]
    Node(#[from] NodeIdError),
    /// Envoy must say through which socket connections come.
    #[error("an Envoy sidecar must name its socket in node metadata {CAPTURE_PIPE_KEY}")]
    NoPipe,
    /// The socket's path cannot be bound.
    #[error(
        "node metadata {CAPTURE_PIPE_KEY} must be an absolute path of at most {PIPE_BYTES_MAX} bytes"
    )]
    Pipe,
}

impl ViewError {
    /// The error as a fault of the workload's resource.
    pub(crate) fn fault(&self, workload: &Workload) -> Fault {
        let at: SourceRef = workload.meta().at.clone();
        let resource = workload.resource.key().to_string();
        let fault = Fault::error(at, self.to_string()).of(resource);
        match self {
            Self::Address => fault.field("spec.address"),
            Self::Annotation { annotation, .. } => {
                fault.field(format!("metadata.annotations[{annotation}]"))
            }
            Self::Identity(_) => fault.field("spec.serviceAccount"),
            Self::Node(_) | Self::NoPipe | Self::Pipe => fault,
        }
    }
}

/// The identity that a workload's proxy must prove.
///
/// # Errors
///
/// [`ViewError::Identity`] when the namespace or the account is not a DNS name.
pub fn workload_id(workload: &Workload, domain: &TrustDomain) -> Result<WorkloadId, ViewError> {
    let account = workload.spec().service_account.as_deref().unwrap_or(ACCOUNT_DEFAULT);
    Ok(WorkloadId::new(domain.clone(), &workload.meta().name.namespace, account)?)
}

/// Whether the workload asks for a local proxy.
#[must_use]
pub fn wants_proxy(workload: &Workload) -> bool {
    workload.meta().annotations.contains_key(RUN_ANNOTATION)
}

/// The view of the proxy of one workload. `node` is what the proxy said when it connected; without
/// it the view is the one that a proxy started from the annotations would get.
///
/// | part     | from                                                                          |
/// |----------|-------------------------------------------------------------------------------|
/// | name     | the `WorkloadEntry`                                                           |
/// | identity | trust domain, namespace, `serviceAccount` (`default` when none is written)    |
/// | address  | `spec.address`, which must be an IP address                                   |
/// | labels   | those of the object and of the entry, which win                               |
/// | role     | annotation `sluis.dev/run`; without it, a node id `router~…` is a gateway     |
/// | capture  | gateways: none. Sidecars: a packet filter, with annotation `sluis.dev/netns`  |
/// |          | or `sidecar.istio.io/interceptionMode`; else the socket in node metadata      |
/// |          | `SLUIS_CAPTURE_PIPE` where there is one; else the jail's hand-over            |
/// | dns      | sidecars answer for the mesh's hosts                                          |
///
/// With `sluis.dev/proxy: envoy` a sidecar that has connected must name that socket, because Envoy
/// takes no sockets from a jail; before it has connected, nothing is captured.
///
/// # Errors
///
/// A [`ViewError`] that names the annotation or field at fault.
pub fn proxy_view(
    workload: &Workload,
    node: Option<&ProxyNode>,
    domain: &TrustDomain,
) -> Result<ProxyView, ViewError> {
    let Some(WorkloadAddress::Ip(address)) = workload.spec().address else {
        return Err(ViewError::Address);
    };
    let role = role(workload, node)?;
    let capture = match role {
        Role::Gateway => Capture::None,
        Role::Sidecar => capture(workload, node)?,
    };
    let mut facts = node.map(|node| node.facts.clone()).unwrap_or_default();
    let kind = workload.meta().annotations.get(PROXY_ANNOTATION).map(String::as_str);
    // What is started is our own, unless an Envoy is to stand there.
    facts.is_ours |= node.is_none() && kind != Some("envoy");
    match workload.meta().annotations.get(INTERCEPTION_ANNOTATION).map(String::as_str) {
        Some("TPROXY") => facts.is_transparent = Some(true),
        Some("REDIRECT") => facts.is_transparent = Some(false),
        _ => {}
    }
    Ok(ProxyView {
        name: workload.meta().name.clone(),
        id: workload_id(workload, domain)?,
        address,
        labels: workload.labels(),
        role,
        capture,
        dns: role == Role::Sidecar,
        node: facts,
    })
}

/// The view of a proxy that proved nothing: what it says of itself, as Istio's port 15010 takes it.
///
/// The labels and the account of the `WorkloadEntry` or Pod that its id names win over its own word.
///
/// # Errors
///
/// A [`ViewError`] that names the part of the id or metadata at fault.
pub(crate) fn claimed_view(
    node: &ProxyNode,
    id: NodeId,
    snapshot: &Snapshot,
    domain: &TrustDomain,
) -> Result<ProxyView, ViewError> {
    let capture = match (id.role, &node.capture_pipe, node.interception) {
        (Role::Gateway, ..) => Capture::None,
        _ if node.facts.is_grpc => Capture::None,
        (Role::Sidecar, Some(path), _) => pipe(path)?,
        (Role::Sidecar, None, Interception::Redirect) => Capture::Redirect,
        (Role::Sidecar, None, Interception::None) => Capture::None,
    };
    let namespace = &id.name.namespace;
    let account = |account: &str| WorkloadId::new(domain.clone(), namespace, account);
    let (identity, labels) = match (snapshot.workload(&id.name), snapshot.pod(&id.name)) {
        (Some(workload), _) => (workload_id(workload, domain)?, workload.labels()),
        (None, Some(pod)) => (account(&pod.spec().service_account)?, pod.meta().labels.clone()),
        (None, None) => {
            (account(node.account.as_deref().unwrap_or(ACCOUNT_DEFAULT))?, node.labels.clone())
        }
    };
    Ok(ProxyView {
        id: identity,
        address: id.address,
        labels,
        role: id.role,
        capture,
        dns: id.role == Role::Sidecar && node.takes_dns,
        name: id.name,
        node: node.facts.clone(),
    })
}

fn role(workload: &Workload, node: Option<&ProxyNode>) -> Result<Role, ViewError> {
    match workload.meta().annotations.get(RUN_ANNOTATION).map(String::as_str) {
        Some("gateway") => Ok(Role::Gateway),
        Some("sidecar") => Ok(Role::Sidecar),
        Some(value) => Err(ViewError::Annotation {
            annotation: RUN_ANNOTATION,
            value: value.to_owned(),
            expected: "sidecar and gateway",
        }),
        None if node.is_some_and(|node| node.id.starts_with("router~")) => Ok(Role::Gateway),
        None => Ok(Role::Sidecar),
    }
}

fn capture(workload: &Workload, node: Option<&ProxyNode>) -> Result<Capture, ViewError> {
    let is_envoy = match workload.meta().annotations.get(PROXY_ANNOTATION).map(String::as_str) {
        Some("envoy") => true,
        Some("sluis") | None => false,
        Some(value) => {
            return Err(ViewError::Annotation {
                annotation: PROXY_ANNOTATION,
                value: value.to_owned(),
                expected: "sluis and envoy",
            });
        }
    };
    if let Some(capture) = packet_filter(workload)? {
        return Ok(capture);
    }
    match node.and_then(|node| node.capture_pipe.as_ref()) {
        Some(path) => pipe(path),
        None if is_envoy && node.is_some() => Err(ViewError::NoPipe),
        None if is_envoy => Ok(Capture::None),
        None => Ok(Capture::Jail),
    }
}

/// What the annotations say of capture by a packet filter; `None` when they say nothing.
fn packet_filter(workload: &Workload) -> Result<Option<Capture>, ViewError> {
    let annotations = &workload.meta().annotations;
    match annotations.get(INTERCEPTION_ANNOTATION).map(String::as_str) {
        Some("REDIRECT" | "TPROXY") => Ok(Some(Capture::Redirect)),
        Some("NONE") => Ok(Some(Capture::None)),
        Some(value) => Err(ViewError::Annotation {
            annotation: INTERCEPTION_ANNOTATION,
            value: value.to_owned(),
            expected: "REDIRECT, TPROXY and NONE",
        }),
        None => Ok(annotations.contains_key(NETNS_ANNOTATION).then_some(Capture::Redirect)),
    }
}

fn pipe(path: &str) -> Result<Capture, ViewError> {
    if path.starts_with('/') && path.len() <= PIPE_BYTES_MAX {
        Ok(Capture::ProxyProtocolPipe(path.to_owned()))
    } else {
        Err(ViewError::Pipe)
    }
}
