//! WasmPlugin: a filter as WebAssembly.

use serde_json::Value;
use sluis_nouns::SourceRef;

use super::target::PolicyTarget;
use super::telemetry::WorkloadMode;

/// `extensions.istio.io` WasmPlugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WasmPlugin {
    /// `selector`, `targetRef` or `targetRefs`.
    pub target: PolicyTarget,
    /// `url`: http, https, file or oci (also where no scheme is written).
    pub url: String,
    /// `sha256` of the module, in hex.
    pub sha256: Option<String>,
    /// `imagePullPolicy`: whether it is Always.
    pub pull_always: bool,
    /// `imagePullSecret`.
    pub image_pull_secret: Option<String>,
    /// `pluginConfig`, as JSON.
    pub plugin_config: Value,
    /// `pluginName`.
    pub plugin_name: Option<String>,
    /// `phase`.
    pub phase: PluginPhase,
    /// `priority` in the phase; higher comes first.
    pub priority: Option<i32>,
    /// `failStrategy`.
    pub fail_strategy: FailStrategy,
    /// `match`: any of them is enough, and none written matches all.
    pub matches: Vec<TrafficMatch>,
    /// Whether `type` is NETWORK, and not HTTP.
    pub is_network: bool,
    /// `vmConfig.env`: names and values; `None` is taken from the proxy's environment.
    pub environment: Vec<(String, Option<String>)>,
}

/// Where in the chain of filters a plugin is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PluginPhase {
    /// At the end. The default.
    #[default]
    Unspecified,
    /// Before authentication.
    Authn,
    /// Before authorization.
    Authz,
    /// Before the metrics.
    Stats,
}

/// What happens when a plugin fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailStrategy {
    /// Requests are refused. The default.
    #[default]
    Close,
    /// The plugin is left out.
    Open,
    /// The plugin is started again.
    Reload,
}

/// One of `match`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficMatch {
    /// Place of the list item.
    pub at: SourceRef,
    /// `mode`.
    pub mode: WorkloadMode,
    /// `ports[].number`; empty means all.
    pub ports: Vec<u16>,
}
