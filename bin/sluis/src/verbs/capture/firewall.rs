//! `sluis capture firewall`: NetworkPolicies as nftables, for a workload's host or for a router.
//!
//! In:    files with NetworkPolicies, workloads, Namespaces and Gateways.
//! Out:   the rules, printed or in force; exit code 65 when the files have errors.
//! Never: makes rules of files with errors: a policy that was left out would look enforced.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;
use sluis_capture::{
    filter::{Place, load_script},
    firewall::{Allowed, Firewall, Transport, Workload},
};
use sluis_model::{Isolated, Isolation, isolate};
use sluis_nouns::Cidr;
use sluis_resources::NetworkProtocol;

use crate::{
    arguments::{ReadingOptions, WorkloadArgument},
    output,
    verbs::workload_name,
};

/// `EX_DATAERR` of sysexits.
const EXIT_FAULTS: u8 = 65;

#[derive(Args, Debug)]
pub(super) struct FirewallOptions {
    /// The workload whose host the rules are for [default: a router between all of them]
    workload: Option<String>,

    /// The namespace of a workload named without one
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// A file or folder of YAML; may be given several times
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    reading: ReadingOptions,

    /// A control plane, which every workload may call; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    control: Vec<SocketAddr>,

    /// Addresses that count as inside the mesh, beside those of its workloads
    #[arg(long, value_name = "RANGE")]
    inside: Vec<Cidr>,

    /// A server of names that every workload may ask
    #[arg(long, value_name = "ADDRESS")]
    names: Vec<IpAddr>,

    /// Let a workload leave directly where a NetworkPolicy says so; else gateways alone may (router)
    #[arg(long)]
    obey_outside: bool,

    /// Put the rules in force, instead of printing them
    #[arg(long, conflicts_with = "remove")]
    apply: bool,

    /// Take the rules out
    #[arg(long)]
    remove: bool,

    /// The network namespace, by path [default: the caller's own]
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
}

pub(super) fn run(options: &FirewallOptions) -> Result<ExitCode> {
    let place = options.netns.clone().map_or(Place::Here, Place::At);
    if options.remove {
        load_script(&place, &Firewall::removal())?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = sluis_sources::load(&options.files, &options.reading.options());
    let mut errors: Vec<String> = loaded
        .all_faults()
        .iter()
        .filter(|fault| fault.is_error())
        .map(ToString::to_string)
        .collect();
    let resources: Vec<_> =
        loaded.files.into_iter().flat_map(|(_, parsed)| parsed.resources).collect();
    let isolation = isolate(&resources);
    errors.extend(isolation.faults.iter().map(ToString::to_string));
    if !errors.is_empty() {
        told(&errors);
        return Ok(ExitCode::from(EXIT_FAULTS));
    }
    let firewall = firewall(options, isolation);
    if firewall.workloads.is_empty() {
        bail!("the files have no workload with an address: everything would be refused");
    }
    let text = match &options.workload {
        Some(workload) => {
            let (workload, namespace) = (workload.clone(), options.namespace.clone());
            firewall.host(&workload_name(&WorkloadArgument { workload, namespace })?.to_string())?
        }
        None => firewall.router(!options.obey_outside),
    };
    if options.apply {
        load_script(&place, &text)?;
    } else {
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn firewall(options: &FirewallOptions, isolation: Isolation) -> Firewall {
    Firewall {
        workloads: isolation.workloads.into_iter().map(workload).collect(),
        inside: options.inside.clone(),
        control: options.control.clone(),
        names: options.names.clone(),
    }
}

fn workload(one: Isolated) -> Workload {
    let all = |rules: Vec<sluis_model::Allowed>| rules.into_iter().map(allowed).collect();
    Workload {
        name: one.name.to_string(),
        addresses: one.addresses,
        is_gateway: one.is_gateway,
        egress: one.egress.map(all),
        ingress: one.ingress.map(all),
    }
}

fn allowed(rule: sluis_model::Allowed) -> Allowed {
    let transport = |protocol| match protocol {
        NetworkProtocol::Tcp => Transport::Tcp,
        NetworkProtocol::Udp => Transport::Udp,
        NetworkProtocol::Sctp => Transport::Sctp,
    };
    let ranges =
        |all: Vec<sluis_model::Range>| all.into_iter().map(|one| (one.range, one.except)).collect();
    let ports = |all: Vec<sluis_model::PortRange>| {
        all.into_iter().map(|one| (transport(one.protocol), one.ports.0, one.ports.1)).collect()
    };
    Allowed {
        why: rule.policy.to_string(),
        ranges: rule.ranges.map(ranges),
        ports: rule.ports.map(ports),
    }
}

#[expect(clippy::print_stderr, reason = "faults of the input are what standard error is for")]
fn told(errors: &[String]) {
    for error in errors {
        eprintln!("{error}");
    }
}
