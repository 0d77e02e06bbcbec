//! Accepts and refuses what Istio does, on Istio's own test data.
//!
//! The data is not part of the project: `SLUIS_CONFORMANCE_DIR` names the directory with it. Without
//! that variable the tests pass without having looked at anything.

use std::path::{Path, PathBuf};

use sluis_resources::{Fault, parse};

/// Files of `crds` whose kinds are not supported yet.
const KINDS_MISSING: [&str; 7] =
    ["authz", "peerauth", "proxyconfig", "reqauth", "telemetry", "wasm", "workloadgroup"];

/// Files of `configs` with something that is refused here on purpose, and why.
const CONFIGS_REFUSED: [(&str, &str); 0] = [];

fn directory(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SLUIS_CONFORMANCE_DIR")?;
    Some(Path::new(&root).join(name))
}

/// Returns the YAML files of a directory with their text, in the order of their names.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory)
        .expect("the conformance data is readable")
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("the file is text");
            (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text)
        })
        .collect();
    files.sort();
    files
}

/// Cuts a text into its documents, without those that are only comments.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") || line == "#---" {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let written = |document: &String| {
        document.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    };
    documents.into_iter().filter(written).collect()
}

#[test]
fn istios_valid_objects_are_accepted_and_its_invalid_ones_refused() {
    let Some(directory) = directory("crds") else { return };
    let mut judged = 0;
    for (name, text) in files(&directory) {
        let (kind, valid) =
            name.rsplit_once('-').expect("files are named KIND-valid or KIND-invalid");
        if KINDS_MISSING.contains(&kind) {
            continue;
        }
        for document in documents(&text) {
            let document: String = document
                .lines()
                .filter(|line| !line.starts_with("_err:"))
                .map(|line| format!("{line}\n"))
                .collect();
            let parsed = parse(&name, &document);
            let errors: Vec<&Fault> =
                parsed.faults.iter().filter(|fault| fault.is_error()).collect();
            assert_eq!(errors.is_empty(), valid == "valid", "{name}\n{document}\n{errors:#?}");
            assert_eq!(parsed.resources.len(), usize::from(valid == "valid"), "{name}\n{document}");
            judged += 1;
        }
    }
    assert!(judged > 30, "only {judged} objects were judged");
}

#[test]
fn istios_sample_configurations_are_read() {
    let Some(directory) = directory("configs") else { return };
    for (name, text) in files(&directory) {
        if CONFIGS_REFUSED.iter().any(|(refused, _)| *refused == name) {
            continue;
        }
        let unsupported = |fault: &Fault| fault.message == "this kind is not supported";
        let parsed = parse(&name, &text);
        let errors: Vec<String> = parsed
            .faults
            .iter()
            .filter(|fault| fault.is_error() && !unsupported(fault))
            .map(ToString::to_string)
            .collect();
        assert_eq!(errors, [""; 0], "{name}");
    }
}
