//! `sluis validate -f DIR`: names each fault of a folder of YAML, without running anything.
//!
//! In:    files.
//! Out:   faults, each with file:line:column; exit code 65 when one is an error.
//! Never: applies anything, or talks to a running mesh.

mod proxies;

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;
use sluis_control::Control;
use sluis_model::Batch;
use sluis_nouns::TrustDomain;
use sluis_resources::Fault;

use crate::{
    cli::ValidateOptions,
    output::{self, Format},
    workload,
};

/// `EX_DATAERR` of sysexits.
const EXIT_FAULTS: u8 = 65;

/// Prints the faults.
///
/// # Errors
///
/// When a path cannot be read.
pub(crate) fn run(options: &ValidateOptions) -> Result<ExitCode> {
    let (resources, faults) = check(options)?;
    if matches!(options.output, Format::Json | Format::Yaml) {
        let all: Vec<_> = faults.iter().map(as_json).collect();
        output::print_value(&json!(all), options.output)?;
    } else {
        let errors = faults.iter().filter(|fault| fault.is_error()).count();
        for fault in &faults {
            output::print(&format!("{fault}\n"))?;
        }
        let warnings = faults.len() - errors;
        output::print(&format!("{resources} resources, {errors} errors, {warnings} warnings\n"))?;
    }
    let has_errors = faults.iter().any(Fault::is_error);
    Ok(if has_errors { ExitCode::from(EXIT_FAULTS) } else { ExitCode::SUCCESS })
}

/// How many resources are good, and every fault: of the files, of the workloads' annotations, and of
/// what each proxy would be told.
fn check(options: &ValidateOptions) -> Result<(usize, Vec<Fault>)> {
    for root in &options.files {
        std::fs::metadata(root).with_context(|| format!("cannot read {}", root.display()))?;
    }
    let loaded = sluis_sources::load(&options.files, &options.reading.options());
    let mut faults = loaded.all_faults();
    let resources: Vec<_> =
        loaded.files.into_iter().flat_map(|(_, parsed)| parsed.resources).collect();
    let count = resources.len();
    let control = Control::new(TrustDomain::default());
    control.apply(Batch { upserts: resources, removals: Vec::new() });
    let base = std::env::current_dir()?;
    for entry in control.snapshot().workloads() {
        if let Err(fault) = workload::read(entry, control.trust_domain(), &base) {
            faults.push(*fault);
        }
    }
    let met = proxies::faults(&control.snapshot(), control.trust_domain());
    for fault in control.faults().into_iter().chain(met) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults.sort_by(|a, b| a.at.cmp(&b.at));
    Ok((count, faults))
}

fn as_json(fault: &Fault) -> serde_json::Value {
    json!({
        "level": fault.level.to_string(),
        "file": *fault.at.file,
        "line": fault.at.line,
        "column": fault.at.column,
        "resource": fault.resource,
        "field": fault.path,
        "message": fault.message,
        "help": fault.help,
    })
}
