//! Whether each workload's connections reach its sidecar, and nothing else.
//!
//! In:    the report of a running mesh; its jails and network namespaces.
//! Out:   a category of checks; with a probe, one more.
//! Never: counts a way as closed that nobody could have answered on, without saying so.

use std::{net::IpAddr, process::Command};

use serde_json::Value;
use sluis_capture::filter::{self, Backend, Place};

use super::{
    finding::{Category, Check},
    machine::ran,
};
use crate::{
    api::{self, JailPlan},
    state::StateDir,
    status::Report,
};

/// Addresses for documentation (RFC 5737, RFC 3849): a jail takes them as it takes all others, and sends
/// nothing there.
const NOWHERE: [&str; 2] = ["198.51.100.10", "2001:db8::10"];

/// The workloads whose sidecar this machine runs, with what their commands need.
fn workloads(state: &StateDir, report: &Report) -> Vec<(String, anyhow::Result<JailPlan>)> {
    let sidecars = report
        .proxies
        .iter()
        .filter(|proxy| proxy.role == "sidecar" && proxy.process != "not run here");
    sidecars
        .map(|proxy| {
            let path = format!("/v1/workloads/{}/{}/jail", proxy.namespace, proxy.name);
            let plan = api::get(state, &path).and_then(|plan| Ok(serde_json::from_value(plan)?));
            (format!("{}/{}", proxy.namespace, proxy.name), plan)
        })
        .collect()
}

pub(super) fn check(state: &StateDir, report: &Report) -> Category {
    let mut checks = Vec::new();
    for (name, plan) in workloads(state, report) {
        checks.push(match plan {
            Err(error) => Check::new(format!("{name} is captured")).error(format!("{error:#}")),
            Ok(JailPlan { netns: Some(path), .. }) => {
                let check = Check::new(format!("{name} is captured ({})", path.display()));
                let shown = Backend::found()
                    .and_then(|backend| filter::show(&Place::At(path.clone()), backend));
                let hint = format!("`sluis capture apply --netns {}`, as root", path.display());
                match shown {
                    Ok(rules) if !rules.is_empty() => check,
                    Ok(_) => check.error("its namespace has no rules of capture").hint(hint),
                    Err(error) if nix::unistd::geteuid().is_root() => {
                        check.error(error.to_string())
                    }
                    Err(error) => check.warning(error.to_string()).hint("only root can look"),
                }
            }
            Ok(_) => {
                let check = Check::new(format!("a command runs in the jail of {name}"));
                match in_jail(state, &name) {
                    Ok(()) => check,
                    Err(error) => check.error(error).hint(format!("`sluis logs {name}`")),
                }
            }
        });
    }
    if checks.is_empty() {
        let check = Check::new("workloads are captured");
        checks.push(check.warning("this machine runs no sidecar"));
    }
    Category::new("capture", checks)
}

fn in_jail(state: &StateDir, name: &str) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(&program);
    command.arg("exec").arg("--state-dir").arg(state.root()).arg(name).arg("--").arg(&program);
    ran(command.arg("--version").current_dir("/"))
}

/// Probes each workload.
pub(super) fn probe(state: &StateDir, report: &Report, outside: &[IpAddr]) -> Category {
    let control = report.control_plane.parse::<std::net::SocketAddr>().map(|address| address.ip());
    let mut checks = Vec::new();
    for (name, plan) in workloads(state, report) {
        let is_jail = plan.is_ok_and(|plan| plan.netns.is_none());
        let check = Check::new(format!("there is no way around the sidecar of {name}"));
        if outside.is_empty() && !is_jail {
            let hint = "give an address outside that answers: a way to a silent one looks closed";
            checks.push(check.warning("not tried: no --outside").hint(hint));
            continue;
        }
        let mut command = Command::new("/proc/self/exe");
        command.args(["probe", "-o", "json", "--state-dir"]).arg(state.root()).arg(&name);
        let nowhere = NOWHERE.map(str::to_owned);
        let targets: Vec<String> = match outside {
            [] => nowhere.to_vec(),
            some => some.iter().map(ToString::to_string).collect(),
        };
        for target in targets {
            command.args(["--outside", &target]);
        }
        if let Ok(control) = control {
            command.args(["--control", &control.to_string()]);
        }
        checks.push(judged(check, &mut command));
    }
    Category::new("ways out", checks)
}

fn judged(check: Check, command: &mut Command) -> Check {
    let output = match command.stdin(std::process::Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return check.error(error.to_string()),
    };
    let Ok(Value::Array(ways)) = serde_json::from_slice(&output.stdout) else {
        let told = String::from_utf8_lossy(&output.stderr);
        return check.error(format!("the probe could not run: {}", told.trim()));
    };
    let tried = format!("{}: {} ways tried", check.description, ways.len());
    let check = Check { description: tried, ..check };
    let text = |way: &Value, field: &str| way[field].as_str().unwrap_or_default().to_owned();
    let open: Vec<String> = ways
        .iter()
        // What does not say that it is closed is open.
        .filter(|way| way["is_open"] != Value::Bool(false))
        .map(|way| {
            format!("OPEN {} to {}: {}", text(way, "way"), text(way, "target"), text(way, "detail"))
        })
        .collect();
    match (open.is_empty(), ways.is_empty()) {
        (true, false) => check,
        (true, true) => check.error("the probe tried nothing"),
        (false, _) => {
            check.error(open.join("\n")).hint("`sluis capture firewall` closes them at the router")
        }
    }
}
