//! WorkloadGroup: the template of workloads that register themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::Labels;

use super::service_entry::WorkloadEntry;

/// `networking.istio.io` WorkloadGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadGroup {
    /// `metadata.labels` of the WorkloadEntries that are made.
    pub labels: Labels,
    /// `metadata.annotations` of the WorkloadEntries that are made.
    pub annotations: BTreeMap<String, String>,
    /// `template`; its address comes from the workload.
    pub template: WorkloadEntry,
    /// `probe`.
    pub probe: Option<ReadinessProbe>,
}

/// `probe`: how the readiness of a workload is found out. Zero means Kubernetes' default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessProbe {
    /// `initialDelaySeconds` before the first probe.
    pub initial_delay: Duration,
    /// `timeoutSeconds` of one probe.
    pub timeout: Duration,
    /// `periodSeconds` between probes.
    pub period: Duration,
    /// `successThreshold`: successes in a row that make ready.
    pub success_threshold: u32,
    /// `failureThreshold`: failures in a row that make unready.
    pub failure_threshold: u32,
    /// `httpGet`, `tcpSocket`, `exec` or `grpc`.
    pub method: ProbeMethod,
}

/// How one probe is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeMethod {
    /// `httpGet`: a status of 200 to 399 is success.
    Http {
        /// `host`; `None` means localhost.
        host: Option<String>,
        /// `port`.
        port: u16,
        /// `path`; `None` means `/`.
        path: Option<String>,
        /// Whether `scheme` is HTTPS.
        tls: bool,
        /// `httpHeaders`.
        headers: Vec<(String, String)>,
    },
    /// `tcpSocket`: a connection is success.
    Tcp {
        /// `host`; `None` means localhost.
        host: Option<String>,
        /// `port`.
        port: u16,
    },
    /// `exec.command`: exit status 0 is success.
    Exec(Vec<String>),
    /// `grpc`: the health service's SERVING is success.
    Grpc {
        /// `port`; `None` means the workload's only one.
        port: Option<u16>,
        /// `service`.
        service: Option<String>,
    },
}
