//! `sluis capture`: the packet filter that brings a host's connections to its sidecar.
//!
//! In:    annotations, given or of a workload in files; a network namespace.
//! Out:   rules in force, removed, or printed.
//! Never: touches rules that are not ours.

mod firewall;
mod probes;
mod repair;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use sluis_capture::filter::{self, Backend, Place, Rules, Written};
use sluis_nouns::ObjectName;
use sluis_resources::{Options, Spec};

use crate::{arguments::WorkloadArgument, output, verbs::workload_name};

/// `sluis capture`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sluis capture apply --netns /run/netns/shop --closed
  sluis capture apply --dry-run -a traffic.sidecar.istio.io/excludeOutboundPorts=3306
  sluis capture apply -f pods.yaml shop/cart --netns /run/netns/cart
  sluis capture show --netns /run/netns/shop
  sluis capture repair -f mesh/ --closed --every 10
  sluis capture firewall -f mesh/ --control 10.0.0.2:15012            # for a router, printed
  sluis capture firewall -f mesh/ shop/cart --netns /run/netns/cart --apply")]
pub(crate) struct CaptureOptions {
    /// What to do.
    #[command(subcommand)]
    verb: CaptureVerb,
}

/// What can be done with a packet filter.
#[derive(Debug, Subcommand)]
enum CaptureVerb {
    /// Load the rules; those that were there are replaced
    Apply(ApplyOptions),
    /// Take the rules out
    Remove(PlaceOptions),
    /// Print the rules that are in force
    Show(PlaceOptions),
    /// NetworkPolicies, and that gateways alone may leave, as rules for a host or a router
    Firewall(firewall::FirewallOptions),
    /// Find namespaces that are not captured as they should be, and capture them
    Repair(repair::RepairOptions),
    /// Lead a pod's health probes to its sidecar, as Istio's injector does (rewriteAppHTTPProbe)
    Probes(probes::ProbesOptions),
}

/// Where.
#[derive(Args, Debug)]
struct PlaceOptions {
    /// The network namespace, by path [default: the caller's own]
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// By which program [default: nft where it is installed]
    #[arg(long, value_enum)]
    backend: Option<Program>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    Nft,
    Iptables,
}

#[derive(Args, Debug)]
struct ApplyOptions {
    #[command(flatten)]
    place: PlaceOptions,

    /// The workload whose annotations say what is captured, in the files of -f: a Pod or WorkloadEntry
    #[arg(requires = "files")]
    workload: Option<String>,

    /// The namespace of a workload named without one
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// Files of YAML with the workload
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,

    /// An annotation, as a pod would have it; may be given several times
    #[arg(short, long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,

    /// Leave name queries alone
    #[arg(long)]
    no_dns: bool,

    /// Refuse all that the sidecar cannot take: UDP, ICMP, other protocols
    #[arg(long)]
    closed: bool,

    /// Print the rules, and load none
    #[arg(long)]
    dry_run: bool,
}

impl PlaceOptions {
    fn place(&self) -> Place {
        self.netns.clone().map_or(Place::Here, Place::At)
    }

    fn backend(&self) -> Result<Backend> {
        Ok(match self.backend {
            Some(Program::Nft) => Backend::Nft,
            Some(Program::Iptables) => Backend::Iptables,
            None => Backend::found()?,
        })
    }
}

/// Carries out the verb.
///
/// # Errors
///
/// When annotations are not understood, or the kernel refuses.
pub(crate) fn run(options: &CaptureOptions) -> Result<ExitCode> {
    match &options.verb {
        CaptureVerb::Apply(options) => apply(options)?,
        CaptureVerb::Firewall(options) => return firewall::run(options),
        CaptureVerb::Probes(options) => probes::run(options)?,
        CaptureVerb::Repair(options) => return repair::run(options),
        CaptureVerb::Remove(options) => filter::remove(&options.place())?,
        CaptureVerb::Show(options) => {
            let shown = filter::show(&options.place(), options.backend()?)?;
            if shown.is_empty() {
                bail!("nothing is captured here");
            }
            output::print(&shown)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(options: &ApplyOptions) -> Result<()> {
    let mut annotations = match &options.workload {
        Some(workload) => annotations_of(options, workload)?,
        None => BTreeMap::new(),
    };
    for given in &options.annotations {
        let (key, value) = given.split_once('=').context("an annotation is written KEY=VALUE")?;
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let rules = rules_of(&annotations, options.no_dns, options.closed)?;
    let backend = options.place.backend()?;
    if options.dry_run {
        return output::print(&filter::script(backend, &rules));
    }
    Ok(filter::apply(&options.place.place(), backend, &rules)?)
}

/// The rules that annotations ask for.
fn rules_of(
    annotations: &BTreeMap<String, String>,
    no_dns: bool,
    is_closed: bool,
) -> Result<Rules> {
    let mut written = Written::from_annotations(annotations).map_err(told)?;
    if !no_dns {
        written.dns_servers = "*".to_owned();
    }
    written.is_closed = is_closed;
    Ok(Rules::of(&written.settings().map_err(told)?))
}

/// The annotations of a Pod or WorkloadEntry in files.
fn annotations_of(options: &ApplyOptions, workload: &str) -> Result<BTreeMap<String, String>> {
    let argument =
        WorkloadArgument { workload: workload.to_owned(), namespace: options.namespace.clone() };
    let name: ObjectName = workload_name(&argument)?;
    let loaded = sluis_sources::load(&options.files, &Options::LENIENT);
    let resources = loaded.files.into_iter().flat_map(|(_, parsed)| parsed.resources);
    let found = resources
        .into_iter()
        .find(|one| {
            one.meta.name == name && matches!(one.spec, Spec::Pod(_) | Spec::WorkloadEntry(_))
        })
        .with_context(|| format!("the files have no Pod and no WorkloadEntry {name}"))?;
    Ok(found.meta.annotations.clone().into_iter().collect())
}

fn told(faults: Vec<filter::SettingError>) -> anyhow::Error {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    anyhow!("{}", faults.join("; "))
}
