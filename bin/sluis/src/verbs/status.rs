//! `sluis status`: how the mesh is, in a few lines, and everything that is refused.
//!
//! In:    the report of a running `sluis up`.
//! Out:   counts, and a table of faults and of what proxies refused; exit code 65 when there is any
//!        but warnings.
//! Never: lists what is well: `get` and `proxy-status` do.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::validate::EXIT_FAULTS;
use crate::{
    api,
    cli::ProxyStatusOptions,
    output::{self, Format, Table},
    state::StateDir,
    status::Report,
};

/// Prints the report.
///
/// # Errors
///
/// When no `sluis up` runs.
pub(crate) fn run(options: &ProxyStatusOptions) -> Result<ExitCode> {
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let report: Report = serde_json::from_value(api::get(&state, "/v1/status")?)?;
    let problems = problems(&report);
    match options.output {
        Format::Json | Format::Yaml => {
            output::print_value(&value(&report, &problems), options.output)?
        }
        Format::Table | Format::Wide => output::print(&text(&report, &problems))?,
    }
    let is_well = problems.iter().all(|problem| problem.state == WARNING);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULTS) })
}

const WARNING: &str = "Warning";

/// One thing that is wrong.
#[derive(Debug, PartialEq)]
struct Problem<'a> {
    /// `Proxy`, or the kind of an object; empty for a fault of a file.
    kind: &'a str,
    name: String,
    /// `Error`, `Warning`, `NACK`.
    state: &'static str,
    place: String,
    message: String,
}

fn problems(report: &Report) -> Vec<Problem<'_>> {
    let refusals = report.proxies.iter().flat_map(|proxy| {
        proxy.sync.iter().filter_map(move |(kind, sync)| {
            let message = sync.detail.clone()?;
            let name = format!("{}/{}", proxy.namespace, proxy.name);
            Some(Problem { kind: "Proxy", name, state: "NACK", place: kind.clone(), message })
        })
    });
    let faults = report.details.iter().map(|fault| {
        let (kind, name) =
            fault.resource.as_deref().unwrap_or("").split_once(' ').unwrap_or_default();
        let colon = if fault.field.is_empty() { "" } else { ": " };
        let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        Problem {
            kind,
            name: name.to_owned(),
            state: if fault.level == "error" { "Error" } else { WARNING },
            place: format!("{}:{}:{}", fault.file, fault.line, fault.column),
            message: format!("{}{colon}{}{help}", fault.field, fault.message),
        }
    });
    refusals.chain(faults).collect()
}

/// How many proxies are in which state, such as `2 SYNCED, 1 NACK`.
fn proxies(report: &Report) -> String {
    let words = ["SYNCED", "STALE", "NACK", "NOT CONNECTED"].into_iter().filter_map(|word| {
        let count = report.proxies.iter().filter(|proxy| proxy.sync_word() == word).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn text(report: &Report, problems: &[Problem<'_>]) -> String {
    let count = |state: &str| problems.iter().filter(|problem| problem.state == state).count();
    let mut text = format!(
        "control plane  {}, trust domain {}\nproxies        {}\nfaults         {} errors, {} warnings\n",
        report.control_plane,
        report.trust_domain,
        proxies(report),
        count("Error"),
        count(WARNING),
    );
    if !problems.is_empty() {
        let mut table = Table::new(&["KIND", "NAME", "STATUS", "WHERE", "MESSAGE"]);
        for problem in problems {
            table.row(vec![
                problem.kind.to_owned(),
                problem.name.clone(),
                problem.state.to_owned(),
                problem.place.clone(),
                // A cell is one line; proxies answer with several.
                problem.message.split_whitespace().collect::<Vec<_>>().join(" "),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

fn value(report: &Report, problems: &[Problem<'_>]) -> Value {
    let problems: Vec<Value> = problems
        .iter()
        .map(|problem| {
            json!({
                "kind": problem.kind,
                "name": problem.name,
                "status": problem.state,
                "where": problem.place,
                "message": problem.message,
            })
        })
        .collect();
    json!({
        "controlPlane": report.control_plane,
        "trustDomain": report.trust_domain,
        "proxies": proxies(report),
        "problems": problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{FaultReport, ProxyReport, SyncReport};

    #[test]
    fn what_is_refused_is_listed_and_what_is_well_is_counted() {
        let refused = SyncReport {
            state: "NACK".to_owned(),
            detail: Some("listener x:\n no address".to_owned()),
            ..SyncReport::default()
        };
        let proxy = |name: &str, is_connected| ProxyReport {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            is_connected,
            ..ProxyReport::default()
        };
        let mut nacking = proxy("cart", true);
        nacking.sync.insert("LDS".to_owned(), refused);
        let report = Report {
            control_plane: "127.0.0.1:15012".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            proxies: vec![nacking, proxy("web", true), proxy("db", false)],
            details: vec![FaultReport {
                level: "error".to_owned(),
                file: "a.yaml".to_owned(),
                line: 3,
                column: 5,
                resource: Some("HTTPRoute shop/lost".to_owned()),
                field: "status.Accepted".to_owned(),
                message: "NoMatchingParent".to_owned(),
                help: None,
            }],
            ..Report::default()
        };
        assert_eq!(
            text(&report, &problems(&report)),
            "control plane  127.0.0.1:15012, trust domain cluster.local\n\
             proxies        1 SYNCED, 1 NACK, 1 NOT CONNECTED\n\
             faults         1 errors, 0 warnings\n\n\
             KIND        NAME        STATUS   WHERE        MESSAGE\n\
             Proxy       shop/cart   NACK     LDS          listener x: no address\n\
             HTTPRoute   shop/lost   Error    a.yaml:3:5   status.Accepted: NoMatchingParent\n"
        );
    }
}
