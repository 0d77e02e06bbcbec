//! Reads Telemetry.

use std::collections::BTreeMap;

use super::forms::{read_fields, read_names};
use super::target::policy_target;
use crate::kinds::target::{PolicyTarget, TargetKind};
use crate::kinds::telemetry::{
    AccessLogging, CustomTag, MetricName, Metrics, MetricsOverride, Telemetry, Tracing,
    WorkloadMode,
};
use crate::value::Fields;

read_fields! {
    Telemetry => telemetry,
    Tracing => tracing,
    Metrics => metrics,
    MetricsOverride => metrics_override,
    AccessLogging => access_logging,
    Provider => provider,
    Mode => mode,
    MetricMatch => metric_match,
    TagOverride => tag_override,
    CustomTag => custom_tag,
    Variable => variable,
    Text => text,
    Filter => filter,
}

read_names! {
    WorkloadMode {
        "CLIENT_AND_SERVER" => WorkloadMode::ClientAndServer,
        "CLIENT" => WorkloadMode::Client,
        "SERVER" => WorkloadMode::Server,
    }
    IstioMetric {
        "ALL_METRICS" => IstioMetric(None),
        "REQUEST_COUNT" => IstioMetric(Some("REQUEST_COUNT")),
        "REQUEST_DURATION" => IstioMetric(Some("REQUEST_DURATION")),
        "REQUEST_SIZE" => IstioMetric(Some("REQUEST_SIZE")),
        "RESPONSE_SIZE" => IstioMetric(Some("RESPONSE_SIZE")),
        "TCP_OPENED_CONNECTIONS" => IstioMetric(Some("TCP_OPENED_CONNECTIONS")),
        "TCP_CLOSED_CONNECTIONS" => IstioMetric(Some("TCP_CLOSED_CONNECTIONS")),
        "TCP_SENT_BYTES" => IstioMetric(Some("TCP_SENT_BYTES")),
        "TCP_RECEIVED_BYTES" => IstioMetric(Some("TCP_RECEIVED_BYTES")),
        "GRPC_REQUEST_MESSAGES" => IstioMetric(Some("GRPC_REQUEST_MESSAGES")),
        "GRPC_RESPONSE_MESSAGES" => IstioMetric(Some("GRPC_RESPONSE_MESSAGES")),
    }
    TagOperation {
        "UPSERT" => TagOperation::Upsert,
        "REMOVE" => TagOperation::Remove,
    }
}

/// A metric of Istio's by its name in the API; `None` means all.
#[derive(Clone, Copy)]
struct IstioMetric(Option<&'static str>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum TagOperation {
    #[default]
    Upsert,
    Remove,
}

fn telemetry(fields: &mut Fields<'_, '_>) -> Option<Telemetry> {
    let target = policy_target(fields);
    let tracing: Vec<Tracing> = fields.or_default("tracing");
    if let Some(value) = fields.get("tracing")
        && tracing.len() > 1
    {
        value.warn("only the first is obeyed");
    }
    let metrics = fields.or_default("metrics");
    fields.not_carried_out(&["tracing", "metrics"]);
    if let PolicyTarget::Objects(targets) = &target
        && targets.iter().any(|target| target.kind != TargetKind::Gateway)
    {
        let written = if fields.has("targetRef") { "targetRef" } else { "targetRefs" };
        fields.fault_at(written, "only a Gateway of the Gateway API can be named here");
    }
    Some(Telemetry { target, tracing, metrics, access_logging: fields.or_default("accessLogging") })
}

/// `providers: [{name: …}]`.
fn providers(fields: &mut Fields<'_, '_>) -> Vec<String> {
    let list: Vec<Provider> = fields.or_default("providers");
    list.into_iter().map(|Provider(name)| name).collect()
}

struct Provider(String);

fn provider(fields: &mut Fields<'_, '_>) -> Option<Provider> {
    required_text(fields, "name").map(Provider)
}

/// Reads a text that must be there and not be empty.
fn required_text(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<String> {
    let text: String = fields.req(name)?;
    if text.is_empty() {
        return fields.get(name)?.fault("an empty text is not allowed");
    }
    Some(text)
}

/// `match: {mode: …}`.
#[derive(Default)]
struct Mode(WorkloadMode);

fn mode(fields: &mut Fields<'_, '_>) -> Option<Mode> {
    Some(Mode(fields.or_default("mode")))
}

fn tracing(fields: &mut Fields<'_, '_>) -> Option<Tracing> {
    let Mode(mode) = fields.or_default("match");
    let providers = providers(fields);
    if let Some(value) = fields.get("providers")
        && providers.len() > 1
    {
        value.warn("only the first is obeyed");
    }
    let custom_tags: BTreeMap<String, CustomTag> = fields.or_default("customTags");
    if let Some(value) = fields.get("customTags")
        && custom_tags.contains_key("")
    {
        value.fault::<()>("the name of a tag must not be empty");
    }
    Some(Tracing {
        at: fields.at(),
        mode,
        providers,
        random_sampling_percentage: fields.opt("randomSamplingPercentage"),
        disable_span_reporting: fields.opt("disableSpanReporting"),
        disable_context_propagation: fields.opt("disableContextPropagation"),
        custom_tags,
        use_request_id_for_trace_sampling: fields.opt("useRequestIdForTraceSampling"),
        enable_istio_tags: fields.opt("enableIstioTags"),
    })
}

fn custom_tag(fields: &mut Fields<'_, '_>) -> Option<CustomTag> {
    fields.at_most_one(&["literal", "environment", "header", "formatter"]);
    let literal = fields.opt("literal").map(|Text(value)| CustomTag::Literal(value));
    let environment = fields
        .opt("environment")
        .map(|Variable { name, default }| CustomTag::Environment { name, default });
    let header =
        fields.opt("header").map(|Variable { name, default }| CustomTag::Header { name, default });
    let formatter = fields.opt("formatter").map(|Text(value)| CustomTag::Formatter(value));
    let written = ["literal", "environment", "header", "formatter"].map(|name| fields.has(name));
    if !written.contains(&true) {
        fields.value().fault::<()>("one of literal, environment, header and formatter is required");
    }
    literal.or(environment).or(header).or(formatter)
}

/// `{value: …}`.
struct Text(String);

fn text(fields: &mut Fields<'_, '_>) -> Option<Text> {
    required_text(fields, "value").map(Text)
}

/// `{name: …, defaultValue: …}`.
struct Variable {
    name: String,
    default: Option<String>,
}

fn variable(fields: &mut Fields<'_, '_>) -> Option<Variable> {
    let name = required_text(fields, "name");
    let default = fields.opt("defaultValue");
    Some(Variable { name: name?, default })
}

fn metrics(fields: &mut Fields<'_, '_>) -> Option<Metrics> {
    Some(Metrics {
        at: fields.at(),
        providers: providers(fields),
        overrides: fields.or_default("overrides"),
        reporting_interval: fields.opt("reportingInterval"),
    })
}

fn metrics_override(fields: &mut Fields<'_, '_>) -> Option<MetricsOverride> {
    let MetricMatch { metric, mode } = fields.or_default("match");
    let tags: BTreeMap<String, TagOverride> = fields.or_default("tagOverrides");
    Some(MetricsOverride {
        at: fields.at(),
        metric,
        mode,
        disabled: fields.opt("disabled"),
        tags: tags.into_iter().map(|(name, TagOverride(value))| (name, value)).collect(),
    })
}

/// `match: {metric: …, customMetric: …, mode: …}`.
#[derive(Default)]
struct MetricMatch {
    metric: MetricName,
    mode: WorkloadMode,
}

fn metric_match(fields: &mut Fields<'_, '_>) -> Option<MetricMatch> {
    fields.at_most_one(&["metric", "customMetric"]);
    let known = fields
        .opt("metric")
        .map(|IstioMetric(name)| name.map_or(MetricName::All, MetricName::Istio));
    let custom = fields
        .has("customMetric")
        .then(|| required_text(fields, "customMetric"))
        .flatten()
        .map(MetricName::Custom);
    Some(MetricMatch {
        metric: known.or(custom).unwrap_or_default(),
        mode: fields.or_default("mode"),
    })
}

/// `{operation: …, value: …}`; `None` removes.
struct TagOverride(Option<String>);

fn tag_override(fields: &mut Fields<'_, '_>) -> Option<TagOverride> {
    let operation: TagOperation = fields.or_default("operation");
    let value: String = fields.or_default("value");
    match operation {
        TagOperation::Upsert if value.is_empty() => {
            fields.fault_at("value", "UPSERT needs a value");
            None
        }
        TagOperation::Remove if !value.is_empty() => {
            fields.get("value")?.fault("with REMOVE there cannot be a value")
        }
        TagOperation::Upsert => Some(TagOverride(Some(value))),
        TagOperation::Remove => Some(TagOverride(None)),
    }
}

fn access_logging(fields: &mut Fields<'_, '_>) -> Option<AccessLogging> {
    let Mode(mode) = fields.or_default("match");
    fields.unsupported(&["filter"]);
    Some(AccessLogging {
        at: fields.at(),
        mode,
        providers: providers(fields),
        disabled: fields.opt("disabled"),
        filter: fields.opt("filter").map(|Filter(expression)| expression),
    })
}

/// `filter: {expression: …}`.
struct Filter(String);

fn filter(fields: &mut Fields<'_, '_>) -> Option<Filter> {
    required_text(fields, "expression").map(Filter)
}
