//! `sluis proxy bootstrap`: what a proxy starts with.
//!
//! In:    a workload of the running mesh, or a file with an Envoy bootstrap.
//! Out:   JSON for a real Envoy, or the binary form for `sluis-proxy`, on standard output.
//! Never: a secret.

use std::{fs, io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    api,
    arguments::WorkloadArgument,
    bootstrap,
    cli::{BootstrapOptions, ProxyOptions, ProxyVerb},
    output::{self, Format},
    state::StateDir,
    verbs::workload_name,
};

/// Carries out the verb.
///
/// # Errors
///
/// When no `sluis up` runs, it knows no such workload, or the file is no bootstrap.
pub(crate) fn run(options: &ProxyOptions) -> Result<ExitCode> {
    let ProxyVerb::Bootstrap(options) = &options.verb;
    match (&options.compile, &options.envoy) {
        (Some(file), _) => compile(file)?,
        (None, Some(workload)) => for_envoy(options, workload)?,
        (None, None) => unreachable!("clap requires one of the two"),
    }
    Ok(ExitCode::SUCCESS)
}

fn for_envoy(options: &BootstrapOptions, workload: &str) -> Result<()> {
    let argument =
        WorkloadArgument { workload: workload.to_owned(), namespace: "default".to_owned() };
    let name = workload_name(&argument)?;
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let path = format!("/v1/workloads/{}/{}/bootstrap", name.namespace, name.name);
    output::print_value(&api::get(&state, &path)?, Format::Json)
}

fn compile(file: &Path) -> Result<()> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let document: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{shown} is not YAML"))?;
    let bytes = bootstrap::encode(&document).with_context(|| format!("{shown} is no bootstrap"))?;
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}
