//! Holds `docs/api-support.md` against the readers: what they know is on the page, and in its state.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The readers, and the section of the page about them.
const SECTIONS: [(&str, &str); 10] = [
    ("meta.rs", "Metadata"),
    ("gateway.rs", "Gateway"),
    ("tls.rs", "TLS settings"),
    ("shared.rs", "TLS settings"),
    ("virtual_service.rs", "VirtualService"),
    ("virtual_service/http.rs", "VirtualService"),
    ("destination_rule.rs", "DestinationRule"),
    ("service_entry.rs", "ServiceEntry and WorkloadEntry"),
    ("core.rs", "Service, Secret, ConfigMap"),
    ("mesh_config.rs", "Mesh configuration"),
];

/// Texts in the readers that are no fields.
const NO_FIELDS: [&str; 8] =
    ["a", "default", "exportTo", "https", "httpsRedirect", "istio", "labels", "matchLabels"];

/// What a reader calls, and the states that the page may give to such a field.
const STATES: [(&str, &[&str]); 4] = [
    ("unsupported", &["refused"]),
    ("not_carried_out", &["warning"]),
    ("without_effect", &["no effect"]),
    ("ignore", &["ignored"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page() -> String {
    read(&root().join("../../docs/api-support.md"))
}

/// A reader's code, without comments and tests.
fn code(file: &str) -> String {
    let text = read(&root().join("src/read").join(file));
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

fn section(page: &str, title: &str) -> String {
    let start = format!("\n## {title}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

fn all<'t>(pattern: &str, text: &'t str) -> BTreeSet<&'t str> {
    let pattern = Regex::new(pattern).expect("the pattern is right");
    pattern.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str())).collect()
}

#[test]
fn the_page_has_every_field_and_value_that_is_read() {
    let page = page();
    let mut missing = Vec::new();
    let files = SECTIONS.into_iter().chain([("envoy_filter.rs", "EnvoyFilter")]);
    for (file, title) in files {
        let here = section(&page, title);
        let here = all("`([A-Za-z0-9_]+)`", &here);
        let code = code(file);
        for name in all(r#""([a-z][A-Za-z0-9_]*|[A-Z][A-Z0-9_]+)""#, &code) {
            if !here.contains(name) && !NO_FIELDS.contains(&name) {
                missing.push(format!("{title}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/api-support.md lacks, by section:\n{}", missing.join("\n"));
}

#[test]
fn the_page_tells_the_state_of_what_is_not_carried_out() {
    let page = page();
    let mut wrong = Vec::new();
    for (file, title) in SECTIONS {
        let (here, code) = (section(&page, title), code(file));
        for (call, states) in STATES {
            let list = format!(r"(?s)fields\.{call}\(&\[(.*?)\]\)");
            for name in all(&list, &code).into_iter().flat_map(|names| all(r#""(\w+)""#, names)) {
                let quoted = format!("`{name}`");
                let is_told = here.lines().filter(|row| row.starts_with('|')).any(|row| {
                    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                    cells[1].contains(&quoted) && states.contains(&cells[2])
                });
                if !is_told {
                    wrong.push(format!("{title}: {name} is not told as {states:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "docs/api-support.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_page_has_every_annotation_that_is_read() {
    let section = section(&page(), "Metadata");
    let code = code("meta.rs");
    let annotations = all(r#""([a-z.]+/[A-Za-z-]+)""#, &code);
    assert!(annotations.len() > 5);
    for annotation in annotations {
        assert!(section.contains(&format!("\n| `{annotation}` |")), "{annotation}");
    }
}
