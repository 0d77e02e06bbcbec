//! `sluis validate -f DIR`: names each fault of a folder of YAML, without running anything.
//!
//! In:    files.
//! Out:   faults, each with file:line:column; exit code 65 when one is an error.
//! Never: applies anything, or talks to a running mesh.

mod proxies;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use sluis_control::Control;
use sluis_model::Batch;
use sluis_nouns::TrustDomain;
use sluis_resources::Fault;

use crate::{
    arguments::ReadingOptions,
    objects::condition_faults,
    output::{self, Format},
    status::FaultReport,
    workload,
};

/// `sluis validate`.
#[derive(Args, Debug)]
pub(crate) struct ValidateOptions {
    /// A file or folder of YAML; may be given several times
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub reading: ReadingOptions,

    /// Print what old kinds and old apiVersions say today, instead of the faults
    #[arg(long)]
    pub modernize: bool,

    /// How to print the faults
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `EX_DATAERR` of sysexits.
pub(crate) const EXIT_FAULTS: u8 = 65;

/// Prints the faults.
///
/// # Errors
///
/// When a path cannot be read.
pub(crate) fn run(options: &ValidateOptions) -> Result<ExitCode> {
    if options.modernize {
        return modernize(options);
    }
    let Checked { count, faults, .. } = check(&options.files, options.reading)?;
    if matches!(options.output, Format::Json | Format::Yaml) {
        let all: Vec<FaultReport> = faults.iter().map(Into::into).collect();
        output::print_value(&json!(all), options.output)?;
    } else {
        let errors = faults.iter().filter(|fault| fault.is_error()).count();
        for fault in &faults {
            output::print(&format!("{fault}\n"))?;
        }
        let warnings = faults.len() - errors;
        output::print(&format!("{count} resources, {errors} errors, {warnings} warnings\n"))?;
    }
    let has_errors = faults.iter().any(Fault::is_error);
    Ok(if has_errors { ExitCode::from(EXIT_FAULTS) } else { ExitCode::SUCCESS })
}

/// Prints what old forms say today, as YAML (or JSON); what cannot be said goes to standard error.
///
/// Only what is old is printed: an old kind in the kinds that took its place, an old `apiVersion` with
/// the new one. A fault of such an object makes the exit code that of `validate`.
#[expect(clippy::print_stderr, reason = "standard output is the manifests")]
fn modernize(options: &ValidateOptions) -> Result<ExitCode> {
    for root in &options.files {
        std::fs::metadata(root).with_context(|| format!("cannot read {}", root.display()))?;
    }
    let loaded = sluis_sources::load(&options.files, &options.reading.options());
    let mut manifests = loaded.modern.manifests.clone();
    for (path, _) in &loaded.files {
        let text = std::fs::read_to_string(path)?;
        manifests.extend(sluis_resources::renew(&path.to_string_lossy(), &text));
    }
    if options.output == Format::Json {
        output::print_value(&json!(manifests), Format::Json)?;
    } else {
        let texts: Vec<String> = manifests.iter().map(output::yaml).collect();
        output::print(&texts.join("---\n"))?;
    }
    for fault in &loaded.modern.faults {
        eprintln!("{fault}");
    }
    let has_errors = loaded.modern.faults.iter().any(Fault::is_error);
    Ok(if has_errors { ExitCode::from(EXIT_FAULTS) } else { ExitCode::SUCCESS })
}

/// What files say.
pub(crate) struct Checked {
    /// How many resources are good.
    count: usize,
    /// A control plane of them.
    pub control: Control,
    /// Every fault: of the files, of the workloads' annotations, of the objects' conditions, and of what
    /// each proxy would be told.
    pub faults: Vec<Fault>,
}

/// Reads files, without running anything.
///
/// # Errors
///
/// When a path cannot be read.
pub(crate) fn check(files: &[PathBuf], reading: ReadingOptions) -> Result<Checked> {
    for root in files {
        std::fs::metadata(root).with_context(|| format!("cannot read {}", root.display()))?;
    }
    let loaded = sluis_sources::load(files, &reading.options());
    let mut faults = loaded.all_faults();
    let written = loaded.files.into_iter().flat_map(|(_, parsed)| parsed.resources);
    let resources: Vec<_> = written.chain(loaded.modern.resources).collect();
    let count = resources.len();
    let control = Control::new(TrustDomain::default());
    control.apply(Batch { upserts: resources, removals: Vec::new() });
    let base = std::env::current_dir()?;
    let snapshot = control.snapshot();
    for entry in snapshot.workloads() {
        if let Err(fault) = workload::read(entry, &snapshot, control.trust_domain(), &base) {
            faults.push(*fault);
        }
    }
    let met = proxies::faults(&control.snapshot(), control.trust_domain());
    let of_conditions = condition_faults(&control.snapshot());
    for fault in control.faults().into_iter().chain(met).chain(of_conditions) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(Checked { count, control, faults })
}
