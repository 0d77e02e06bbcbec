//! ProxyConfig, the kind: settings of some workloads' proxies.

use std::collections::BTreeMap;

use sluis_nouns::Labels;

/// `networking.istio.io` ProxyConfig. Read when a proxy starts; goes over `defaultConfig` of the mesh
/// and under the workload's annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadProxyConfig {
    /// `selector.matchLabels`; `None` (also for an empty selector) means all in the namespace.
    pub selector: Option<Labels>,
    /// `concurrency`: worker threads; 0 means one per core.
    pub concurrency: Option<u32>,
    /// `environmentVariables` of the proxy.
    pub environment: BTreeMap<String, String>,
    /// `image.imageType`, of no effect where proxies are not started from images.
    pub image_type: Option<String>,
}
