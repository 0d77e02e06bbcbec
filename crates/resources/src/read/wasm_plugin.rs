//! Reads WasmPlugin.

use std::collections::BTreeSet;

use super::forms::{checked, read_fields, read_names};
use super::target::policy_target;
use super::virtual_service::Port;
use crate::kinds::telemetry::WorkloadMode;
use crate::kinds::wasm_plugin::{FailStrategy, PluginPhase, TrafficMatch, WasmPlugin};
use crate::value::Fields;

read_fields! {
    WasmPlugin => wasm_plugin,
    VmConfig => vm_config,
    Variable => variable,
    TrafficMatch => traffic_match,
}

read_names! {
    PluginPhase {
        "UNSPECIFIED_PHASE" => PluginPhase::Unspecified,
        "AUTHN" => PluginPhase::Authn,
        "AUTHZ" => PluginPhase::Authz,
        "STATS" => PluginPhase::Stats,
    }
    FailStrategy {
        "FAIL_CLOSE" => FailStrategy::Close,
        "FAIL_OPEN" => FailStrategy::Open,
        "FAIL_RELOAD" => FailStrategy::Reload,
    }
    PullPolicy {
        "UNSPECIFIED_POLICY" => PullPolicy { always: false },
        "IfNotPresent" => PullPolicy { always: false },
        "Always" => PullPolicy { always: true },
    }
    PluginType {
        "UNSPECIFIED_PLUGIN_TYPE" => PluginType { network: false },
        "HTTP" => PluginType { network: false },
        "NETWORK" => PluginType { network: true },
    }
    Side {
        "UNDEFINED" => Side(WorkloadMode::ClientAndServer),
        "CLIENT" => Side(WorkloadMode::Client),
        "SERVER" => Side(WorkloadMode::Server),
        "CLIENT_AND_SERVER" => Side(WorkloadMode::ClientAndServer),
    }
    ValueFrom {
        "INLINE" => ValueFrom { host: false },
        "HOST" => ValueFrom { host: true },
    }
}

#[derive(Clone, Copy, Default)]
struct PullPolicy {
    always: bool,
}

#[derive(Clone, Copy, Default)]
struct PluginType {
    network: bool,
}

#[derive(Clone, Copy, Default)]
struct Side(WorkloadMode);

#[derive(Clone, Copy, Default)]
struct ValueFrom {
    host: bool,
}

/// Longest name of an image pull secret, a DNS name.
const SECRET_BYTES_MAX: usize = 253;

/// Longest name of a plugin and of a variable, as Istio has it.
const NAME_BYTES_MAX: usize = 256;

/// Most variables, as Istio has it.
const VARIABLES_MAX: usize = 256;

fn wasm_plugin(fields: &mut Fields<'_, '_>) -> Option<WasmPlugin> {
    let target = policy_target(fields);
    if !fields.has("url") {
        fields.missing("url");
    }
    let url = fields.get("url").and_then(|value| checked(&value, plugin_url));
    let sha256 = fields.get("sha256").and_then(|value| checked(&value, sha256));
    let secret = short(fields, "imagePullSecret", SECRET_BYTES_MAX);
    let name = short(fields, "pluginName", NAME_BYTES_MAX);
    let PullPolicy { always } = fields.or_default("imagePullPolicy");
    let PluginType { network } = fields.or_default("type");
    let VmConfig(environment) = fields.or_default("vmConfig");
    // Istio has no reader for it either.
    fields.without_effect(&["verificationKey"]);
    let plugin = WasmPlugin {
        target,
        url: String::new(),
        sha256: sha256.filter(|sum| !sum.is_empty()),
        pull_always: always,
        image_pull_secret: secret,
        plugin_config: fields.or_default("pluginConfig"),
        plugin_name: name,
        phase: fields.or_default("phase"),
        priority: fields.opt("priority"),
        fail_strategy: fields.or_default("failStrategy"),
        matches: fields.or_default("match"),
        is_network: network,
        environment,
    };
    Some(WasmPlugin { url: url?, ..plugin })
}

fn plugin_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a URL must not be empty".to_owned());
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let known = scheme.is_none_or(|scheme| ["http", "https", "file", "oci"].contains(&scheme));
    // Without a scheme it names an image of a registry.
    let strange = |c: char| c.is_whitespace() || c.is_control() || "#<>\"\\^`{|}".contains(c);
    if !known || text.contains(strange) {
        return Err(format!("{text:?} is not a URL of http, https, file or oci"));
    }
    Ok(text.to_owned())
}

fn sha256(text: &str) -> Result<String, String> {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if !text.is_empty() && (text.len() != 64 || !text.bytes().all(hex)) {
        return Err("64 hexadecimal digits in lower case are expected".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a text of 1 to `max` bytes.
fn short(fields: &mut Fields<'_, '_>, name: &'static str, max: usize) -> Option<String> {
    let value = fields.get(name)?;
    checked(&value, |text| match text.len() {
        0 => Err("an empty text is not allowed".to_owned()),
        bytes if bytes > max => Err(format!("this is longer than {max} bytes")),
        _ => Ok(text.to_owned()),
    })
}

#[derive(Default)]
struct VmConfig(Vec<(String, Option<String>)>);

fn vm_config(fields: &mut Fields<'_, '_>) -> Option<VmConfig> {
    let variables: Vec<Variable> = fields.or_default("env");
    let items = fields.get("env").and_then(|value| value.items()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (Variable(name, _), item) in variables.iter().zip(&items) {
        if !seen.insert(name) {
            item.fault::<()>(format!("the variable {name:?} is there twice"));
        }
    }
    if items.len() > VARIABLES_MAX
        && let Some(value) = fields.get("env")
    {
        value.fault::<()>(format!("there are more than {VARIABLES_MAX} variables"));
    }
    Some(VmConfig(variables.into_iter().map(|Variable(name, value)| (name, value)).collect()))
}

struct Variable(String, Option<String>);

fn variable(fields: &mut Fields<'_, '_>) -> Option<Variable> {
    if !fields.has("name") {
        fields.missing("name");
    }
    let name = short(fields, "name", NAME_BYTES_MAX);
    let ValueFrom { host } = fields.or_default("valueFrom");
    let value: String = fields.or_default("value");
    if host && !value.is_empty() {
        fields.get("value")?.fault::<()>("a value is possible only where valueFrom is INLINE");
    }
    Some(Variable(name?, (!host).then_some(value)))
}

fn traffic_match(fields: &mut Fields<'_, '_>) -> Option<TrafficMatch> {
    let Side(mode) = fields.or_default("mode");
    let ports: Vec<Port> = fields.or_default("ports");
    let ports = ports.into_iter().map(|Port(number)| number).collect();
    Some(TrafficMatch { at: fields.at(), mode, ports })
}
