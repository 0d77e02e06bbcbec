//! `sluis credentials`: where credentials come from, asked anew; keys and texts that are sealed.
//!
//! In:    the running `sluis up` (sources, refresh, rotate); standard input (seal); the state directory.
//! Out:   tables, JSON or YAML; sealed text.
//! Never: a value, but sealed; takes one as an argument.

use std::{io::Read as _, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use sluis_custody::{Identity, Recipient, identities, seal};
use sluis_nouns::is_dns_label;
use zeroize::Zeroizing;

use super::grants::{self, DescribeOptions, ListOptions, TestOptions};
use crate::{
    api,
    arguments::{StateOption, WorkloadArgument},
    custody::{CustodyReport, RotationPlan},
    output::{self, Format, Table},
    state::{StateDir, write_private},
};

/// `sluis credentials`.
#[derive(Args, Debug)]
pub(crate) struct CredentialsOptions {
    #[command(flatten)]
    pub state: StateOption,

    /// What to do.
    #[command(subcommand)]
    pub verb: CredentialsVerb,
}

/// What can be done with credentials.
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsVerb {
    /// Show each credential: where it may go, by how many grants, in which version
    #[command(visible_alias = "ls")]
    List(ListOptions),
    /// Show who may have a credential used for what, and what is wrong with it
    Describe(DescribeOptions),
    /// Say whether a credential would be added to a request, by which grant, or why by none
    Test(TestOptions),
    /// Print the CustomResourceDefinitions of Credential and CredentialGrant, for kubectl apply
    Crds,
    /// Show each credential's source, its version, and what is wrong with it
    Sources(SourcesOptions),
    /// Ask a credential's source now, and use what it gives
    Refresh(NamedOptions),
    /// As refresh; with --dry-run, say what would change and change nothing
    Rotate(RotateOptions),
    /// Make the key with which a namespace's sealed texts are opened, and print its public half
    Keygen(KeygenOptions),
    /// Seal the text on standard input for a namespace, so that it may lie in git
    Seal(SealOptions),
}

/// `sluis credentials sources`.
#[derive(Args, Debug)]
pub(crate) struct SourcesOptions {
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `sluis credentials refresh`.
#[derive(Args, Debug)]
pub(crate) struct NamedOptions {
    #[command(flatten)]
    pub credential: WorkloadArgument,

    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `sluis credentials rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateOptions {
    #[command(flatten)]
    pub named: NamedOptions,

    /// Change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `sluis credentials keygen`.
#[derive(Args, Debug)]
pub(crate) struct KeygenOptions {
    /// The namespace of the Credentials
    #[arg(short, long, default_value = "default")]
    pub namespace: String,

    /// Make a new key although there is one, which goes on opening what was sealed for it
    #[arg(long)]
    pub next: bool,
}

/// `sluis credentials seal`.
#[derive(Args, Debug)]
pub(crate) struct SealOptions {
    /// The namespace of the Credential; its key must be in this state directory
    #[arg(short, long, default_value = "default", conflicts_with = "recipients")]
    pub namespace: String,

    /// Seal for this public key (age1…), which keygen printed; needs no state directory. May be given
    /// several times
    #[arg(long = "recipient", value_name = "KEY")]
    pub recipients: Vec<Recipient>,
}

/// Does what the verb says.
///
/// # Errors
///
/// When no `sluis up` runs that is asked, there is no such credential, or a file cannot be read or
/// written.
pub(crate) fn run(options: &CredentialsOptions) -> Result<ExitCode> {
    let state = || StateDir::locate(options.state.state_dir.clone());
    let place = || options.state.state_dir.clone();
    match &options.verb {
        CredentialsVerb::List(one) => grants::list(place(), one),
        CredentialsVerb::Describe(one) => grants::describe(place(), one),
        CredentialsVerb::Test(one) => grants::test(place(), one),
        CredentialsVerb::Crds => {
            output::print(&sluis_resources::crds())?;
            Ok(ExitCode::SUCCESS)
        }
        CredentialsVerb::Sources(one) => sources(&state()?, one.output),
        CredentialsVerb::Refresh(one) => refresh(&state()?, one),
        CredentialsVerb::Rotate(one) if one.dry_run => plan(&state()?, &one.named),
        CredentialsVerb::Rotate(one) => refresh(&state()?, &one.named),
        CredentialsVerb::Keygen(one) => keygen(&state()?, one),
        CredentialsVerb::Seal(one) => seal_text(state, one),
    }
}

fn sources(state: &StateDir, format: Format) -> Result<ExitCode> {
    let value = api::get(state, "/v1/credentials")?;
    if matches!(format, Format::Json | Format::Yaml) {
        output::print_value(&value, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let reports: Vec<CustodyReport> = serde_json::from_value(value)?;
    show(&reports)?;
    Ok(ExitCode::SUCCESS)
}

fn show(reports: &[CustodyReport]) -> Result<()> {
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "SOURCE",
        "STATE",
        "VERSION",
        "PREVIOUS",
        "NOT AFTER",
        "FETCHED",
        "GATEWAYS",
    ]);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for one in reports {
        table.row(vec![
            one.namespace.clone(),
            one.name.clone(),
            one.source.clone(),
            match &one.reason {
                Some(reason) => format!("{} ({reason})", one.state),
                None => one.state.clone(),
            },
            or_dash(&one.version),
            or_dash(&one.previous),
            or_dash(&one.not_after),
            or_dash(&one.fetched),
            if one.gateways.is_empty() { "-".to_owned() } else { one.gateways.join(",") },
        ]);
    }
    let mut text = table.render();
    for one in reports {
        if let Some(detail) = &one.detail {
            text.push_str(&format!("{}/{}: {detail}\n", one.namespace, one.name));
        }
    }
    output::print(&text)
}

fn path(named: &NamedOptions, verb: &str) -> Result<String> {
    let name = super::workload_name(&named.credential)?;
    Ok(format!("/v1/credentials/{}/{}/{verb}", name.namespace, name.name))
}

/// Exits 1 when the source gives nothing.
fn refresh(state: &StateDir, named: &NamedOptions) -> Result<ExitCode> {
    let value = api::post(state, &path(named, "refresh")?, &json!({}))?;
    let report: CustodyReport = serde_json::from_value(value.clone())?;
    match named.output {
        Format::Json | Format::Yaml => output::print_value(&value, named.output)?,
        _ => show(std::slice::from_ref(&report))?,
    }
    Ok(ExitCode::from(u8::from(report.reason.is_some())))
}

/// Exits 1 when the source gives nothing.
fn plan(state: &StateDir, named: &NamedOptions) -> Result<ExitCode> {
    let value = api::post(state, &path(named, "plan")?, &json!({}))?;
    let plan: RotationPlan = serde_json::from_value(value.clone())?;
    let code = ExitCode::from(u8::from(plan.failure.is_some()));
    if matches!(named.output, Format::Json | Format::Yaml) {
        output::print_value(&value, named.output)?;
        return Ok(code);
    }
    let now = &plan.now;
    let in_use = now.version.as_deref().unwrap_or("none");
    let mut text = format!("{}/{}: version {in_use} is in use\n", now.namespace, now.name);
    if let Some(failure) = &plan.failure {
        text.push_str(&format!("the source ({}) gives nothing: {failure}\n", now.source));
    } else if plan.is_change {
        let version = plan.version.as_deref().unwrap_or("named by the time of the change");
        let grace = humantime::format_duration(std::time::Duration::from_secs(plan.grace_seconds));
        text.push_str(&format!(
            "the source ({}) has another version: {version}\n  entries that differ: {}\n  {in_use} \
             would be kept for {grace}\n",
            now.source,
            plan.differing.join(", ")
        ));
    } else {
        text.push_str(&format!("the source ({}) has the same values\n", now.source));
    }
    let gateways =
        if now.gateways.is_empty() { "none".to_owned() } else { now.gateways.join(", ") };
    text.push_str(&format!("gateways that are given it: {gateways}\n"));
    output::print(&text)?;
    Ok(code)
}

fn key_path(state: &StateDir, namespace: &str) -> Result<PathBuf> {
    if !is_dns_label(namespace) {
        bail!("{namespace:?} is not a namespace");
    }
    Ok(state.sealing_key(namespace))
}

fn keygen(state: &StateDir, options: &KeygenOptions) -> Result<ExitCode> {
    let path = key_path(state, &options.namespace)?;
    let before = if path.exists() {
        identities(&path)?;
        Zeroizing::new(std::fs::read_to_string(&path)?)
    } else {
        Zeroizing::default()
    };
    if before.is_empty() || options.next {
        state.create()?;
        state.create_sealing()?;
        let key = Identity::generate()?;
        let text = Zeroizing::new(format!(
            "# opens what was sealed for namespace {}; public key: {}\n{}\n{}",
            options.namespace,
            key.recipient()?,
            *key.to_text()?,
            *before
        ));
        write_private(&path, text.as_bytes())?;
    }
    let keys = identities(&path)?;
    let first = keys.first().context("the file of keys is empty")?;
    output::print(&format!("{}\n", first.recipient()?))?;
    Ok(ExitCode::SUCCESS)
}

fn seal_text(state: impl Fn() -> Result<StateDir>, options: &SealOptions) -> Result<ExitCode> {
    let recipients = if options.recipients.is_empty() {
        let path = key_path(&state()?, &options.namespace)?;
        let keys = identities(&path).with_context(|| {
            format!("run `sluis credentials keygen -n {}` first", options.namespace)
        })?;
        // The first one is in use; the others only open what was sealed before.
        vec![keys.first().context("the file of keys is empty")?.recipient()?]
    } else {
        options.recipients.clone()
    };
    let mut text = Zeroizing::new(Vec::new());
    std::io::stdin().lock().read_to_end(&mut text)?;
    if text.is_empty() {
        bail!("nothing to seal on standard input");
    }
    output::print(&seal(&text, &recipients)?)?;
    Ok(ExitCode::SUCCESS)
}
