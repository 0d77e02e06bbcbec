//! Telemetry: what is logged, counted and traced of the traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::{Percent, SourceRef};

use super::target::PolicyTarget;

/// `telemetry.istio.io` Telemetry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Telemetry {
    /// `selector`, `targetRef` or `targetRefs`.
    pub target: PolicyTarget,
    /// `tracing`; Istio obeys the first.
    pub tracing: Vec<Tracing>,
    /// `metrics`.
    pub metrics: Vec<Metrics>,
    /// `accessLogging`.
    pub access_logging: Vec<AccessLogging>,
}

/// On which side of a connection something holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadMode {
    /// Both. The default.
    #[default]
    ClientAndServer,
    /// What the workload sends.
    Client,
    /// What the workload receives.
    Server,
}

/// One of `tracing`. What is not written is inherited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// Place of the list item.
    pub at: SourceRef,
    /// `match.mode`.
    pub mode: WorkloadMode,
    /// `providers[].name`; empty means the inherited or default ones.
    pub providers: Vec<String>,
    /// `randomSamplingPercentage`.
    pub random_sampling_percentage: Option<Percent>,
    /// `disableSpanReporting`.
    pub disable_span_reporting: Option<bool>,
    /// `disableContextPropagation`: no trace headers are added or passed on.
    pub disable_context_propagation: Option<bool>,
    /// `customTags`.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// `useRequestIdForTraceSampling`; `None` means true.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// `enableIstioTags`; `None` means true.
    pub enable_istio_tags: Option<bool>,
}

/// One of `customTags`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomTag {
    /// `literal.value`.
    Literal(String),
    /// `environment`: a variable of the proxy.
    Environment {
        /// `name`.
        name: String,
        /// `defaultValue`.
        default: Option<String>,
    },
    /// `header` of the request.
    Header {
        /// `name`.
        name: String,
        /// `defaultValue`.
        default: Option<String>,
    },
    /// `formatter.value`: Envoy's format of a text.
    Formatter(String),
}

/// One of `metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Place of the list item.
    pub at: SourceRef,
    /// `providers[].name`; empty means the inherited or default ones.
    pub providers: Vec<String>,
    /// `overrides`, the later wins.
    pub overrides: Vec<MetricsOverride>,
    /// `reportingInterval`.
    pub reporting_interval: Option<Duration>,
}

/// One of `overrides`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsOverride {
    /// Place of the list item.
    pub at: SourceRef,
    /// `match.metric` (`ALL_METRICS` where nothing is written) or `match.customMetric`.
    pub metric: MetricName,
    /// `match.mode`.
    pub mode: WorkloadMode,
    /// `disabled`.
    pub disabled: Option<bool>,
    /// `tagOverrides`; `None` removes the tag, a text is the expression of its value.
    pub tags: BTreeMap<String, Option<String>>,
}

/// Which metric is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricName {
    /// All of them.
    #[default]
    All,
    /// One of Istio's, by its name in the API, such as `REQUEST_COUNT`.
    Istio(&'static str),
    /// Another, by its own name.
    Custom(String),
}

/// One of `accessLogging`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogging {
    /// Place of the list item.
    pub at: SourceRef,
    /// `match.mode`.
    pub mode: WorkloadMode,
    /// `providers[].name`; empty means the inherited or default ones.
    pub providers: Vec<String>,
    /// `disabled`.
    pub disabled: Option<bool>,
    /// `filter.expression`, CEL.
    pub filter: Option<String>,
}
