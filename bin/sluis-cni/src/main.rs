//! A CNI plugin, chained behind the one that makes a pod's network: it captures the pod at once.
//!
//! In:    the environment and standard input of CNI 1.0.0; the pod's annotations, from the runtime.
//! Out:   rules in the pod's namespace; the previous result, or an error, on standard output.
//! Never: lets a pod start uncaptured because it does not know whether it should be captured: the
//!        runtime tries again (that is what Istio's CNI "repair" mends afterwards).
//!
//! ```json
//! {"type": "sluis-cni", "capabilities": {"io.kubernetes.cri.pod-annotations": true},
//!  "excludeNamespaces": ["kube-system", "istio-system"], "closed": false, "captureNames": true}
//! ```
//!
//! A pod is captured when it has a sidecar (annotation `sidecar.istio.io/status`), or with
//! `"captureAll": true` in any case. There is no init container with `NET_ADMIN` then.

mod input;

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::{Value, json};
use sluis_capture::filter::{self, Backend, Place, Rules, SettingError, Standing, Written};

use input::{Configuration, INPUT_BYTES_MAX, Wish};

/// The versions of CNI that are spoken.
const VERSIONS: [&str; 3] = ["0.3.1", "0.4.0", "1.0.0"];

/// What a runtime is told when it names no version.
const VERSION: &str = "1.0.0";

/// Why a call failed, by CNI's codes (section 5); from 100 on they are ours.
#[derive(Debug, thiserror::Error)]
enum CniError {
    #[error("version {0} of CNI is not spoken")]
    Version(String),
    #[error("environment variable {0}")]
    Environment(&'static str),
    #[error("standard input: {0}")]
    Input(#[from] std::io::Error),
    #[error("the configuration is not understood: {0}")]
    Decode(#[from] serde_json::Error),
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Rules(#[from] filter::Fault),
    #[error("the pod's rules are not there")]
    Missing,
    #[error("the pod's rules are not those that its annotations ask for")]
    Differ,
}

impl CniError {
    fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment(_) => 4,
            Self::Input(_) => 5,
            Self::Decode(_) => 6,
            Self::Configuration(_) => 7,
            Self::Rules(_) => 100,
            Self::Missing => 101,
            Self::Differ => 102,
        }
    }
}

fn main() -> ExitCode {
    let (answer, code) = match call() {
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            let answer =
                json!({"cniVersion": VERSION, "code": error.code(), "msg": error.to_string()});
            (answer, ExitCode::FAILURE)
        }
    };
    // A runtime that does not listen learns of the code.
    let _ = writeln!(std::io::stdout(), "{answer}");
    code
}

/// Carries out one call; what is to be printed, if anything.
fn call() -> Result<Option<Value>, CniError> {
    let command = std::env::var("CNI_COMMAND")
        .map_err(|_| CniError::Environment("CNI_COMMAND is missing"))?;
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": VERSION, "supportedVersions": VERSIONS})));
    }
    let mut text = Vec::new();
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut text)?;
    let configuration: Configuration = serde_json::from_slice(&text)?;
    if !VERSIONS.contains(&configuration.cni_version.as_str()) {
        return Err(CniError::Version(configuration.cni_version));
    }
    let arguments = std::env::var("CNI_ARGS").unwrap_or_default();
    match command.as_str() {
        "ADD" => {
            let Some(result) = &configuration.prev_result else {
                return Err(CniError::Configuration(
                    "there is no prevResult: this plugin is chained behind one that makes a network".to_owned(),
                ));
            };
            if let Some(rules) = rules(&configuration, &arguments)? {
                filter::apply(&place()?, Backend::found()?, &rules)?;
            }
            Ok(Some(result.clone()))
        }
        "CHECK" => {
            let Some(rules) = rules(&configuration, &arguments)? else { return Ok(None) };
            match filter::standing(&place()?, Backend::found()?, &rules)? {
                Standing::InForce => Ok(None),
                Standing::Missing => Err(CniError::Missing),
                Standing::Differ => Err(CniError::Differ),
            }
        }
        // The rules go with the namespace; one that is gone already is no error (section 4).
        "DEL" => {
            if let Some(path) =
                std::env::var_os("CNI_NETNS").map(PathBuf::from).filter(|path| path.exists())
            {
                filter::remove(&Place::At(path))?;
            }
            Ok(None)
        }
        _ => Err(CniError::Environment("CNI_COMMAND is none of ADD, DEL, CHECK and VERSION")),
    }
}

fn place() -> Result<Place, CniError> {
    match std::env::var_os("CNI_NETNS") {
        Some(path) if !path.is_empty() => Ok(Place::At(path.into())),
        _ => Err(CniError::Environment("CNI_NETNS is missing")),
    }
}

/// The rules of the pod; none for one that is left alone.
fn rules(configuration: &Configuration, arguments: &str) -> Result<Option<Rules>, CniError> {
    let annotations = match configuration.wish(arguments).map_err(CniError::Configuration)? {
        Wish::Capture(annotations) => annotations,
        Wish::LeaveAlone => return Ok(None),
    };
    let told = |faults: Vec<SettingError>| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        CniError::Configuration(faults.join("; "))
    };
    let mut written = Written::from_annotations(&annotations).map_err(told)?;
    if configuration.capture_names {
        written.dns_servers = "*".to_owned();
    }
    written.is_closed = configuration.closed;
    Ok(Some(Rules::of(&written.settings().map_err(told)?)))
}
