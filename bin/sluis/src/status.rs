//! What runs, who it is, and whether it is in sync: one report, shown by `up` and `proxy-status`.
//!
//! In:    what the supervisor, the control plane and the certificate authority know.
//! Out:   a [`Report`], which travels as JSON; lines and tables made of it.
//! Never: asks anything itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluis_envoy::Kind;
use sluis_resources::Fault;

use crate::output::Table;

/// The state of the whole mesh on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The control plane's gRPC address.
    pub control_plane: String,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Every workload that has a proxy, or that a proxy is connected for.
    pub proxies: Vec<ProxyReport>,
    /// What is wrong in the configuration, each with its place.
    pub faults: Vec<String>,
    /// How many of them are errors; the others are warnings.
    #[serde(default)]
    pub errors: usize,
    /// The same as `faults`, in parts.
    #[serde(default)]
    pub details: Vec<FaultReport>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FaultReport {
    /// `error` or `warning`.
    pub level: String,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// The column, from 1; 0 where the whole line is meant.
    pub column: u32,
    /// The object, such as `Gateway egress/istio-egressgateway`.
    pub resource: Option<String>,
    /// The field; empty for the whole object.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl From<&Fault> for FaultReport {
    fn from(fault: &Fault) -> Self {
        Self {
            level: fault.level.to_string(),
            file: fault.at.file.to_string(),
            line: fault.at.line,
            column: fault.at.column,
            resource: fault.resource.clone(),
            field: fault.path.clone(),
            message: fault.message.clone(),
            help: fault.help.clone(),
        }
    }
}

/// One proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProxyReport {
    /// The workload's namespace.
    pub namespace: String,
    /// The workload's name.
    pub name: String,
    /// `gateway` or `sidecar`.
    pub role: String,
    /// `sluis` or `envoy`.
    pub engine: String,
    /// The workload's address.
    pub address: String,
    /// Its SPIFFE identity.
    pub identity: String,
    /// What its process is doing: `running`, `starting`, `waiting: why`, `ending`.
    pub process: String,
    /// Its process id, when it runs.
    pub pid: Option<i32>,
    /// How often it died and was started again.
    pub restarts: u32,
    /// When its certificate ends, RFC 3339; none before the first was issued.
    pub certificate_ends: Option<String>,
    /// Whether it has an xDS stream.
    pub is_connected: bool,
    /// For each kind (`CDS`, …), whether it has what it should have.
    pub sync: BTreeMap<String, SyncReport>,
}

/// Whether a proxy has the resources of one kind that it should have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SyncReport {
    /// `SYNCED`, `STALE`, `NACK` or `NOT SENT`.
    pub state: String,
    /// Seconds since it is so.
    pub age_seconds: u64,
    /// What the proxy said when it refused.
    pub detail: Option<String>,
}

impl ProxyReport {
    /// One word for all kinds together: the worst of them.
    pub(crate) fn sync_word(&self) -> &'static str {
        let has = |state: &str| self.sync.values().any(|kind| kind.state == state);
        if !self.is_connected {
            "NOT CONNECTED"
        } else if has("NACK") {
            "NACK"
        } else if has("STALE") {
            "STALE"
        } else {
            "SYNCED"
        }
    }

    /// The line by which `up` tells of a change. Holds nothing that changes by itself.
    pub(crate) fn line(&self) -> String {
        let pid = self.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
        let certificate = match &self.certificate_ends {
            Some(time) => format!("certificate until {time}"),
            None => "no certificate yet".to_owned(),
        };
        let refused: String = self
            .sync
            .iter()
            .filter_map(|(kind, sync)| {
                Some(format!("\n    {kind} refused: {}", sync.detail.as_ref()?))
            })
            .collect();
        format!(
            "{}/{}  {} ({})  {}{pid}  {}  {certificate}  {}{refused}",
            self.namespace,
            self.name,
            self.role,
            self.engine,
            self.process,
            self.identity,
            self.sync_word(),
        )
    }
}

impl Report {
    /// The table of `proxy-status`; wide adds identity, certificate and process.
    pub(crate) fn table(&self, is_wide: bool) -> Table {
        let mut header = vec!["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "SDS", "NDS"];
        if is_wide {
            header.extend(["ENGINE", "PROCESS", "RESTARTS", "CERTIFICATE UNTIL", "IDENTITY"]);
        }
        let mut table = Table::new(&header);
        for proxy in &self.proxies {
            let mut row = vec![format!("{}.{}", proxy.name, proxy.namespace), "Sluis".to_owned()];
            for kind in [
                Kind::Cluster,
                Kind::Listener,
                Kind::Endpoints,
                Kind::Route,
                Kind::Secret,
                Kind::NameTable,
            ] {
                row.push(proxy.sync_cell(kind));
            }
            if is_wide {
                row.push(proxy.engine.clone());
                row.push(proxy.process.clone());
                row.push(proxy.restarts.to_string());
                row.push(proxy.certificate_ends.clone().unwrap_or_default());
                row.push(proxy.identity.clone());
            }
            table.row(row);
        }
        table
    }
}

impl ProxyReport {
    fn sync_cell(&self, kind: Kind) -> String {
        if !self.is_connected {
            return "NOT CONNECTED".to_owned();
        }
        match self.sync.get(kind.short()) {
            Some(sync) => format!("{} ({}s)", sync.state, sync.age_seconds),
            None => "IGNORED".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(states: &[(&str, &str)]) -> ProxyReport {
        let sync = states.iter().map(|(kind, state)| {
            ((*kind).to_owned(), SyncReport { state: (*state).to_owned(), ..SyncReport::default() })
        });
        ProxyReport { is_connected: true, sync: sync.collect(), ..ProxyReport::default() }
    }

    #[test]
    fn one_refused_kind_makes_the_whole_proxy_refused() {
        assert_eq!(proxy(&[("CDS", "SYNCED"), ("LDS", "NACK")]).sync_word(), "NACK");
        assert_eq!(proxy(&[("CDS", "STALE"), ("LDS", "SYNCED")]).sync_word(), "STALE");
        assert_eq!(proxy(&[("CDS", "SYNCED")]).sync_word(), "SYNCED");
        assert_eq!(ProxyReport::default().sync_word(), "NOT CONNECTED");
    }
}
