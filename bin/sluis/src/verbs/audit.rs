//! `sluis audit`: what was done with credentials, and whether the record of it is whole.
//!
//! In:    audit logs of gateways (`STATE/audit`), or files; the mesh's roots; proxies' own logs.
//! Out:   tables, JSON, YAML, OCSF events. A log that was changed exits 79.
//! Never: changes a log; believes a line that no signature covers without saying so.

mod files;
mod reconcile;
mod rows;
mod verify;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use sluis_audit::{Entry, Line, ocsf};

use crate::{
    arguments::StateOption,
    output::{self, Format},
    state::StateDir,
};
use files::Log;
use rows::{Filter, Filters};

/// How often a log that is followed is read again.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// `sluis audit`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code of verify: 0 whole, 79 changed or not vouched for to its end.
Exit code of reconcile: 0 all matched, 3 something is unmatched.

Examples:
  sluis audit show --denied --since 1h          who was refused a credential
  sluis audit show --credential egress/data-api -o wide
  sluis audit verify                            all logs, down to the last line
  sluis audit verify --file copy.jsonl --roots root-cert.pem
  sluis audit export --since 24h > events.json  OCSF events, one a line
  sluis audit reconcile                         sidecars' records against gateways'")]
pub(crate) struct AuditOptions {
    /// What to do.
    #[command(subcommand)]
    verb: AuditVerb,

    #[command(flatten)]
    state: StateOption,
}

/// What `sluis audit` can do.
#[derive(Debug, Subcommand)]
enum AuditVerb {
    /// Print records
    Show(ShowOptions),
    /// Print records as they come
    Tail(TailOptions),
    /// Print records as events, one JSON object a line
    Export(ExportOptions),
    /// Check that no line was changed, removed, moved or put in, and who signed
    Verify(VerifyOptions),
    /// Compare what sidecars say they sent with what gateways say they received
    Reconcile(ReconcileOptions),
}

/// Which logs.
#[derive(Args, Debug, Default)]
pub(crate) struct Which {
    /// Gateways: NAMESPACE/NAME [default: all that have a log]
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,

    /// Read this file instead, with the full ones beside it; may be given several times
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Args, Debug)]
struct ShowOptions {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    filters: Filters,

    /// How to print; wide has all columns
    #[arg(short, long, value_enum, default_value_t)]
    output: ShowFormat,
}

/// The form of `show`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ShowFormat {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns, with those that are long.
    Wide,
    /// The lines as they are, as one JSON array.
    Json,
    /// The same as YAML.
    Yaml,
    /// OCSF events, as one JSON array.
    Ocsf,
}

#[derive(Args, Debug)]
struct TailOptions {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    filters: Filters,

    /// How many of the last records are printed first
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    lines: usize,

    /// End after the last record instead of waiting for more
    #[arg(long)]
    no_follow: bool,
}

#[derive(Args, Debug)]
struct ExportOptions {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    filters: Filters,

    /// The form of events
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
}

/// The form of exported events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// OCSF 1.8.0, HTTP Activity.
    #[default]
    Ocsf,
    /// The lines as they are.
    Lines,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyOptions {
    #[command(flatten)]
    which: Which,

    /// Trusted roots, PEM; may be given several times [default: those of the state directory]
    #[arg(long, value_name = "FILE")]
    roots: Vec<PathBuf>,

    /// The identity that must have signed [default: that of the workload's own proxy]
    #[arg(long, value_name = "SPIFFE")]
    signer: Option<String>,

    /// Accept lines after the last checkpoint where nobody says how the log ends
    #[arg(long)]
    open_end: bool,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct ReconcileOptions {
    #[command(flatten)]
    which: Which,

    /// How far the clocks of proxies may be apart
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    tolerance: Duration,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Does what the verb says.
///
/// # Errors
///
/// When a log cannot be found or read, or standard output is closed.
pub(crate) fn run(options: &AuditOptions) -> Result<ExitCode> {
    let state = StateDir::locate(options.state.state_dir.clone());
    match &options.verb {
        AuditVerb::Show(options) => show(state, options),
        AuditVerb::Tail(options) => tail(state, options),
        AuditVerb::Export(options) => export(state, options),
        AuditVerb::Verify(options) => verify::run(state, options),
        AuditVerb::Reconcile(options) => reconcile::run(&state?, options),
    }
}

/// The records that pass, with the log that each is from.
fn records(logs: &[Log], filter: &Filter) -> Result<Vec<(String, Line)>> {
    let mut found = Vec::new();
    for log in logs {
        log.each_line(|line| {
            if filter.takes(&line) {
                found.push((log.name.clone(), line));
            }
        })?;
    }
    found.sort_by(|a, b| a.1.time.cmp(&b.1.time));
    Ok(found)
}

fn show(state: Result<StateDir>, options: &ShowOptions) -> Result<ExitCode> {
    let logs = files::find(state, &options.which)?;
    let records = records(&logs, &options.filters.compile()?)?;
    match options.output {
        ShowFormat::Table | ShowFormat::Wide => {
            let is_wide = options.output == ShowFormat::Wide;
            output::print(&rows::table(&records, is_wide))?;
        }
        ShowFormat::Ocsf => {
            let events: Vec<Value> = records.iter().filter_map(|(_, line)| event(line)).collect();
            output::print_value(&Value::Array(events), Format::Json)?;
        }
        ShowFormat::Json | ShowFormat::Yaml => {
            let lines = records.iter().map(|(_, line)| serde_json::to_value(line));
            let lines = Value::Array(lines.collect::<Result<_, _>>()?);
            let is_yaml = options.output == ShowFormat::Yaml;
            output::print_value(&lines, if is_yaml { Format::Yaml } else { Format::Json })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn event(line: &Line) -> Option<Value> {
    match &line.entry {
        Entry::Use(used) => Some(ocsf::event(line, used)),
        _ => None,
    }
}

fn export(state: Result<StateDir>, options: &ExportOptions) -> Result<ExitCode> {
    let logs = files::find(state, &options.which)?;
    for (_, line) in records(&logs, &options.filters.compile()?)? {
        let value = match options.format {
            ExportFormat::Ocsf => event(&line),
            ExportFormat::Lines => Some(serde_json::to_value(&line)?),
        };
        if let Some(value) = value {
            output::print(&format!("{value}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tail(state: Result<StateDir>, options: &TailOptions) -> Result<ExitCode> {
    let logs = files::find(state, &options.which)?;
    let filter = options.filters.compile()?;
    let before = records(&logs, &filter)?;
    let first = before.len().saturating_sub(options.lines);
    output::print(&rows::table(&before[first..], false))?;
    if options.no_follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut seen: Vec<u64> = logs.iter().map(Log::last_seq).collect::<Result<_>>()?;
    loop {
        std::thread::sleep(FOLLOW_EVERY);
        for (log, seen) in logs.iter().zip(&mut seen) {
            let mut new = Vec::new();
            log.each_current_line(|line| {
                if line.seq > *seen {
                    *seen = line.seq;
                    if filter.takes(&line) {
                        new.push((log.name.clone(), line));
                    }
                }
            })
            .with_context(|| log.path.display().to_string())?;
            output::print(&rows::lines(&new))?;
        }
    }
}
