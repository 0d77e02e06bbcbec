//! `sluis ca`: the certificate authority of a running mesh, and its log.
//!
//! In:    the running `sluis up` (status, rotate); files of the state directory (bundle, log).
//! Out:   tables, JSON or YAML; PEM. A log that was changed exits 1.
//! Never: a key.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluis_ca::{AuthorityStatus, Step, audit};

use crate::{
    api::{self, RotateOrder},
    cli::{BundleFormat, CaOptions, CaVerb, RotateOptions, RotateStep},
    output::{self, Format, Table},
    state::StateDir,
};

/// Does what the verb says.
///
/// # Errors
///
/// When no `sluis up` runs, a step is refused, or a file cannot be read.
pub(crate) fn run(options: &CaOptions) -> Result<ExitCode> {
    let state = StateDir::locate(options.state.state_dir.clone())?;
    match &options.verb {
        CaVerb::Status { output } => status(&state, *output),
        CaVerb::Rotate(options) => rotate(&state, options),
        CaVerb::Bundle { format: BundleFormat::Pem } => {
            let path = state.ca().join("root-cert.pem");
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            output::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        CaVerb::Bundle { format: BundleFormat::Spiffe } => {
            output::print_value(&api::get(&state, "/v1/ca/bundle")?, Format::Json)?;
            Ok(ExitCode::SUCCESS)
        }
        CaVerb::Log { output } => log(&state.ca().join("issued.jsonl"), *output),
    }
}

fn status(state: &StateDir, format: Format) -> Result<ExitCode> {
    show_status(api::get(state, "/v1/ca/status")?, format)?;
    Ok(ExitCode::SUCCESS)
}

fn rotate(state: &StateDir, options: &RotateOptions) -> Result<ExitCode> {
    let order = RotateOrder {
        step: options.step.map(|step| match step {
            RotateStep::Begin => Step::Begin,
            RotateStep::Switch => Step::Switch,
            RotateStep::Finish => Step::Finish,
            RotateStep::Cancel => Step::Cancel,
        }),
        force: options.force,
        ca_dir: options.ca_dir.as_deref().map(std::path::absolute).transpose()?,
    };
    show_status(api::post(state, "/v1/ca/rotate", &serde_json::to_value(order)?)?, Format::Table)?;
    Ok(ExitCode::SUCCESS)
}

fn show_status(value: Value, format: Format) -> Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        return output::print_value(&value, format);
    }
    let status: AuthorityStatus = serde_json::from_value(value)?;
    let issuer = &status.issuer;
    let mut text = format!(
        "trust domain {}{}, certificates live {}\n",
        status.trust_domain,
        aliases(&status.trust_domain_aliases),
        humantime::format_duration(std::time::Duration::from_secs(status.certificate_life_seconds)),
    );
    text.push_str(&format!(
        "signed by {} ({:?}, {}, until {}), {}\n\n",
        issuer.subject,
        issuer.source,
        issuer.key,
        issuer.not_after,
        if issuer.root_key_here { "the root's key is here" } else { "the root's key is elsewhere" },
    ));
    let mut table = Table::new(&["ROOT", "STATE", "SHA-256", "NOT AFTER"]);
    for root in &status.roots {
        let cells = [&root.subject, &root.state, &root.sha256, &root.not_after];
        table.row(cells.map(Clone::clone).to_vec());
    }
    text.push_str(&table.render());
    text.push_str(&format!("\nrotation: {:?} since {}\n", status.phase, status.since));
    if !status.waiting_for.is_empty() {
        text.push_str("the next step waits for certificates in use that are older:\n");
        let mut table = Table::new(&["IDENTITY", "SERIAL", "UNTIL"]);
        for one in &status.waiting_for {
            table.row(vec![one.identity.clone(), one.serial.clone(), one.until.clone()]);
        }
        text.push_str(&table.render());
    }
    output::print(&text)
}

fn aliases(aliases: &[String]) -> String {
    if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) }
}

fn log(path: &Path, format: Format) -> Result<ExitCode> {
    let audit = audit(path).with_context(|| path.display().to_string())?;
    if matches!(format, Format::Json | Format::Yaml) {
        let value = json!({"entries": audit.entries, "breaks": audit.breaks});
        output::print_value(&value, format)?;
    } else {
        let mut table =
            Table::new(&["TIME", "IDENTITY", "PROOF", "KEY", "SERIAL", "ISSUER", "NOT AFTER"]);
        for entry in &audit.entries {
            let proof = serde_json::to_value(entry.proof)?;
            table.row(vec![
                entry.time.clone(),
                entry.identity.clone(),
                proof.as_str().unwrap_or_default().to_owned(),
                entry.key.clone(),
                entry.serial.clone(),
                entry.issuer.clone(),
                entry.not_after.clone(),
            ]);
        }
        output::print(&table.render())?;
        let count = audit.entries.len();
        match audit.breaks.as_slice() {
            [] => output::print(&format!("{count} certificates, the chain is whole\n"))?,
            breaks => output::print(&format!("THE LOG WAS CHANGED:\n{}\n", breaks.join("\n")))?,
        }
    }
    Ok(ExitCode::from(u8::from(!audit.breaks.is_empty())))
}
