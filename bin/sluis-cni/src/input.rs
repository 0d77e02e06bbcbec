//! What a runtime says of a pod.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The longest configuration: a result of a few interfaces and some annotations are kilobytes.
pub(crate) const INPUT_BYTES_MAX: u64 = 4 << 20;

/// The capability by which runtimes hand annotations on (containerd, CRI-O).
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// What Istio's injector writes on a pod that got a sidecar.
const INJECTED: &str = "sidecar.istio.io/status";

/// The configuration on standard input. Fields of CNI itself that do not matter here may be there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Configuration {
    /// The version that the runtime speaks.
    pub(crate) cni_version: String,
    /// What the plugins before have made.
    pub(crate) prev_result: Option<Value>,
    /// What the runtime knows, by capability.
    #[serde(default)]
    runtime_config: BTreeMap<String, Value>,
    /// Namespaces whose pods are left alone.
    #[serde(default)]
    exclude_namespaces: Vec<String>,
    /// Captures pods without the injector's annotation too.
    #[serde(default)]
    capture_all: bool,
    /// Captures name queries. Default true.
    #[serde(default = "yes")]
    pub(crate) capture_names: bool,
    /// Refuses what a sidecar cannot take.
    #[serde(default)]
    pub(crate) closed: bool,
}

fn yes() -> bool {
    true
}

/// What is to become of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It is captured as its annotations say.
    Capture(BTreeMap<String, String>),
    /// It is not the mesh's.
    LeaveAlone,
}

impl Configuration {
    /// What is to become of the pod that `CNI_ARGS` names.
    ///
    /// # Errors
    ///
    /// When that cannot be known.
    pub(crate) fn wish(&self, arguments: &str) -> Result<Wish, String> {
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        let namespace = pairs.into_iter().find(|(key, _)| *key == "K8S_POD_NAMESPACE");
        if let Some((_, namespace)) = namespace
            && self.exclude_namespaces.iter().any(|excluded| excluded == namespace)
        {
            return Ok(Wish::LeaveAlone);
        }
        let annotations: BTreeMap<String, String> = match self.runtime_config.get(ANNOTATIONS) {
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|error| format!("runtimeConfig.{ANNOTATIONS}: {error}"))?,
            None if self.capture_all => BTreeMap::new(),
            None => {
                return Err(format!(
                    "the runtime gives no annotations: configure capability {ANNOTATIONS:?}, or captureAll"
                ));
            }
        };
        let is_ours = self.capture_all || annotations.contains_key(INJECTED);
        let is_captured =
            annotations.get("sidecar.istio.io/interceptionMode").is_none_or(|mode| mode != "NONE");
        Ok(if is_ours && is_captured { Wish::Capture(annotations) } else { Wish::LeaveAlone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(more: &str, arguments: &str) -> Result<Wish, String> {
        let text = format!(
            "{{\"cniVersion\": \"1.0.0\", \"name\": \"pods\", \"type\": \"sluis-cni\"{more}}}"
        );
        serde_json::from_str::<Configuration>(&text).unwrap().wish(arguments)
    }

    fn annotated(annotations: &str) -> String {
        format!(", \"runtimeConfig\": {{\"{ANNOTATIONS}\": {annotations}}}")
    }

    #[test]
    fn a_pod_with_a_sidecar_is_captured_as_it_says() {
        let told = annotated("{\"sidecar.istio.io/status\": \"{}\", \"a\": \"b\"}");
        let Ok(Wish::Capture(found)) = wish(&told, "") else { panic!("not captured") };
        assert_eq!(found.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn others_are_left_alone() {
        assert_eq!(wish(&annotated("{}"), ""), Ok(Wish::LeaveAlone));
        let excluded = ", \"excludeNamespaces\": [\"kube-system\"], \"captureAll\": true";
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=x";
        assert_eq!(wish(excluded, arguments), Ok(Wish::LeaveAlone));
        assert!(matches!(wish(excluded, "K8S_POD_NAMESPACE=shop"), Ok(Wish::Capture(_))));
        let none = annotated(
            "{\"sidecar.istio.io/status\": \"{}\", \"sidecar.istio.io/interceptionMode\": \"NONE\"}",
        );
        assert_eq!(wish(&none, ""), Ok(Wish::LeaveAlone));
    }

    #[test]
    fn a_pod_of_which_nothing_is_known_does_not_start() {
        assert!(wish("", "K8S_POD_NAMESPACE=shop").unwrap_err().contains("captureAll"));
        assert!(wish(&annotated("[]"), "").is_err());
    }
}
