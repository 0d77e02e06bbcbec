//! Where a proxy logs what it sends and what it receives.
//!
//! In:    the mesh configuration; the `Telemetry` objects that hold for the workload.
//! Out:   the logs of each side, as Istio merges them.
//! Never: logs less than was asked for in silence: a provider that cannot be used is a fault.

use std::collections::BTreeMap;

use serde_json::Value;
use sluis_model::Owned;
use sluis_resources::{
    AccessLogEncoding, AccessLogging, FileAccessLog, LogFormat, MeshConfig, ProviderKind,
    Telemetry, WorkloadMode,
};

use super::Selection;
use crate::{AccessLogInput, Fault};

/// Istio's own provider, which needs no definition.
const ENVOY: &str = "envoy";

/// Where Istio logs unless a provider says otherwise.
const STDOUT: &str = "/dev/stdout";

impl Selection<'_> {
    /// The logs of what the workload sends, or of what it receives.
    pub(super) fn access_logs(&mut self, side: WorkloadMode) -> Vec<AccessLogInput> {
        let snapshot = self.snapshot;
        let mesh = snapshot.mesh();
        let objects: Vec<&Owned<Telemetry>> = snapshot
            .telemetries(&self.view.name.namespace, &self.view.labels)
            .filter(|telemetry| !telemetry.spec().access_logging.is_empty())
            .collect();
        let defaults = &mesh.default_providers.access_logging;
        if objects.is_empty() && defaults.is_empty() {
            return of_mesh(mesh).into_iter().collect();
        }
        let levels = objects.iter().map(|telemetry| telemetry.spec().access_logging.as_slice());
        let merged = merge(&levels.collect::<Vec<_>>(), defaults, side);
        if merged.is_empty() && !is_silenced(&objects, side) {
            return of_mesh(mesh).into_iter().collect();
        }
        let mut logs = Vec::new();
        for (name, _) in merged.iter().filter(|(_, logs)| **logs) {
            match provided(mesh, name) {
                Ok(log) => logs.push(log),
                Err(why) => {
                    let fault = Fault::error(mesh.at.clone(), why);
                    let user = objects.iter().rev().find(|telemetry| names(telemetry, name));
                    match user {
                        Some(telemetry) => {
                            let fault = Fault { at: telemetry.meta().at.clone(), ..fault };
                            let fault = fault.field("spec.accessLogging.providers");
                            self.fault(telemetry.meta(), fault);
                        }
                        None => self.faults.push(fault.field("defaultProviders.accessLogging")),
                    }
                }
            }
        }
        logs
    }
}

fn names(telemetry: &Owned<Telemetry>, provider: &str) -> bool {
    let mut all = telemetry.spec().access_logging.iter();
    all.any(|logging| logging.providers.iter().any(|name| name == provider))
}

/// The log of the mesh configuration's own fields.
fn of_mesh(mesh: &MeshConfig) -> Option<AccessLogInput> {
    (!mesh.access_log_file.is_empty()).then(|| AccessLogInput {
        path: mesh.access_log_file.clone(),
        format: (!mesh.access_log_format.is_empty()).then(|| mesh.access_log_format.clone()),
        json: mesh.access_log_encoding == AccessLogEncoding::Json,
    })
}

/// Whether the last word for a side is `disabled`, where no provider is named at all.
fn is_silenced(objects: &[&Owned<Telemetry>], side: WorkloadMode) -> bool {
    let all = objects.iter().flat_map(|telemetry| &telemetry.spec().access_logging);
    all.rev().find(|logging| is_for(logging, side)).is_some_and(|last| last.disabled == Some(true))
}

fn is_for(logging: &AccessLogging, side: WorkloadMode) -> bool {
    logging.mode == WorkloadMode::ClientAndServer || logging.mode == side
}

/// Which providers log a side, as Istio merges the levels: the narrowest that names some decides which
/// there are; each item speaks of those that it names, else of those of the item before it.
fn merge(
    levels: &[&[AccessLogging]],
    defaults: &[String],
    side: WorkloadMode,
) -> BTreeMap<String, bool> {
    let mut chosen: Vec<&String> = defaults.iter().collect();
    for level in levels {
        let own = level.iter().filter(|logging| is_for(logging, side));
        let own: Vec<&String> = own.flat_map(|logging| &logging.providers).collect();
        if !own.is_empty() {
            chosen = own;
        }
    }
    let mut inherited = defaults;
    let mut merged = BTreeMap::new();
    if levels.is_empty() {
        merged.extend(defaults.iter().map(|name| (name.clone(), true)));
    }
    for logging in levels.iter().copied().flatten() {
        if !logging.providers.is_empty() {
            inherited = &logging.providers;
        }
        for name in inherited.iter().filter(|name| chosen.contains(name)) {
            if is_for(logging, side) {
                merged.insert(name.clone(), logging.disabled != Some(true));
            } else {
                // A word for the other side: this one is not logged unless another says so.
                merged.entry(name.clone()).or_insert(false);
            }
        }
    }
    merged
}

/// The log of a provider.
fn provided(mesh: &MeshConfig, name: &str) -> Result<AccessLogInput, String> {
    let provider = mesh.extension_providers.iter().find(|provider| provider.name == name);
    match provider.map(|provider| &provider.kind) {
        Some(ProviderKind::FileAccessLog(log)) => file(name, log),
        Some(_) => {
            Err(format!("provider {name:?} does not log to a file, which alone is supported"))
        }
        None if name == ENVOY => {
            Ok(AccessLogInput { path: STDOUT.to_owned(), format: None, json: false })
        }
        None => Err(format!("extensionProviders of the mesh configuration has no {name:?}")),
    }
}

fn file(name: &str, log: &FileAccessLog) -> Result<AccessLogInput, String> {
    if log.omit_empty_values {
        return Err(format!("provider {name:?} sets omitEmptyValues, which is not supported"));
    }
    let path = if log.path.is_empty() { STDOUT.to_owned() } else { log.path.clone() };
    let (format, json) = match &log.format {
        None => (None, false),
        Some(LogFormat { labels: Some(labels), .. }) => {
            let is_flat = |labels: &Value| {
                let fields = labels.as_object().filter(|fields| !fields.is_empty());
                fields.is_some_and(|fields| fields.values().all(Value::is_string))
            };
            if !is_flat(labels) {
                return Err(format!("provider {name:?} has labels that are not all texts"));
            }
            (Some(labels.to_string()), true)
        }
        // As Istio: a line ends.
        Some(LogFormat { text: Some(text), .. }) if !text.ends_with('\n') => {
            (Some(format!("{text}\n")), false)
        }
        Some(LogFormat { text, .. }) => (text.clone(), false),
    };
    Ok(AccessLogInput { path, format, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items such as `client:a,b` or `-:off`: the side, then the providers or `off`.
    fn level(text: &str) -> Vec<AccessLogging> {
        let item = |text: &str| {
            let (mode, words) = text.split_once(':').unwrap();
            let mode = match mode {
                "client" => WorkloadMode::Client,
                "server" => WorkloadMode::Server,
                _ => WorkloadMode::ClientAndServer,
            };
            let words: Vec<String> = words.split(',').map(str::to_owned).collect();
            let disabled = words.contains(&"off".to_owned()).then_some(true);
            let providers = words.into_iter().filter(|word| !word.is_empty() && word != "off");
            let providers = providers.collect();
            AccessLogging { mode, providers, disabled, ..AccessLogging::default() }
        };
        text.split_whitespace().map(item).collect()
    }

    #[track_caller]
    fn check(levels: &[&str], defaults: &[&str], client: &str, server: &str) {
        let defaults: Vec<String> = defaults.iter().map(|name| (*name).to_owned()).collect();
        let items: Vec<Vec<AccessLogging>> = levels.iter().map(|text| level(text)).collect();
        let items: Vec<&[AccessLogging]> = items.iter().map(Vec::as_slice).collect();
        for (side, expected) in [(WorkloadMode::Client, client), (WorkloadMode::Server, server)] {
            let merged = merge(&items, &defaults, side);
            let on: Vec<&str> =
                merged.iter().filter(|(_, logs)| **logs).map(|(name, _)| name.as_str()).collect();
            assert_eq!(on.join(" "), expected, "{levels:?} {defaults:?} {side:?}");
        }
    }

    #[test]
    fn levels_are_merged_as_istio_merges_them() {
        check(&[], &["a"], "a", "a");
        check(&["-:a"], &[], "a", "a");
        check(&["-:a,b"], &["c"], "a b", "a b");
        check(&["-:a", "-:b"], &[], "b", "b");
        check(&["-:a", "-:off"], &[], "", "");
        check(&["-:a", "client:off"], &[], "", "a");
        check(&["-:off"], &["a"], "", "");
        check(&["-:off", "-:"], &["a"], "a", "a");
        check(&["server:a"], &[], "", "a");
        check(&["client:a server:b"], &[], "a", "b");
        check(&["client:a server:a"], &[], "a", "a");
    }
}
