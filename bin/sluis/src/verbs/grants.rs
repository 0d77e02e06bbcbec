//! `sluis credentials list|describe|test`: who may have which credential used for what.
//!
//! In:    a running `sluis up`, or files.
//! Out:   tables, or JSON or YAML; exit code 65 for a test that is refused.
//! Never: a value of a secret.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use sluis_nouns::ObjectName;

use super::validate::{self, EXIT_FAULTS};
use crate::{
    api,
    arguments::{ReadingOptions, WorkloadArgument},
    grants::{self, Asked, CredentialRow, Verdict},
    output::{self, Format, Table},
    state::StateDir,
    verbs::workload_name,
};

/// Where credentials are looked for.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Look at a file or folder of YAML instead of the running mesh; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub reading: ReadingOptions,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `sluis credentials list`.
#[derive(Args, Debug)]
pub(crate) struct ListOptions {
    /// Only those of this namespace [default: all]
    #[arg(short, long)]
    pub namespace: Option<String>,

    #[command(flatten)]
    pub place: Place,
}

/// `sluis credentials describe`.
#[derive(Args, Debug)]
pub(crate) struct DescribeOptions {
    #[command(flatten)]
    pub credential: WorkloadArgument,

    #[command(flatten)]
    pub place: Place,
}

/// `sluis credentials test`.
#[derive(Args, Debug)]
#[command(after_help = "The exit code is 65 when the credential would not be added.

Example:
  sluis credentials test egress/data-api --as cluster.local/ns/team-a/sa/notebook \\
      --method POST --url https://api.data.local/graphql")]
pub(crate) struct TestOptions {
    #[command(flatten)]
    pub credential: WorkloadArgument,

    /// The client: DOMAIN/ns/NAMESPACE/sa/ACCOUNT [default: one without an identity]
    #[arg(long = "as", value_name = "PRINCIPAL", default_value = "")]
    pub principal: String,

    /// The user of the client's token: ISSUER/SUBJECT
    #[arg(long, value_name = "USER", default_value = "")]
    pub user: String,

    /// A claim of the user's token; may be given several times
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,

    /// The method
    #[arg(long, default_value = "GET")]
    pub method: String,

    /// The URL as the gateway sends it
    #[arg(long)]
    pub url: String,

    #[command(flatten)]
    pub place: Place,
}

/// Prints a line for each credential.
///
/// # Errors
///
/// When files cannot be read, or no `sluis up` runs.
pub(crate) fn list(state: Option<PathBuf>, options: &ListOptions) -> Result<ExitCode> {
    let mut rows = rows(state, &options.place)?;
    rows.retain(|row| options.namespace.as_ref().is_none_or(|wanted| *wanted == row.namespace));
    match options.place.output {
        Format::Json | Format::Yaml => {
            output::print_value(&serde_json::to_value(&rows)?, options.place.output)?;
        }
        form => output::print(&table(&rows, form).render())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[CredentialRow], form: Format) -> Table {
    let mut header =
        vec!["NAMESPACE", "NAME", "KIND", "HOSTS", "GRANTS", "VERSION", "EXPIRES", "USED BY"];
    if form == Format::Wide {
        header.extend(["SOURCE", "FAULTS", "AT"]);
    }
    let mut table = Table::new(&header);
    for row in rows {
        let mut cells = vec![
            row.namespace.clone(),
            row.name.clone(),
            row.kind.clone(),
            row.hosts.join(","),
            row.grants.len().to_string(),
            row.version.clone().unwrap_or_default(),
            row.expires.clone().unwrap_or_default(),
            row.used_by.join(","),
        ];
        if form == Format::Wide {
            cells.extend([row.source.clone(), row.faults.len().to_string(), row.at.clone()]);
        }
        table.row(cells);
    }
    table
}

/// Prints everything about one credential.
///
/// # Errors
///
/// When there is no such credential, files cannot be read, or no `sluis up` runs.
pub(crate) fn describe(state: Option<PathBuf>, options: &DescribeOptions) -> Result<ExitCode> {
    let name = workload_name(&options.credential)?;
    let rows = rows(state, &options.place)?;
    let found = rows.iter().find(|row| row.namespace == *name.namespace && row.name == *name.name);
    let Some(row) = found else { bail!("there is no Credential {name}") };
    match options.place.output {
        Format::Json | Format::Yaml => {
            output::print_value(&serde_json::to_value(row)?, options.place.output)?;
        }
        Format::Table | Format::Wide => output::print(&described(row))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn described(row: &CredentialRow) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let value = if value.is_empty() { "-" } else { value };
        text.push_str(&format!("{name:<12} {value}\n"));
    };
    line("Name:", &format!("{}/{}", row.namespace, row.name));
    line("Written:", &row.at);
    line("Kind:", &row.kind);
    line("Sets:", &row.headers.join(", "));
    line("Source:", &format!("{} ({})", row.source, row.entries.join(", ")));
    line("Hosts:", &row.hosts.join(", "));
    line("On failure:", &row.on_failure);
    line("Version:", row.version.as_deref().unwrap_or_default());
    line("Expires:", row.expires.as_deref().unwrap_or_default());
    line("Used by:", &row.used_by.join(", "));
    text.push_str(if row.grants.is_empty() { "Grants:      none\n" } else { "Grants:\n" });
    for grant in &row.grants {
        let note = if grant.dry_run { ", dry run" } else { "" };
        text.push_str(&format!("  {} ({}{note})\n", grant.name, grant.at));
        let list = |all: &[String], nothing: &str| {
            if all.is_empty() { nothing.to_owned() } else { all.join("\n          or ") }
        };
        text.push_str(&format!("    from  {}\n", list(&grant.from, "anybody")));
        text.push_str(&format!("    to    {}\n", list(&grant.to, "all that the guard has")));
        for condition in &grant.when {
            text.push_str(&format!("    when  {condition}\n"));
        }
        if grant.per_identity_per_minute > 0 {
            let limit = grant.per_identity_per_minute;
            text.push_str(&format!("    limit {limit} in a minute for one identity\n"));
        }
    }
    for fault in &row.faults {
        text.push_str(&format!("Fault: {fault}\n"));
    }
    text
}

/// Prints what a request would get.
///
/// # Errors
///
/// When there is no such credential, files cannot be read, or no `sluis up` runs.
pub(crate) fn test(state: Option<PathBuf>, options: &TestOptions) -> Result<ExitCode> {
    let name = workload_name(&options.credential)?;
    let asked = Asked {
        principal: options.principal.clone(),
        user: options.user.clone(),
        claims: options.claims.join("\n"),
        method: options.method.clone(),
        url: options.url.clone(),
    };
    let verdict = verdict(state, &options.place, &name, &asked)?;
    match options.place.output {
        Format::Json | Format::Yaml => {
            output::print_value(&serde_json::to_value(&verdict)?, options.place.output)?;
        }
        Format::Table | Format::Wide => output::print(&shown(&name, &verdict))?,
    }
    Ok(if verdict.is_granted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULTS) })
}

fn shown(name: &ObjectName, verdict: &Verdict) -> String {
    let mut lines = Vec::new();
    match (&verdict.grant, verdict.is_granted) {
        (Some(grant), true) => lines.push(format!("{name} is added, by grant {grant}")),
        _ => lines.push(format!("{name} is not added")),
    }
    lines.extend(verdict.reasons.iter().map(|reason| format!("  {reason}")));
    lines.extend(verdict.shows.iter().cloned());
    lines.join("\n") + "\n"
}

fn verdict(
    state: Option<PathBuf>,
    place: &Place,
    name: &ObjectName,
    asked: &Asked,
) -> Result<Verdict> {
    if place.files.is_empty() {
        let state = StateDir::locate(state)?;
        let path = format!("/v1/credentials/{}/{}/test", name.namespace, name.name);
        let answer = api::post(&state, &path, &serde_json::to_value(asked)?)?;
        return Ok(serde_json::from_value(answer)?);
    }
    let checked = validate::check(&place.files, place.reading)?;
    grants::test(&checked.control.snapshot(), name, asked).map_err(anyhow::Error::msg)
}

fn rows(state: Option<PathBuf>, place: &Place) -> Result<Vec<CredentialRow>> {
    if !place.files.is_empty() {
        let checked = validate::check(&place.files, place.reading)?;
        return Ok(grants::rows(&checked.control.snapshot(), &checked.faults));
    }
    let state = StateDir::locate(state)?;
    let mut rows: Vec<CredentialRow> =
        serde_json::from_value(api::get(&state, "/v1/credential-grants")?)?;
    // What is in force is known to who fetches it.
    if let Ok(Value::Array(kept)) = api::get(&state, "/v1/credentials") {
        for row in &mut rows {
            let is_meant =
                |one: &&Value| one["namespace"] == *row.namespace && one["name"] == *row.name;
            let Some(one) = kept.iter().find(is_meant) else { continue };
            let text = |key: &str| one[key].as_str().map(str::to_owned);
            row.version = text("version");
            row.expires = text("not_after").or_else(|| text("notAfter"));
            let gateways = one["gateways"].as_array().into_iter().flatten();
            row.used_by = gateways.filter_map(|one| one.as_str().map(str::to_owned)).collect();
        }
    }
    Ok(rows)
}
