//! `sluis capture repair`: namespaces that should be captured and are not, or not as they should be.
//!
//! In:    the WorkloadEntries of files that name a network namespace, or one namespace.
//! Out:   for each: whether its rules were right, and what was done; rules put in force again.
//! Never: touches a workload that asks not to be captured, or a namespace that is not there.
//!
//! What started before capture was there (a machine that boots, a pod before its CNI plugin) has no rules,
//! and perhaps connections past its sidecar: they are ended, so that they are made again through it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;
use sluis_capture::filter::{self, Place, Standing};
use sluis_control::NETNS_ANNOTATION;
use sluis_resources::{Options, Spec};

use super::{PlaceOptions, rules_of};
use crate::output::{self, Table};

/// What `--dry-run` ends with when something is to be repaired, as `sluis probe` does for open ways.
const FOUND: u8 = 3;

/// Istio's own: `NONE` asks not to be captured.
const MODE: &str = "sidecar.istio.io/interceptionMode";

/// `sluis capture repair`.
#[derive(Args, Debug)]
pub(super) struct RepairOptions {
    #[command(flatten)]
    place: PlaceOptions,

    /// Files of YAML: each WorkloadEntry with sluis.dev/netns is looked at
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,

    /// Leave name queries alone
    #[arg(long)]
    no_dns: bool,

    /// Refuse all that the sidecar cannot take: UDP, ICMP, other protocols
    #[arg(long)]
    closed: bool,

    /// Say what is wrong, and change nothing; ends with 3 when there is something
    #[arg(long)]
    dry_run: bool,

    /// Look again every so many seconds, until stopped
    #[arg(long, value_name = "SECONDS", conflicts_with = "dry_run")]
    every: Option<u32>,
}

/// One namespace to look at.
struct Captured {
    name: String,
    netns: Option<PathBuf>,
    annotations: BTreeMap<String, String>,
}

/// Looks, and repairs.
pub(super) fn run(options: &RepairOptions) -> Result<ExitCode> {
    loop {
        let all = captured(options);
        if all.is_empty() {
            bail!("the files have no WorkloadEntry with {NETNS_ANNOTATION}");
        }
        let mut table = Table::new(&["WORKLOAD", "NAMESPACE", "RULES", "DONE"]);
        let mut is_wrong = false;
        for one in all {
            let (rules, done) = look(options, &one).unwrap_or_else(|error| {
                is_wrong = true;
                ("unknown".to_owned(), format!("{error:#}"))
            });
            is_wrong |= done == TO_DO;
            let netns = one.netns.map_or(String::new(), |path| path.display().to_string());
            // Who looks again and again wants to hear of what is new.
            if options.every.is_none() || rules != RIGHT {
                table.row(vec![one.name, netns, rules, done]);
            }
        }
        if options.every.is_none() || !table.is_empty() {
            output::print(&table.render())?;
        }
        match options.every {
            Some(seconds) => {
                std::thread::sleep(Duration::from_secs(u64::from(seconds.max(1))));
            }
            None if is_wrong => return Ok(ExitCode::from(FOUND)),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

const RIGHT: &str = "right";
const TO_DO: &str = "to be repaired";

fn captured(options: &RepairOptions) -> Vec<Captured> {
    if options.files.is_empty() {
        let (netns, annotations) = (options.place.netns.clone(), BTreeMap::new());
        return vec![Captured { name: String::new(), netns, annotations }];
    }
    let loaded = sluis_sources::load(&options.files, &Options::LENIENT);
    let resources = loaded.files.into_iter().flat_map(|(_, parsed)| parsed.resources);
    let entries = resources.filter(|one| matches!(one.spec, Spec::WorkloadEntry(_)));
    entries
        .filter_map(|entry| {
            let annotations: BTreeMap<String, String> =
                entry.meta.annotations.clone().into_iter().collect();
            let is_gateway = annotations.get("sluis.dev/run").is_some_and(|run| run == "gateway");
            let is_wanted = annotations.get(MODE).is_none_or(|mode| mode != "NONE");
            let netns = annotations.get(NETNS_ANNOTATION).map(PathBuf::from);
            let netns = netns.filter(|_| is_wanted && !is_gateway)?;
            Some(Captured { name: entry.meta.name.to_string(), netns: Some(netns), annotations })
        })
        .collect()
}

/// Looks at one namespace, and repairs it if that is wanted; what was found, and what was done.
fn look(options: &RepairOptions, one: &Captured) -> Result<(String, String)> {
    let place = match &one.netns {
        Some(path) if !Path::new(path).exists() => {
            return Ok(("none".to_owned(), "there is no such namespace".to_owned()));
        }
        Some(path) => Place::At(path.clone()),
        None => Place::Here,
    };
    let backend = options.place.backend()?;
    let rules = rules_of(&one.annotations, options.no_dns, options.closed)?;
    let found = filter::standing(&place, backend, &rules)?;
    let shown = match found {
        Standing::InForce => return Ok((RIGHT.to_owned(), String::new())),
        Standing::Missing => "missing",
        Standing::Differ => "differ",
    };
    if options.dry_run {
        return Ok((shown.to_owned(), TO_DO.to_owned()));
    }
    filter::apply(&place, backend, &rules)?;
    let done = if found == Standing::Missing {
        let ended = filter::end_connections(&place)?;
        format!("repaired; {ended} connections ended")
    } else {
        "repaired".to_owned()
    };
    Ok((shown.to_owned(), done))
}
