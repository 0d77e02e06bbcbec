//! Rows of `sluis authn tls-check`: what servers take, what clients send, and whether both agree.
//!
//! In:    a snapshot of the mesh, and the client.
//! Out:   [`TlsRow`]s, as the interface carries them.
//! Never: asks a server: `--probe` of the verb does.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sluis_model::{ClientSends, EndpointAddress, ServerTls, Snapshot, TlsCheck};
use sluis_nouns::{Labels, ObjectName};

/// One port of a service, as far as its endpoints are treated alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsRow {
    /// The service's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the workloads speak TLS themselves on this port.
    pub is_own_tls: bool,
    /// `OK` or `CONFLICT`.
    pub status: String,
    /// `STRICT`, `PERMISSIVE`, `DISABLE`; `NONE` without a sidecar, `EXTERNAL` outside of the mesh.
    pub server: String,
    /// `ISTIO_MUTUAL`, `SIMPLE`, `MUTUAL` or `DISABLE`.
    pub client: String,
    /// The PeerAuthentication that decides, as `name/namespace`; none for the default.
    pub policy: Option<String>,
    /// The DestinationRule that speaks of TLS, as `name/namespace`; none for automatic mutual TLS.
    pub destination_rule: Option<String>,
    /// The endpoints' addresses with ports.
    pub endpoints: Vec<String>,
    /// What `--probe` found at each endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
}

/// What an endpoint did when it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probe {
    /// The endpoint.
    pub endpoint: String,
    /// What it made of TLS: `demands a certificate`, `taken`, or why not.
    pub tls: String,
    /// What it made of plain text: `taken`, `refused`, or why it could not be asked.
    pub plain: String,
    /// Whether this is what the configuration says.
    pub is_confirmed: bool,
}

/// The rows for a client: a workload, or anybody in a namespace.
///
/// # Errors
///
/// When there is no such workload.
pub(crate) fn rows(
    snapshot: &Snapshot,
    workload: Option<&ObjectName>,
    namespace: &str,
) -> Result<Vec<TlsRow>, String> {
    let (namespace, labels) = match workload {
        None => (namespace.to_owned(), Labels::new()),
        Some(name) => {
            let entry = snapshot.workload(name).map(|entry| entry.labels());
            let pod = || snapshot.pod(name).map(|pod| pod.meta().labels.clone());
            let labels =
                entry.or_else(pod).ok_or_else(|| format!("there is no workload {name}"))?;
            (name.namespace.to_string(), labels)
        }
    };
    Ok(snapshot.tls_checks(&namespace, &labels).iter().map(row).collect())
}

fn row(check: &TlsCheck) -> TlsRow {
    let named = |name: &ObjectName| format!("{}/{}", name.name, name.namespace);
    let shown = |(address, port): &(EndpointAddress, u16)| match address {
        EndpointAddress::Ip(ip) => SocketAddr::new(*ip, *port).to_string(),
        EndpointAddress::Dns(name) => format!("{name}:{port}"),
        EndpointAddress::Unix(path) => format!("unix://{path}"),
    };
    TlsRow {
        host: check.host.clone(),
        port: check.port,
        is_own_tls: check.protocol.is_tls(),
        status: if check.is_agreed { OK } else { CONFLICT }.to_owned(),
        server: match check.server {
            ServerTls::Strict => "STRICT",
            ServerTls::Permissive => "PERMISSIVE",
            ServerTls::Disable => "DISABLE",
            ServerTls::NoSidecar => "NONE",
            ServerTls::External => "EXTERNAL",
        }
        .to_owned(),
        client: match check.client {
            ClientSends::Mesh => "ISTIO_MUTUAL",
            ClientSends::Plain => "DISABLE",
            ClientSends::Simple => "SIMPLE",
            ClientSends::Mutual => "MUTUAL",
        }
        .to_owned(),
        policy: check.policy.as_ref().map(named),
        destination_rule: check.rule.as_ref().map(named),
        endpoints: check.endpoints.iter().map(shown).collect(),
        probes: Vec::new(),
    }
}

/// Both sides agree.
pub(crate) const OK: &str = "OK";
/// They do not: no connection can be made.
pub(crate) const CONFLICT: &str = "CONFLICT";

/// As istioctl's table shows what a server takes.
pub(crate) fn server_shown(server: &str) -> &str {
    match server {
        "STRICT" => "mTLS",
        "PERMISSIVE" => "HTTP/mTLS",
        "DISABLE" | "NONE" => "HTTP",
        _ => "-",
    }
}

/// As istioctl's table shows what a client sends.
pub(crate) fn client_shown(client: &str) -> &str {
    match client {
        "ISTIO_MUTUAL" => "mTLS",
        "DISABLE" => "HTTP",
        "SIMPLE" => "TLS",
        _ => "mTLS (own)",
    }
}
