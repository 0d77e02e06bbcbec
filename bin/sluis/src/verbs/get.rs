//! `sluis get KIND`: what users wrote, with its status, as `kubectl get` shows it.
//!
//! In:    kinds and names; a running `sluis up`, or files.
//! Out:   tables, or the objects as JSON or YAML.
//! Never: says that there is nothing where a kind is unknown.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    api,
    cli::GetOptions,
    objects::{self, ObjectReport, kinds_named},
    output::{self, Format, Table},
    state::StateDir,
    verbs::validate,
};

/// Prints the objects.
///
/// # Errors
///
/// When a kind is unknown, an object named is not there, or no `sluis up` runs.
pub(crate) fn run(options: &GetOptions) -> Result<ExitCode> {
    let reports: Vec<ObjectReport> = found(options)?
        .into_iter()
        .filter(|one| {
            let is_here = one.namespace.is_empty() || one.namespace == options.namespace;
            options.all_namespaces || is_here
        })
        .filter(|one| options.names.is_empty() || options.names.contains(&one.name))
        .collect();
    let missing: Vec<&String> =
        options.names.iter().filter(|name| !reports.iter().any(|one| one.name == **name)).collect();
    if !reports.is_empty() || options.names.is_empty() {
        print(options, &reports)?;
    }
    for name in &missing {
        complain(&format!("Error (NotFound): {} {name:?} not found", options.kinds));
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every object of the kinds, from the files or the running mesh.
fn found(options: &GetOptions) -> Result<Vec<ObjectReport>> {
    let kinds = kinds_named(&options.kinds)?;
    let is_whole = matches!(options.output, Format::Json | Format::Yaml);
    if options.files.is_empty() {
        let state = StateDir::locate(options.state.state_dir.clone())?;
        let path = format!("/v1/objects?kinds={}&whole={is_whole}", options.kinds);
        return Ok(serde_json::from_value(api::get(&state, &path)?)?);
    }
    let checked = validate::check(&options.files, options.reading)?;
    Ok(objects::list(&checked.control.snapshot(), &checked.faults, &kinds, is_whole))
}

fn print(options: &GetOptions, reports: &[ObjectReport]) -> Result<()> {
    match options.output {
        Format::Json | Format::Yaml => {
            let objects: Vec<&Value> = reports.iter().map(|one| &one.object).collect();
            let value = match objects[..] {
                [only] if options.names.len() == 1 => only.clone(),
                _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
            };
            output::print_value(&value, options.output)
        }
        Format::Table | Format::Wide if reports.is_empty() => {
            complain(&if options.all_namespaces {
                "No resources found".to_owned()
            } else {
                format!("No resources found in {} namespace.", options.namespace)
            });
            Ok(())
        }
        Format::Table | Format::Wide => output::print(&tables(options, reports)),
    }
}

/// A table for each kind; with several, names begin with their kind.
fn tables(options: &GetOptions, reports: &[ObjectReport]) -> String {
    let groups: Vec<&[ObjectReport]> = reports.chunk_by(|a, b| a.resource == b.resource).collect();
    let is_wide = options.output == Format::Wide;
    let tables = groups.iter().map(|group| {
        let mut header = Vec::new();
        if options.all_namespaces {
            header.push("NAMESPACE");
        }
        header.extend(["NAME", "STATUS"]);
        if is_wide {
            header.extend(["SOURCE", "MESSAGE"]);
        }
        let mut table = Table::new(&header);
        for one in *group {
            let mut row = Vec::new();
            if options.all_namespaces {
                row.push(one.namespace.clone());
            }
            let is_one_of_several = groups.len() > 1;
            row.push(if is_one_of_several {
                format!("{}/{}", one.resource, one.name)
            } else {
                one.name.clone()
            });
            row.push(one.state.clone());
            if is_wide {
                row.extend([one.source.clone(), one.message.clone()]);
            }
            table.row(row);
        }
        table.render()
    });
    tables.collect::<Vec<_>>().join("\n")
}

#[expect(clippy::print_stderr, reason = "as kubectl: what is not there is no data")]
fn complain(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn options(words: &str) -> GetOptions {
        let Verb::Get(options) = Cli::parse_from(words.split(' ')).verb else { panic!("get") };
        options
    }

    fn report(resource: &str, name: &str) -> ObjectReport {
        ObjectReport {
            resource: resource.to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            state: "OK".to_owned(),
            message: String::new(),
            source: "mesh.yaml:3".to_owned(),
            object: Value::Null,
        }
    }

    #[test]
    fn tables_are_as_kubectl_prints_them() {
        let one = [report("services", "a"), report("services", "long")];
        assert_eq!(
            tables(&options("sluis get svc"), &one),
            "NAME   STATUS\na      OK\nlong   OK\n"
        );
        let two = [report("pods", "a"), report("services", "b")];
        assert_eq!(
            tables(&options("sluis get po,svc -A"), &two),
            "NAMESPACE   NAME     STATUS\nshop        pods/a   OK\n\n\
             NAMESPACE   NAME         STATUS\nshop        services/b   OK\n"
        );
        assert_eq!(
            tables(&options("sluis get svc a -o wide"), &one[..1]),
            "NAME   STATUS   SOURCE        MESSAGE\na      OK       mesh.yaml:3   -\n"
        );
    }
}
