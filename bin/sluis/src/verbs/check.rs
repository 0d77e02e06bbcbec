//! `sluis check`: whether this machine can run a mesh, and whether the mesh that runs is well.
//!
//! In:    the machine; the running `sluis up`, unless only the machine is asked about (`--pre`).
//! Out:   categories of checks, each well, doubtful or wrong, with a hint; exit code 0, 1 or 2 for the
//!        worst of them.
//! Never: changes anything, or asks anybody outside. A short command runs in each jail.

mod capture;
mod finding;
mod machine;
mod mesh;

use std::{net::IpAddr, process::ExitCode, time::SystemTime};

use anyhow::Result;
use clap::Args;

use crate::{
    api,
    arguments::StateOption,
    output::{self, Format},
    state::StateDir,
    status::Report,
};
use finding::{Category, Check, Outcome};

/// `sluis check`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 all is well, 1 something is doubtful, 2 something is wrong.

Examples:
  sluis check --pre                                before `sluis up`: can this machine run it
  sluis check                                      is the running mesh well
  sluis check --probe --outside 198.51.100.10      and is there a way around it")]
pub(crate) struct CheckOptions {
    /// Look at the machine alone: no `sluis up` runs yet
    #[arg(long, conflicts_with = "probe")]
    pre: bool,

    /// Try every known way out of each workload, as `sluis probe` does
    #[arg(long)]
    probe: bool,

    /// With --probe: an address outside the mesh that answers; may be given several times
    #[arg(long, value_name = "ADDRESS", requires = "probe")]
    outside: Vec<IpAddr>,

    #[command(flatten)]
    state: StateOption,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Carries out the verb.
///
/// # Errors
///
/// When the state folder cannot be found, or standard output is closed.
pub(crate) fn run(options: &CheckOptions) -> Result<ExitCode> {
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let mut found = vec![machine::check(&state, options.pre)];
    if !options.pre {
        live(&state, options, &mut found);
    }
    let worst = finding::worst(&found);
    match options.output {
        Format::Json | Format::Yaml => {
            output::print_value(&finding::value(&found), options.output)?
        }
        Format::Table | Format::Wide => output::print(&finding::text(&found, is_utf8()))?,
    }
    Ok(ExitCode::from(match worst {
        Outcome::Success => 0,
        Outcome::Warning => 1,
        Outcome::Error => 2,
    }))
}

/// What only a running mesh can tell.
fn live(state: &StateDir, options: &CheckOptions, found: &mut Vec<Category>) {
    let asked = api::get(state, "/v1/status")
        .and_then(|value| Ok(serde_json::from_value::<Report>(value)?))
        .and_then(|report| {
            let authority = serde_json::from_value(api::get(state, "/v1/ca/status")?)?;
            Ok((report, authority))
        });
    let (report, authority) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            let check = Check::new("the control plane answers")
                .error(format!("{error:#}"))
                .hint("start `sluis up`, name its --state-dir, or look at the machine with --pre");
            found.push(Category::new("control plane", vec![check]));
            return;
        }
    };
    let now = SystemTime::now().into();
    found.push(mesh::control_plane(&report));
    found.push(mesh::authority(
        &authority,
        &sluis_ca::audit(&state.ca().join("issued.jsonl")),
        now,
    ));
    found.push(mesh::proxies(&report, authority.certificate_life_seconds, now));
    found.push(capture::check(state, &report));
    if options.probe {
        found.push(capture::probe(state, &report, &options.outside));
    }
}

/// Whether the terminal shows more than ASCII.
fn is_utf8() -> bool {
    let mut named =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok());
    let locale = named.find(|value| !value.is_empty()).unwrap_or_default();
    locale.to_ascii_uppercase().replace('-', "").contains("UTF8")
}
