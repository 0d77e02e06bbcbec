//! `sluis capture probes`: a pod's health probes, led to its sidecar.
//!
//! In:    manifests of pods, or of what makes pods.
//! Out:   the same with rewritten probes, and the sidecar's variable; or the variable alone.
//! Never: changes anything else.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use sluis_capture::app_probes;

use crate::output;

/// Istio's own: whether the probes of a pod are rewritten.
const WANTED: &str = "sidecar.istio.io/rewriteAppHTTPProbers";

/// Istio's own: the status port of a pod's sidecar.
const STATUS_PORT: &str = "status.sidecar.istio.io/port";

/// The variable of the sidecar.
const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";

/// The longest manifest: as much as Kubernetes takes of one object, a few times over.
const BYTES_MAX: u64 = 16 << 20;

/// `sluis capture probes`.
#[derive(Args, Debug)]
pub(super) struct ProbesOptions {
    /// Manifests; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// The port on which the sidecar answers
    #[arg(long, value_name = "PORT", default_value_t = 15020)]
    status_port: u16,

    /// Print only the value of ISTIO_KUBE_APP_PROBERS, for a sidecar outside of Kubernetes
    #[arg(long)]
    probers: bool,
}

/// Rewrites and prints.
pub(super) fn run(options: &ProbesOptions) -> Result<()> {
    let shown = options.file.display();
    let mut text = String::new();
    if options.file.as_os_str() == "-" {
        std::io::stdin().take(BYTES_MAX).read_to_string(&mut text)?;
    } else {
        let file = std::fs::File::open(&options.file).with_context(|| format!("{shown}"))?;
        file.take(BYTES_MAX).read_to_string(&mut text).with_context(|| format!("{shown}"))?;
    }
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{shown} is not YAML"))?;
    let mut all = Map::new();
    for document in documents.iter_mut().filter(|document| document.is_object()) {
        all.extend(rewrite(document, options.status_port).with_context(|| format!("{shown}"))?);
    }
    if options.probers {
        return output::print(&format!("{}\n", Value::Object(all)));
    }
    let texts: Result<Vec<String>, _> = documents.iter().map(serde_saphyr::to_string).collect();
    output::print(&texts?.join("---\n"))
}

/// Rewrites one object, if it is or makes a pod.
fn rewrite(document: &mut Value, port: u16) -> Result<Map<String, Value>> {
    let place = match document["kind"].as_str() {
        Some("Pod") => "",
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job") => "/spec/template",
        Some("CronJob") => "/spec/jobTemplate/spec/template",
        _ => return Ok(Map::new()),
    };
    let Some(pod) = document.pointer_mut(place) else { return Ok(Map::new()) };
    let annotation = |key: &str| pod["metadata"]["annotations"][key].as_str().map(str::to_owned);
    if annotation(WANTED).is_some_and(|value| value == "false") {
        return Ok(Map::new());
    }
    let port = match annotation(STATUS_PORT) {
        Some(text) => {
            text.parse().with_context(|| format!("annotation {STATUS_PORT}: {text:?}"))?
        }
        None => port,
    };
    let probers = app_probes::rewrite(&mut pod["spec"], port)?;
    let containers = pod["spec"]["containers"].as_array_mut();
    let sidecar = containers.into_iter().flatten().find(|one| one["name"] == "istio-proxy");
    if let Some(sidecar) = sidecar.filter(|_| !probers.is_empty()) {
        let mut variables = Vec::deserialize(&sidecar["env"]).unwrap_or_default();
        variables.retain(|one: &Value| one["name"] != VARIABLE);
        let value = Value::Object(probers.clone()).to_string();
        variables.push(json!({"name": VARIABLE, "value": value}));
        sidecar["env"] = Value::Array(variables);
    }
    Ok(probers)
}
